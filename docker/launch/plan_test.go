package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/identity"
	"github.com/berthdev/berth/internal/usage"
)

// workstation is a machine with two GPUs and a desktop, and alice before it.
func workstation() Host {
	return Host{
		Launch: "1a2b3c4d", Hostname: "workstation", TimeZone: "Europe/Berlin", Memory: 64 << 30,
		User: identity.User{Name: "alice", UID: 1000, Gecos: "Alice Example", Home: "/home/alice",
			Groups: []identity.Group{{Name: "alice", GID: 1000}, {Name: "video", GID: 44}, {Name: "gpu people", GID: 5000}}},
		Root: "/home/alice/src/demo", Dir: "/home/alice/src/demo/trainer",
		Env:      map[string]string{"TOKEN": "secret"},
		Terminal: Terminal{Present: true, Rows: 50, Columns: 120, Type: "xterm-256color"},
		API:      "1.51",
		Daemon:   daemon.Info{Version: "28.3.2", RootDir: "/var/lib/docker", Runtimes: []string{"runc"}},
		Image:    daemon.Image{ID: "sha256:0123", Command: []string{"bash"}},
		Passwd: []byte("root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n" +
			"ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash\n"),
		Group: []byte("root:x:0:\nvideo:x:44:\nwww-data:x:33:\nubuntu:x:1000:\n"),
		GPU: gpu.Machine{SMI: true, Loaded: true, Toolkit: true, Hardware: true, GPUs: []gpu.GPU{
			{Index: 0, UUID: "GPU-11111111-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA H200"},
			{Index: 1, UUID: "GPU-22222222-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA H200"},
		}},
		Display: display.Found{
			X11:     display.Display{Kind: display.X11, Network: "unix", Address: "/tmp/.X11-unix/X0", Number: "0", Own: true},
			Wayland: display.Display{Kind: display.Wayland, Network: "unix", Address: "/run/user/1000/wayland-0"},
		},
		Local: true,
	}
}

func options() Options {
	return Options{
		Project: "demo-cnn", Root: "/home/alice/src/demo", Home: ours.Home, Skeleton: ours.Skeleton, Image: "demo-cnn:latest",
	}
}

