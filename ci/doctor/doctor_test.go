package doctor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// The distributions of the fixtures, as their os-release files name them.
var (
	onDebian = trouble.System{Name: "Debian GNU/Linux 13 (trixie)", IDs: []string{"debian"}}
	onUbuntu = trouble.System{Name: "Ubuntu 24.04.3 LTS", IDs: []string{"ubuntu", "debian"}}
	onFedora = trouble.System{Name: "Fedora Linux 43 (Workstation Edition)", IDs: []string{"fedora"}}
	onRocky  = trouble.System{Name: "Rocky Linux 9.6 (Blue Onyx)", IDs: []string{"rocky", "rhel", "centos", "fedora"}}
	onArch   = trouble.System{Name: "Arch Linux", IDs: []string{"arch"}}
	onSUSE   = trouble.System{Name: "openSUSE Tumbleweed", IDs: []string{"opensuse-tumbleweed", "opensuse", "suse"}}
	onNixOS  = trouble.System{Name: "NixOS 25.11 (Xantusia)", IDs: []string{"nixos"}}
)

const gig = 1_000_000_000

// laptop is a machine without a GPU, on which all else is well.
func laptop() Host {
	return Host{
		OS: "linux", Arch: "amd64", Kernel: "6.12.48-amd64", System: onDebian,
		User: User{DockerGroup: true, InDocker: true},
		Env:  map[string]string{"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"},
		Go:   Go{Path: "/usr/local/go/bin/go", Version: "1.26.3", Needs: needsGo, Toolchain: "auto"},
		Docker: Docker{
			Address: "unix:///var/run/docker.sock", API: "1.51", Installed: true, Local: true,
			Info: daemon.Info{Version: "28.3.2", System: "Debian GNU/Linux 13 (trixie)", RootDir: "/var/lib/docker", Runtimes: []string{"runc"},
				CgroupDriver: "systemd", CDIDirs: gpu.CDIDirs},
		},
		Display: display.Found{
			X11:     display.Display{Kind: display.X11, Network: "unix", Address: "/tmp/.X11-unix/X0", Number: "0", Own: true},
			Wayland: display.Display{Kind: display.Wayland, Network: "unix", Address: "/run/user/1000/wayland-0"},
		},
		Disks: []Disk{{"Docker", "/var/lib/docker", 180 * gig, 500 * gig}, {"the cache", "/home/alice/.cache/berth", 180 * gig, 500 * gig}},
		Cache: Cache{Path: "/home/alice/.cache/berth"}, Shm: 8 << 30,
		Mirrors: []Server{{URL: "https://deb.example/debian"}}, Modules: []Server{{URL: "https://proxy.example"}},
		Engine: Engine{State: engine.State{Name: "berth-engine", Container: "running", Current: true}},
	}
}

// workstation is one with two GPUs, which get into containers by CDI.
func workstation() Host {
	h := laptop()
	h.System = onUbuntu
	h.GPU = GPU{
		Machine: gpu.Machine{SMI: true, Loaded: true, Driver: "580.95.05", Hardware: true, Toolkit: true, GPUs: []gpu.GPU{
			{Index: 0, UUID: "GPU-11111111-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA GeForce RTX 4090"},
			{Index: 1, UUID: "GPU-22222222-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA GeForce RTX 4090"},
		}},
		Details: []gpu.Detail{
			{UUID: "GPU-11111111-aaaa-bbbb-cccc-000000000000", Capability: "8.9"},
			{UUID: "GPU-22222222-aaaa-bbbb-cccc-000000000000", Capability: "8.9"},
		},
		Nodes: []string{"nvidia-uvm", "nvidia0", "nvidia1", "nvidiactl"}, Toolkit: "1.18.1",
		Specs: []gpu.Spec{{Path: "/var/run/cdi/nvidia.yaml", Devices: []string{"0", "1", "all"}}},
	}
	h.Docker.Info.CDI = []string{"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"}
	return h
}

// byHook is a workstation whose Docker has nothing but the hook.
func byHook() Host {
	h := workstation()
	h.Docker.Info.CDI, h.GPU.Specs = nil, nil
	return h
}

