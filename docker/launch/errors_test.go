package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/dockertest"
)

func TestErrorsAreInstructions(t *testing.T) {
	p := newPerson(t)
	missing := filepath.Join(p.options.Root, "missing")
	tests := []struct {
		name   string
		change func(*Options)
		env    string
		want   string
	}{
		{"no Docker", nil, "DOCKER_HOST=unix:///nonexistent/docker.sock",
			"running? Start it with\n\tsudo systemctl start docker\nor point DOCKER_HOST at one that runs."},
		{"no Docker, what is wrong", nil, "DOCKER_HOST=unix:///nonexistent/docker.sock",
			"can't use Docker: no daemon answers at unix:///nonexistent/docker.sock: "},
		{"no Docker, where there is more", nil, "DOCKER_HOST=unix:///nonexistent/docker.sock",
			"\nMore:\n\tgo tool mage doctor -row=docker-stopped\n"},
		{"no image", func(o *Options) { o.Image = "no-such-image:1" }, "",
			". Get it with\n\tdocker pull no-such-image:1\n"},
		{"no image of the project", func(o *Options) { o.Image = o.Project + ":1" }, "",
			". Build it with\n\tgo tool mage build -t=" + p.options.Project + ":1\n"},
		{"unknown GPU", func(o *Options) { o.GPUs = "3" }, "PATH=" + dockertest.SMI(t),
			"-g=3: usage: there is no GPU 3. This machine has\n\t0\tGPU-aaaa0000-1111-2222-3333-444444444444\tNVIDIA H200\n" +
				"\t1\tGPU-bbbb0000-1111-2222-3333-444444444444\tNVIDIA H200\n"},
		{"no GPU", func(o *Options) { o.GPUs = "all" }, "PATH=" + dockertest.PathWithout("nvidia-smi"),
			"-g=all: no GPU for a container: there is no NVIDIA GPU in this machine. Leave -g out, or type -g=none, to run on the " +
				"CPU.\n"},
		{"no toolkit", func(o *Options) { o.GPUs = "all" }, "PATH=" + dockertest.SMI(t),
			"-g=all: no GPU for a container: the NVIDIA Container Toolkit isn't installed, so Docker can't pass GPUs on. "},
		{"missing mount", func(o *Options) { o.Mounts = "missing:/data" }, "",
			"-v: there is no such file or folder on the host. Make it first, or correct the path: creating container "},
		{"missing mount's path", func(o *Options) { o.Mounts = "missing:/data" }, "", "bind source path does not exist: " +
			"" + missing + "\n"},
		{"mount without target", func(o *Options) { o.Mounts = "/data" }, "",
			"-v: usage: \"/data\" isn't SOURCE:TARGET or SOURCE:TARGET:ro. For example: -v=~/data:/data:ro\n"},
		{"mount over the workspace", func(o *Options) { o.Mounts = "/tmp:/my_workspace" }, "",
			"-v: usage: something is mounted on /my_workspace already. Choose another target for /tmp\n"},
		{"open quote", func(o *Options) { o.Env = `A="b` }, "",
			"-e: usage: a double quote in \"A=\\\"b\" isn't closed. Type \\\" for a double quote\n"},
		{"unknown network", func(o *Options) { o.Network = "no-such-network" }, "",
			"-net: Docker has no network \"no-such-network\". List them with\n\tdocker network ls\n"},
		{"impossible name", func(o *Options) { o.Name = "a b" }, "",
			"-n: usage: \"a b\" can't be the name of a container: it takes letters, digits, _ . and -, two at least\n"},
		{"impossible host name", func(o *Options) { o.Hostname = "a_b" }, "",
			"-hostname: usage: \"a_b\" can't be the name of a host: it takes letters, digits, . and -, 63 at most\n"},
		{"no such size", func(o *Options) { o.SharedMem = "big" }, "", "-shm: usage: \"big\" isn't a size. For example: -shm=8g\n"},
		{"no display", func(o *Options) { o.GUI = "x11" }, "DISPLAY=",
			"-gui=x11: no display: DISPLAY isn't set. For windows over ssh, come by\n\tssh -X HOST\nMore:\n\tgo tool mage doctor " +
				"-row=no-display\n"},
		{"no such kind of display", func(o *Options) { o.GUI = "vnc" }, "", "-gui: usage: \"vnc\" is none of auto, x11, wayland, off\n"},
		{"wrong API version", nil, "DOCKER_API_VERSION=1.99",
			"Type\n\tunset DOCKER_API_VERSION\nand Berth agrees on one with the daemon."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := *p
			if test.env != "" {
				q.env = append(append([]string{}, p.env...), strings.Split(test.env, "\n")...)
			}
			r := q.runWith(func(o *Options) {
				o.Command = "true"
				if test.change != nil {
					test.change(o)
				}
			}, "")
			assert.Equal(t, ExitDaemon, r.code)
			assert.Contains(t, r.err, test.want)
			assert.Empty(t, r.out)
			assert.NoFileExists(t, missing, "a missing mount was made")
		})
	}
}