// With BERTH_UPDATE set, the golden files are rewritten.
func TestPlans(t *testing.T) {
	tests := map[string]func(*Host, *Options){
		"default":       func(*Host, *Options) {},
		"lasting shell": func(h *Host, o *Options) { o.Detach, o.GPUs, o.GUI = true, "1,0", "off" },
		"lasting command with ports": func(h *Host, o *Options) {
			o.Detach, o.Command, o.Ports, o.GPUs, o.GUI = true, "jupyter lab", "8888,0.0.0.0:53:5353/udp,[::1]:80:8080", "none", "off"
		},
		"laptop without GPU": func(h *Host, o *Options) {
			h.GPU, h.Display = gpu.Machine{}, display.Found{X11Err: "DISPLAY isn't set", WaylandErr: "WAYLAND_DISPLAY isn't set"}
		},
		"old Docker sets the terminal's size inside": func(h *Host, o *Options) { h.API, o.GPUs, o.GUI = "1.41", "none", "off" },
		"old Docker and an entry point": func(h *Host, o *Options) {
			h.API, o.GPUs, o.GUI, h.Image.Entrypoint = "1.41", "none", "off", []string{"/entry", "point"}
		},
		"image without a known shell": func(h *Host, o *Options) {
			h.API, o.GPUs, o.GUI, h.Image.Command = "1.41", "none", "off", []string{"/app/server"}
		},
		"CDI": func(h *Host, o *Options) {
			h.Daemon.CDI = []string{"nvidia.com/gpu=0", "nvidia.com/gpu=1"}
			o.GPUs = "1,0"
		},
		"runtime":                           func(h *Host, o *Options) { h.Daemon.Runtimes = []string{"nvidia", "runc"}; o.GPUs = "GPU-2" },
		"toolkit missing, no GPU asked for": func(h *Host, o *Options) { h.GPU.Toolkit = false },
		"Wayland":                           func(h *Host, o *Options) { o.GUI = "wayland" },
		"X over ssh": func(h *Host, o *Options) {
			h.Display.X11 = display.Display{Kind: display.X11, Network: "tcp", Address: "localhost:6010", Number: "10", Screen: ".0"}
		},
		"root": func(h *Host, o *Options) {
			h.User = identity.User{Name: "root", Gecos: "root", Home: "/root", Groups: []identity.Group{{Name: "root"}}}
		},
		"rootless Docker": func(h *Host, o *Options) { h.Daemon.Security = []string{"name=rootless"}; o.GPUs = "none" },
		"SELinux":         func(h *Host, o *Options) { h.Daemon.Security = []string{"name=selinux"}; o.GPUs = "none" },
		"everything": func(h *Host, o *Options) {
			h.Terminal = Terminal{}
			o.Command, o.Name, o.Hostname, o.GPUs = `echo "it's" $TOKEN`, "mine", "box", "all"
			o.Mounts, o.Env = `~/data:/data:ro,../other:/other,"/with, comma":/c`, `A=1,TOKEN,UNSET`
			o.Network, o.IPC, o.Digest = "host", "host", "sha256:feed"
			h.Abandoned = []string{"container demo-cnn-dead"}
		},
		"remote daemon":               func(h *Host, o *Options) { h.Local, h.GPU, o.GPUs = false, gpu.Machine{}, "0" },
		"remote daemon, no GPU named": func(h *Host, o *Options) { h.Local, h.GPU, o.GPUs = false, gpu.Machine{}, "" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			h, o := workstation(), options()
			change(&h, &o)
			p, err := NewPlan(h, o)
			require.NoError(t, err)
			json, err := p.JSON()
			require.NoError(t, err)
			got := "-- table --\n" + p.Table() + "-- shell --\n" + p.Shell() + "-- json --\n" + string(json) + "\n"
			assert.NotContains(t, got, "secret", "a value from the host's environment is shown")

			file := filepath.Join("testdata", "plans", strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name)+".golden")
			if os.Getenv("BERTH_UPDATE") != "" {
				require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), got)
		})
	}
}

// Docker speaks JSON, which can't say these: it would mount another folder.
func TestPathsThatAreNotUTF8(t *testing.T) {
	for name, change := range map[string]func(*Host, *Options){
		"checkout":           func(h *Host, o *Options) { h.Root, h.Dir = "/home/alice/\xff", "/home/alice/\xff" },
		"folder in it":       func(h *Host, o *Options) { h.Dir = h.Root + "/\xff" },
		"source of a mount":  func(h *Host, o *Options) { o.Mounts = "/\xff:/data" },
		"what it is by link": func(h *Host, o *Options) { o.Mounts = "/a:/data"; h.Sources = map[string]string{"/a": "/\xff"} },
		"target of a mount":  func(h *Host, o *Options) { o.Mounts = "/a:/\xff" },
	} {
		h, o := workstation(), options()
		change(&h, &o)
		_, err := NewPlan(h, o)
		assert.ErrorIs(t, err, usage.Err, name)
		assert.ErrorContains(t, err, `\xff" isn't valid UTF-8, so Docker can't be told of it. Rename the file or folder`, name)
	}
}

func TestReadOnlyMounts(t *testing.T) {
	for api, want := range map[string]struct {
		submounts daemon.Submounts
		flag      string
		notes     int
	}{
		"1.41": {daemon.SubmountsLeftOut, "readonly,bind-nonrecursive", 1},
		"1.44": {daemon.SubmountsReadOnly, "readonly,bind-recursive=readonly,bind-propagation=rprivate", 0},
	} {
		h, o := workstation(), options()
		h.API, h.MountPoints = api, []string{"/", "/mnt/data/disk", "/mnt/database"}
		o.Mounts = "/mnt/data:/data:ro,/mnt/data:/rw,/mnt/database:/base:ro"
		p, err := NewPlan(h, o)
		require.NoError(t, err)
		assert.Equal(t, want.submounts, p.Container.Mounts[2].Submounts)
		assert.Empty(t, p.Container.Mounts[3].Submounts)
		assert.Equal(t, daemon.SubmountsLeftOut, p.Container.Mounts[4].Submounts, "nothing is mounted below it")
		assert.Contains(t, p.Shell(), "--mount type=bind,source=/mnt/data,target=/data,"+want.flag+" ")
		assert.Len(t, p.Notes, want.notes)
	}
}