// complains is a workstation whose nvidia-smi says that instead of listing GPUs.
func complains(said string) Host {
	h := workstation()
	h.GPU.Machine.GPUs, h.GPU.Details, h.GPU.Machine.Complaint = nil, nil, said
	return h
}

// noDocker is a laptop on which Docker can't be used.
func noDocker(row *trouble.Row, err string) Host {
	h := laptop()
	h.Docker = Docker{Installed: true, Err: err, Row: row}
	h.Engine = Engine{}
	h.Disks = h.Disks[1:]
	return h
}

const (
	noDaemon = "can't use Docker: no daemon answers at unix:///var/run/docker.sock: Cannot connect to the Docker daemon at " +
		"unix:///var/run/docker.sock. Is the docker daemon running?"
	denied = "can't use Docker: no permission on unix:///var/run/docker.sock: permission denied while trying to connect to the Docker " +
		"daemon socket at unix:///var/run/docker.sock"
)

// with changes a host.
func with(h Host, change func(*Host)) Host {
	change(&h)
	return h
}

// fixtures are hosts. Each has a golden text of its name.
func fixtures() map[string]Host {
	all := map[string]Host{
		"workstation with RTX": workstation(),
		"laptop without GPU":   laptop(),
		"DGX with MIG": with(workstation(), func(h *Host) {
			h.Env = map[string]string{"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
			h.GPU.Machine.GPUs = []gpu.GPU{
				{Index: 0, UUID: "GPU-0", Name: "NVIDIA A100-SXM4-80GB", MIG: []gpu.Instance{
					{Index: 0, UUID: "MIG-00", Profile: "3g.40gb"}, {Index: 1, UUID: "MIG-01", Profile: "3g.40gb"}}},
				{Index: 1, UUID: "GPU-1", Name: "NVIDIA A100-SXM4-80GB"},
				{Index: 2, UUID: "GPU-2", Name: "NVIDIA A100-SXM4-80GB"},
			}
			h.GPU.Details = []gpu.Detail{
				{UUID: "GPU-0", Capability: "8.0", MIG: true}, {UUID: "GPU-1", Capability: "8.0"}, {UUID: "GPU-2", Capability: "8.0", MIG: true}}
			h.GPU.Nodes = append(h.GPU.Nodes, "nvidia2")
			h.GPU.Specs = []gpu.Spec{{Path: "/var/run/cdi/nvidia.yaml", Devices: []string{"0:0", "0:1", "1", "all"}}}
		}),
		"driver too old": with(workstation(), func(h *Host) {
			h.System, h.GPU.Machine.Driver = onDebian, "470.256.02"
			for i := range h.GPU.Details {
				h.GPU.Details[i].Capability = "" // it doesn't tell
			}
		}),
		"driver for CUDA 11 only": with(workstation(), func(h *Host) { h.System, h.GPU.Machine.Driver = onRocky, "520.61.05" }),
		"library mismatch":        complains("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95"),
		"toolkit missing": with(byHook(), func(h *Host) {
			h.System, h.GPU.Machine.Toolkit, h.GPU.Toolkit = onFedora, false, ""
		}),
		"toolkit without its hook": with(byHook(), func(h *Host) { h.GPU.Machine.Toolkit = false }),
		"CDI without the hook":     with(workstation(), func(h *Host) { h.GPU.Machine.Toolkit = false }),
		"stale CDI": with(workstation(), func(h *Host) {
			h.GPU.Specs = []gpu.Spec{{Path: "/etc/cdi/nvidia.yaml", Devices: []string{"0", "all"},
				Missing: []string{"/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.14", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.14"}}}
		}),
		"stale CDI, overridden": with(workstation(), func(h *Host) {
			h.GPU.Specs = append([]gpu.Spec{{Path: "/etc/cdi/nvidia.yaml", Devices: []string{"0", "all"},
				Missing: []string{"/usr/lib/x86_64-linux-gnu/libcuda.so.550.54.14"}}}, h.GPU.Specs...)
		}),
		"stale CDI after new partitions": with(workstation(), func(h *Host) {
			h.GPU.Machine.GPUs[0].MIG = []gpu.Instance{{Index: 0, UUID: "MIG-00", Profile: "3g.40gb"}}
			h.GPU.Details[0].MIG = true
		}),
		"NixOS, without the toolkit's programs": with(workstation(), func(h *Host) {
			h.System, h.GPU.Machine.Toolkit, h.GPU.Toolkit = onNixOS, false, ""
		}),
		"stale CDI on NixOS, not used": with(workstation(), func(h *Host) {
			h.System, h.Docker.Info.CDI, h.Docker.Info.Runtimes = onNixOS, nil, []string{"nvidia", "runc"}
			h.GPU.Specs = []gpu.Spec{{Path: "/etc/cdi/nvidia.yaml", Err: "yaml: line 3: did not find expected key"}}
		}),
		"rootless Docker": with(byHook(), func(h *Host) {
			h.Docker.Address = "unix:///run/user/1000/docker.sock"
			h.Docker.Info.Security = []string{"name=seccomp,profile=builtin", "name=rootless"}
			h.Docker.Info.RootDir = "/home/alice/.local/share/docker"
		}),
		"Podman": with(byHook(), func(h *Host) {
			h.System, h.Docker.Address = onFedora, "unix:///run/user/1000/podman/podman.sock"
			h.Docker.Info = daemon.Info{Version: "5.6.2", RootDir: "/home/alice/.local/share/containers/storage", CgroupDriver: "systemd",
				Security: []string{"name=rootless"}}
		}),
		"WSL2": with(workstation(), func(h *Host) {
			h.Kernel = "6.6.87.2-microsoft-standard-WSL2"
			h.GPU = GPU{
				Machine: gpu.Machine{SMI: true, WSL: true, Toolkit: true,
					GPUs: []gpu.GPU{{UUID: "GPU-1", Name: "NVIDIA GeForce RTX 4070 Laptop GPU"}}},
				Details: []gpu.Detail{{UUID: "GPU-1", Capability: "8.9", MIG: false}}, Toolkit: "1.18.1",
			}
			h.Docker.Info.CDI, h.Docker.Info.Runtimes = nil, []string{"nvidia", "runc"}
		}),
		"WSL2 with a Linux driver": with(workstation(), func(h *Host) {
			h.Kernel = "6.6.87.2-microsoft-standard-WSL2"
			h.GPU = GPU{
				Machine: gpu.Machine{SMI: true, WSL: true, Toolkit: true,
					GPUs: []gpu.GPU{{UUID: "GPU-1", Name: "NVIDIA GeForce RTX 4070 Laptop GPU"}}},
				Details: []gpu.Detail{{UUID: "GPU-1", Capability: "8.9", MIG: false}}, Toolkit: "1.18.1",
				InWSL: "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
			}
			h.Docker.Info.CDI, h.Docker.Info.Runtimes, h.Docker.Info.System = nil, []string{"nvidia", "runc"}, "Docker Desktop"
		}),
		"WSL2 without a driver in Windows": with(laptop(), func(h *Host) {
			h.Kernel, h.GPU.Machine.WSL = "6.6.87.2-microsoft-standard-WSL2", true
		}),
		"WSL1": with(noDocker(trouble.DockerStopped, noDaemon), func(h *Host) {
			h.Kernel, h.Docker.Installed = "4.4.0-19041-Microsoft", false
		}),
		"ssh without display": with(laptop(), func(h *Host) {
			h.Env = map[string]string{"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"}
		}),
		"server without display": with(laptop(), func(h *Host) { h.Env = nil }),
		"cookie of somebody else": with(laptop(), func(h *Host) {
			h.Display.X11Err = "DISPLAY=:0: the X server refused: Authorization required, but no authorization protocol specified"
			h.Display.X11Refused = true
		}),
		"DISPLAY of an earlier login": with(laptop(), func(h *Host) {
			h.Env = map[string]string{"DISPLAY": "localhost:10.0", "WAYLAND_DISPLAY": "wayland-1"}
			h.Display = display.Found{X11Err: "DISPLAY=localhost:10.0: dial tcp [::1]:6010: connect: connection refused",
				WaylandErr: "WAYLAND_DISPLAY: dial unix /run/user/1000/wayland-1: connect: no such file or directory"}
		}),
		"another system": with(laptop(), func(h *Host) {
			h.OS, h.Arch, h.Kernel, h.System, h.Env = "darwin", "arm64", "24.6.0", trouble.System{}, nil
		}),
		"another processor": with(laptop(), func(h *Host) { h.Arch = "arm64" }),
		"Docker stopped":    noDocker(trouble.DockerStopped, noDaemon),
		"Docker hangs":      noDocker(trouble.DockerSilent, "no answer within 5s"),
		"not in the group docker": with(noDocker(trouble.DockerPermission, denied), func(h *Host) {
			h.User.DockerGroup, h.User.InDocker = false, false
		}),
		"in the group docker since this login": with(noDocker(trouble.DockerPermission, denied), func(h *Host) { h.User.InDocker = false }),
		"a context that is gone": noDocker(trouble.DockerSettings, `can't use Docker: reading the Docker context "lab": open `+
			`/home/alice/.docker/contexts/meta/1f/meta.json: no such file or directory`),
		"a context by ssh": noDocker(trouble.DockerSSH,
			`can't use Docker: the Docker context "lab" reaches its daemon by ssh, at alice@lab.example, which Berth doesn't`),
		"DOCKER_API_VERSION": noDocker(trouble.DockerVersionAsked, "can't use Docker: the API version that DOCKER_API_VERSION asks for isn't the "+
			"daemon's: client version 1.99 is too new. Maximum supported API version is 1.51"),
		"old Docker": with(laptop(), func(h *Host) { h.Docker.Info.Version, h.Docker.API = "19.03.15", "1.40" }),
		"Docker elsewhere": with(laptop(), func(h *Host) {
			h.Docker.Address, h.Docker.Local, h.Disks = "tcp://lab.example:2376", false, h.Disks[1:]
		}),
		"Docker from the snap": with(laptop(), func(h *Host) {
			h.System, h.Docker.Info.RootDir = onUbuntu, "/var/snap/docker/common/var-lib-docker"
		}),
		"Docker from the snap, with GPUs": with(byHook(), func(h *Host) {
			h.Docker.Info.RootDir = "/var/snap/docker/common/var-lib-docker"
		}),
		"Docker Desktop": with(laptop(), func(h *Host) { h.Docker.Info.System, h.Disks = "Docker Desktop", h.Disks[1:] }),
		"module not loaded": with(complains("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."), func(h *Host) {
			h.GPU.Machine.Loaded, h.GPU.Machine.Driver, h.GPU.Nodes = false, "", nil
		}),
		"module not loaded, on Rocky": with(complains("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
			func(h *Host) {
				h.System, h.GPU.Machine.Loaded, h.GPU.Machine.Driver, h.GPU.Nodes = onRocky, false, "", nil
			}),
		"nvidia-smi missing, on Rocky": with(complains(""), func(h *Host) { h.GPU.Machine.SMI, h.System = false, onRocky }),
		"devices closed":               complains("Failed to initialize NVML: Insufficient Permissions"),
		"driver finds nothing":         complains("No devices were found"),
		"GPU fell off the bus": complains("Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  " +
			"Reboot the system to recover this GPU"),
		"nvidia-smi says else": complains("Something new"),
		"nvidia-smi missing":   with(complains(""), func(h *Host) { h.GPU.Machine.SMI, h.System = false, onDebian }),
		"nvidia-smi hangs": with(complains(""), func(h *Host) {
			h.GPU.Slow, h.GPU.Machine = true, gpu.Machine{SMI: true, Loaded: true, Toolkit: true}
		}),
		"device nodes missing": with(workstation(), func(h *Host) { h.GPU.Nodes = []string{"nvidia0", "nvidiactl"} }),
		"GPUs before Ampere": with(workstation(), func(h *Host) {
			for i := range h.GPU.Details {
				h.GPU.Machine.GPUs[i].Name, h.GPU.Details[i].Capability = "NVIDIA GeForce RTX 2080 Ti", "7.5"
			}
		}),
		"hook alone": byHook(),
		"runtime of an old toolkit": with(byHook(), func(h *Host) {
			h.Docker.Info.Runtimes, h.GPU.Toolkit = []string{"nvidia", "runc"}, "1.17.8"
		}),
		"cgroupfs": with(byHook(), func(h *Host) {
			h.Docker.Info.CgroupDriver, h.Docker.Info.Runtimes = "cgroupfs", []string{"nvidia", "runc"}
		}),
		"no Go":                             with(laptop(), func(h *Host) { h.Go = Go{Needs: needsGo} }),
		"Go that may not fetch a newer one": with(laptop(), func(h *Host) { h.Go.Version, h.Go.Toolchain = "1.25.4", "local" }),
		"Go that fetches a newer one":       with(laptop(), func(h *Host) { h.Go.Version = "1.25.4" }),
		"full disk":                         with(laptop(), func(h *Host) { h.Disks[0].Free = 2 * gig }),
		"nearly full disk":                  with(laptop(), func(h *Host) { h.Disks[1].Free = 12 * gig }),
		"a cache folder of somebody else": with(laptop(), func(h *Host) {
			h.Cache.Err = "the cache folder /srv/cache belongs to user 1001, and you are user 1000. Name a folder of your own in BERTH_CACHE"
		}),
		"a cache folder that can't be written to": with(laptop(), func(h *Host) { h.Cache.ReadOnly = true }),
		"little shared memory":                    with(laptop(), func(h *Host) { h.Shm = 64 << 20 }),
		"no network": with(laptop(), func(h *Host) {
			h.Mirrors[0].Err = "dial tcp: lookup deb.example: no such host"
			h.Modules = []Server{{"https://proxy.example", "dial tcp: lookup proxy.example: no such host"}}
			h.Silent = []string{"the display"}
		}),
		"a container of the engine's name": with(laptop(), func(h *Host) { h.Engine.State.Foreign = true }),
		"an engine that can't be looked at": with(laptop(), func(h *Host) {
			h.Engine = Engine{Err: "inspecting container berth-engine: context deadline exceeded"}
		}),
		"an engine out of date": with(laptop(), func(h *Host) { h.Engine.State.Current = false }),
		"no engine yet":         with(laptop(), func(h *Host) { h.Engine.State.Container = "" }),
		"an engine of your own": with(laptop(), func(h *Host) { h.Engine = Engine{Named: "tcp://192.0.2.9:1234"} }),
	}
	for name, system := range map[string]trouble.System{
		"Debian": onDebian, "Ubuntu": onUbuntu, "Fedora": onFedora, "Rocky": onRocky, "Arch": onArch, "openSUSE": onSUSE, "NixOS": onNixOS,
	} {
		h := noDocker(trouble.DockerStopped, noDaemon)
		h.System, h.Docker.Installed = system, false
		all["no Docker on "+name] = h
		h = laptop()
		h.System, h.GPU.Machine = system, gpu.Machine{Hardware: true}
		all["no driver on "+name] = h
	}
	all["nouveau"] = with(laptop(), func(h *Host) { h.GPU.Machine = gpu.Machine{Hardware: true, Nouveau: true} })
	return all
}

func page(h Host) Page { return Page{System: h.System, Berth: "go tool mage", Width: widthOfGoldens} }

// unusual is what names of files in a Go module had better not have, or may not.
var unusual = regexp.MustCompile(`[^A-Za-z0-9]+`)

const widthOfGoldens = 100

// With BERTH_UPDATE set, the golden files are rewritten.
func TestGoldenTexts(t *testing.T) {
	for name, h := range fixtures() {
		t.Run(name, func(t *testing.T) {
			all := Examine(h)
			var b bytes.Buffer
			require.NoError(t, page(h).Text(&b, h, all))
			fmt.Fprintf(&b, "Worst: %s\n", Worst(all))
			golden(t, filepath.Join("testdata", unusual.ReplaceAllString(name, "-")+".golden"), b.String())
		})
	}
	files, err := filepath.Glob("testdata/*.golden")
	require.NoError(t, err)
	assert.Len(t, files, len(fixtures()), "a golden file that is nobody's")
}

func golden(t *testing.T, path, have string) {
	t.Helper()
	if os.Getenv("BERTH_UPDATE") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(have), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), have, "if that is as it should be, set BERTH_UPDATE=1")
}

// ofRefusals are the rows that nothing but a refused launch shows. Package gpu has a test
// for each.
var ofRefusals = []*trouble.Row{
	trouble.NoHook, trouble.RootlessHook, trouble.NoRuntime, trouble.CDIOff, trouble.NoAdapter, trouble.NoLibrary,
	trouble.DriverTooOldForImage, trouble.UnknownDevice, trouble.NoCgroups, trouble.ToolkitRefused,
}

// TestEachRowHasAFixture also finds rows that no check comes to.
func TestEachRowHasAFixture(t *testing.T) {
	shown := map[*trouble.Row]bool{}
	for _, h := range fixtures() {
		for _, f := range Examine(h) {
			if f.Row != nil {
				shown[f.Row] = true
			}
		}
	}
	for _, group := range trouble.Rows() {
		for _, row := range group.Rows {
			assert.NotEqual(t, shown[row], slices.Contains(ofRefusals, row), row.Name)
		}
	}
}

// TestWorst: what is optional and missing, or works for now, isn't a fault.
func TestWorst(t *testing.T) {
	for name, want := range map[string]trouble.State{
		"workstation with RTX": trouble.OK, "laptop without GPU": trouble.OK, "ssh without display": trouble.OK, "WSL2": trouble.OK,
		"stale CDI, overridden": trouble.OK, "NixOS, without the toolkit's programs": trouble.OK,
		"rootless Docker": trouble.Warning, "DGX with MIG": trouble.Warning, "DISPLAY of an earlier login": trouble.Warning,
		"driver too old": trouble.Fault, "library mismatch": trouble.Fault, "toolkit missing": trouble.Fault,
		"toolkit without its hook": trouble.Fault, "CDI without the hook": trouble.OK, "stale CDI": trouble.Fault,
		"Podman": trouble.Fault, "Docker stopped": trouble.Fault,
	} {
		assert.Equal(t, want, Worst(Examine(fixtures()[name])), name)
	}
}

func TestJSON(t *testing.T) {
	h := fixtures()["toolkit missing"]
	var b bytes.Buffer
	require.NoError(t, page(h).JSON(&b, h, Examine(h)))
	var report struct {
		State    string
		System   string
		Findings []struct {
			Check, State, Found, Row, Wrong, Means, Mend, Source string
			Commands                                             []string
		}
	}
	require.NoError(t, json.Unmarshal(b.Bytes(), &report))
	assert.Equal(t, "fault", report.State)
	assert.Equal(t, onFedora.Name, report.System)
	at := slices.IndexFunc(report.Findings, func(f struct {
		Check, State, Found, Row, Wrong, Means, Mend, Source string
		Commands                                             []string
	}) bool {
		return f.Row == "no-toolkit"
	})
	require.GreaterOrEqual(t, at, 0)
	f := report.Findings[at]
	assert.Equal(t, "toolkit", f.Check)
	assert.Equal(t, trouble.NoToolkit.Wrong, f.Wrong)
	assert.Contains(t, f.Commands, "sudo dnf install nvidia-container-toolkit")
	assert.Contains(t, f.Commands, "sudo systemctl restart docker")
}

func TestColourAndWidth(t *testing.T) {
	h := fixtures()["toolkit missing"]
	var plain, coloured bytes.Buffer
	p := page(h)
	p.Width = 60
	require.NoError(t, p.Text(&plain, h, Examine(h)))
	p.Colour = true
	require.NoError(t, p.Text(&coloured, h, Examine(h)))
	assert.NotContains(t, plain.String(), "\x1b")
	assert.Contains(t, coloured.String(), "\x1b[31mfault")
	bare := coloured.String()
	for _, c := range append([]string{colourOff}, colours[trouble.OK], colours[trouble.Warning], colours[trouble.Fault]) {
		bare = strings.ReplaceAll(bare, c, "")
	}
	assert.Equal(t, plain.String(), bare, "colours are all that differs")
	for line := range strings.Lines(plain.String()) {
		if !strings.HasPrefix(line, strings.Repeat(" ", checkAt+4)) && strings.Contains(strings.TrimSpace(line), " ") {
			assert.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 60+10, line)
		}
	}
}

func TestBefore(t *testing.T) {
	for _, c := range []struct {
		version, than string
		want          bool
	}{
		{"20.10.24+dfsg1", "20.10", false}, {"19.03.15", "20.10", true}, {"28.3.2", "29", true}, {"29.0.0-rc.1", "29", false},
		{"580.65.06", "580.65.06", false}, {"580.65.5", "580.65.06", true}, {"525.60", "525.60.13", true}, {"7.5", "8.0", true},
		{"12.0", "8.0", false}, {"dev", "29", false}, {"", "29", false}, {"1.17.8", "1.18.0", true},
	} {
		assert.Equal(t, c.want, before(c.version, c.than), "%s < %s", c.version, c.than)
	}
}

func FuzzBefore(f *testing.F) {
	f.Add("20.10.24+dfsg1", "20.10")
	f.Add("..", "1")
	f.Fuzz(func(t *testing.T, a, b string) {
		if before(a, b) && before(b, a) {
			t.Fatalf("%q and %q come before each other", a, b)
		}
	})
}

// TestFloors: the table is in order, and each driver is new enough for its own CUDA.
func TestFloors(t *testing.T) {
	for i, f := range floors {
		assert.Equal(t, f.cuda, newestCUDA(f.driver))
		if i > 0 {
			assert.True(t, before(f.driver, floors[i-1].driver), f.driver)
			assert.True(t, before(f.cuda, floors[i-1].cuda), f.cuda)
		}
	}
	assert.Equal(t, "13.0", newestCUDA("580.95.05"))
	assert.Empty(t, newestCUDA("390.157"))
}

// TestGoToolchains: what GOTOOLCHAIN makes of the Go that is installed.
func TestGoToolchains(t *testing.T) {
	for _, c := range []struct {
		version, toolchain string
		row                *trouble.Row
		found              string
	}{
		{"1.26.3", "local", nil, "Go 1.26.3 at /go"},
		{"1.25.4", "auto", nil, "Go 1.25.4 at /go, which fetches the 1.26.0 that Berth needs"},
		{"1.25.4", "local+auto", nil, "Go 1.25.4 at /go, which fetches the 1.26.0 that Berth needs"},
		{"1.26.3", "go1.24.3+auto", nil, "Go 1.26.3 at /go, which runs go1.24.3, which fetches the 1.26.0 that Berth needs"},
		{"1.25.4", "go1.26.3", nil, "Go 1.25.4 at /go, which runs go1.26.3"},
		{"1.25.4", "path", trouble.OldGo, "Go 1.25.4 at /go; Berth needs 1.26.0, and GOTOOLCHAIN is path"},
		{"1.25.4", "go1.25.9+path", trouble.OldGo, "Go 1.25.4 at /go, which runs go1.25.9; Berth needs 1.26.0, and GOTOOLCHAIN is go1.25.9+path"},
		{"1.26.3", "go1.24.3", trouble.OldGo, "Go 1.26.3 at /go, which runs go1.24.3; Berth needs 1.26.0, and GOTOOLCHAIN is go1.24.3"},
		{"1.20.14", "", trouble.OldGo, "Go 1.20.14 at /go; Berth needs 1.26.0, and GOTOOLCHAIN is unknown to it"},
	} {
		f := goCommand(Host{Go: Go{Path: "/go", Version: c.version, Needs: "1.26.0", Toolchain: c.toolchain}})
		assert.Same(t, c.row, f.Row, c.toolchain)
		assert.Equal(t, c.found, f.Found)
	}
}

// TestNeedsGo: the version is go.mod's.
func TestNeedsGo(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	assert.Contains(t, string(text), "\ngo "+needsGo+"\n")
}