// TestExplain has what a Docker says that isn't this machine's.
func TestExplain(t *testing.T) {
	here := filepath.Join(t.TempDir(), "check out")
	require.NoError(t, os.Mkdir(here, 0o755))
	const mount = `creating container a from image b: invalid mount config for type "bind": bind source path does not exist: `
	const create = "starting container a: OCI runtime create failed: runc create failed: unable to start container process: "
	for said, want := range map[string]struct {
		code int
		says string
	}{
		mount + here:           {ExitDaemon, "mount the checkout and Berth's cache folder (BERTH_CACHE) there"},
		mount + here + "-none": {ExitDaemon, "-v: there is no such file or folder on the host"},
		create + `exec: "/etc": is a directory: unknown`:    {ExitNotRunnable, "the command isn't executable"},
		create + `exec: "/etc": permission denied`:          {ExitNotRunnable, "the command isn't executable"},
		create + `exec: "/x": no such file or directory`:    {ExitNotFound, "the image doesn't have the command"},
		create + "mounting a: is a directory: not a device": {ExitDaemon, "is a directory"},
	} {
		code, err := explain(Plan{}, "unix:///var/run/docker.sock", daemon.Info{}, errors.New(said))
		assert.Equal(t, want.code, code, said)
		assert.Contains(t, advice.Text(err, ""), want.says, said)
	}
}

func TestNoPermissionOnTheSocket(t *testing.T) {
	p := newPerson(t)
	p.become(54321, 54321)
	p.as.Groups = nil
	r := p.run("true", "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "can't use Docker: no permission on unix:///var/run/docker.sock: ")
	assert.Contains(t, r.err, "Join its group")
	assert.Contains(t, r.err, "\n\tgo tool mage doctor -row=docker-permission\n")
}

func TestTakenName(t *testing.T) {
	p := newPerson(t)
	name := p.options.Project + "-mine"
	first := p.launch(func(o *Options) { o.Name, o.Command = name, "echo ready; sleep 100" })
	out, err := first.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, first.Start())
	_, err = out.Read(make([]byte, 8))
	require.NoError(t, err)

	r := p.runWith(func(o *Options) { o.Name, o.Command = name, "true" }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "the name "+name+" is taken. Choose another one with -n, or type\n\tdocker rm -f "+name+
		"\nif that container isn't needed any more: ")
	assert.Equal(t, []string{name}, p.containers(), "the first one goes on")
	require.NoError(t, first.Process.Signal(syscall.SIGTERM))
	first.Wait()
}

func TestNoGPUIsLoud(t *testing.T) {
	p := newPerson(t)
	p.env = append(p.env, "PATH="+dockertest.PathWithout("nvidia-smi"))
	r := p.runWith(func(o *Options) { o.GPUs, o.Command = "", "echo $NVIDIA_VISIBLE_DEVICES" }, "")
	assert.Equal(t, result{out: "void\n", err: "NO GPU, running on the CPU: there is no NVIDIA GPU in this machine\n"}, r)
}