func TestRunsArguments(t *testing.T) {
	for entrypoint, want := range map[string]bool{
		"": true, "/opt/nvidia/nvidia_entrypoint.sh": true, "tini --": true, "python3 /entry.py": true,
		"python3 -m runner": true, "/app/server": true,
		"python3": false, "/usr/bin/python3.12 -u": false, "bash": false, "/bin/sh -c": false, "node": false, `/bin/bash -c exec"$@" --`: true,
	} {
		assert.Equal(t, want, runsArguments(strings.Fields(entrypoint)), entrypoint)
	}
}

func TestWorkingDir(t *testing.T) {
	for dir, want := range map[string]string{
		"/src/demo":       "/my_workspace",
		"/src/demo/a/b":   "/my_workspace/a/b",
		"/src/demo/..x":   "/my_workspace/..x",
		"/src":            "/my_workspace",
		"/src/demo2":      "/my_workspace",
		"/somewhere/else": "/my_workspace",
	} {
		assert.Equal(t, want, workingDir("/src/demo", dir), dir)
	}
}

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(`a:/a,~/b:/b:ro,C\:\,\\:/c:rw,"x,y:z":/d`)
	require.NoError(t, err)
	assert.Equal(t, []mountOption{{"a", "/a", false}, {"~/b", "/b", true}, {`C:,\`, "/c", false}, {"x,y:z", "/d", false}}, got)
	for _, bad := range []string{"a", "a:b", ":/a", "a:/a:rx", "a:/a,", `"a:/a`, `a:/a\`, "a:/a:ro:x", "a:"} {
		_, err := parseMounts(bad)
		assert.ErrorIs(t, err, usage.Err, bad)
	}
}

func TestParseEnv(t *testing.T) {
	host := map[string]string{"HERE": "value", "EMPTY": ""}
	got, err := parseEnv(`A=1,B="x, y",HERE,NOT_HERE,EMPTY,C=a=b,D=`, host)
	require.NoError(t, err)
	assert.Equal(t, []Variable{{"A", "1", false}, {"B", "x, y", false}, {"HERE", "value", true}, {"EMPTY", "", true}, {"C", "a=b", false},
		{"D", "", false}}, got)
	for _, bad := range []string{"=x", "A=1,,B=2", "A B=1", `A="`} {
		_, err := parseEnv(bad, host)
		assert.ErrorIs(t, err, usage.Err, bad)
	}
}

func TestParseSize(t *testing.T) {
	for size, want := range map[string]int64{"512m": 512 << 20, "8g": 8 << 30, "8GiB": 8 << 30, "1048576": 1 << 20} {
		got, err := parseSize(size)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, bad := range []string{"", "0", "-1g", "big", "8x"} {
		_, err := parseSize(bad)
		assert.ErrorIs(t, err, usage.Err, bad)
	}
}

// What is quoted comes back as it was, whatever is in it.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "a,b", `"a,b",c`, `a\,b`, `\"`, `"`, `a\`, ",", "ü,\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		items, err := split(list, ',')
		if err != nil {
			return
		}
		quoted := make([]string, len(items))
		for i, item := range items {
			quoted[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `,`, `\,`).Replace(unquote(item))
		}
		again, err := split(strings.Join(quoted, ","), ',')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(quoted, ",") == "" {
			return // one empty item and no item are written alike
		}
		if len(again) != len(items) {
			t.Fatalf("%q: %q, then %q", list, items, again)
		}
		for i := range again {
			if unquote(again[i]) != unquote(items[i]) {
				t.Fatalf("%q: %q, then %q", list, items, again)
			}
		}
	})
}
