package launch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// hookName is what dockerd calls NVIDIA's hook. A copy of this test binary under
// that name plays it.
const hookName = "nvidia-container-runtime-hook"

// playHook does what NVIDIA's hook does, without a GPU: dockerd's runtime calls it
// before a container starts, and it puts an nvidia-smi into the container that
// lists what the container was given. A file "broken" beside it makes it fail with
// that file's text.
func playHook() error {
	self, err := os.Executable() // os.Args[0] has no folder
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(self), "broken")); err == nil {
		return fmt.Errorf("%s", text)
	}
	var state struct{ Bundle string }
	if err := json.NewDecoder(os.Stdin).Decode(&state); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(state.Bundle, "config.json"))
	if err != nil {
		return err
	}
	var config struct {
		Root    struct{ Path string }
		Process struct{ Env []string }
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	given := ""
	for _, v := range config.Process.Env {
		if _, ids, ok := strings.Cut(v, "NVIDIA_VISIBLE_DEVICES="); ok {
			given = ids // the last one counts
		}
	}
	script := fmt.Sprintf("#!/bin/sh\necho GPUs: %s\n", given)
	return os.WriteFile(filepath.Join(config.Root.Path, "usr/bin/nvidia-smi"), []byte(script), 0o755)
}

// secondDocker starts a dockerd of the test's own, in a network namespace of its
// own, which finds the hook, and returns its address and the folder of the hook.
func secondDocker(t *testing.T) (host, hooks string) {
	host, hooks, _ = restartableDocker(t)
	return host, hooks
}

// restartableDocker is secondDocker with more flags, and a function that restarts it.
func restartableDocker(t *testing.T, flags ...string) (host, hooks string, restart func()) {
	testenv.NeedsRoot(t, "start a dockerd")
	dockerd := testenv.NeedsCommand(t, testenv.Dockerd, "dockerd")
	dir, err := os.MkdirTemp("", "berth") // short: a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	hooks = filepath.Join(dir, "hooks")
	require.NoError(t, os.Mkdir(hooks, 0o755))
	program, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(hooks, hookName), program, 0o755))

	host = "unix://" + filepath.Join(dir, "docker.sock")
	// A configuration of its own: what the machine's says, flags may not say again.
	config := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(config, storage(), 0o644))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	var c *exec.Cmd
	start := func() {
		c = exec.Command(dockerd, append([]string{"--config-file", config, "-H", host, "--data-root", dir + "/data", "--exec-root", dir + "/exec",
			"-p", dir + "/pid", "--containerd-namespace", "berth-test", "--containerd-plugins-namespace", "berth-test-plugins",
			"--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"}, flags...)...)
		c.Env = append(os.Environ(), "PATH="+hooks+":"+os.Getenv("PATH"))
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
		c.Stdout, c.Stderr = log, log
		require.NoError(t, c.Start())
	}
	end := func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	}
	start()
	t.Cleanup(func() { end() })
	t.Setenv("DOCKER_HOST", host)
	var d *daemon.Client
	if !assert.Eventually(t, func() bool {
		d, err = daemon.Connect(t.Context())
		return err == nil
	}, 30*time.Second, 50*time.Millisecond) {
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		// Root in a container may not be allowed to; every other failure is one.
		if bytes.Contains(text, []byte("operation not permitted")) {
			testenv.Skip(t, testenv.Dockerd, "a second one may not start here: %s", text)
		}
		require.Fail(t, "the second dockerd doesn't start", "%s", text)
	}
	defer d.Close()
	_, err = dockertest.Load(t.Context(), d, "shell")
	require.NoError(t, err)
	return host, hooks, func() {
		end()
		start()
		eventually(t, func() bool {
			d, err := daemon.ConnectTo(t.Context(), host)
			if err == nil {
				d.Close()
			}
			return err == nil
		}, "dockerd doesn't come back")
	}
}

// storage is a configuration for dockerd with what the machine's own says of
// storage and cgroups, which depends on the machine.
func storage() []byte {
	keep := map[string]json.RawMessage{}
	if data, err := os.ReadFile("/etc/docker/daemon.json"); err == nil {
		var all map[string]json.RawMessage
		json.Unmarshal(data, &all) // dockerd reads it, so it is sound
		for _, key := range []string{"storage-driver", "storage-opts", "exec-opts"} {
			if value, ok := all[key]; ok {
				keep[key] = value
			}
		}
	}
	data, _ := json.Marshal(keep)
	return data
}

func TestGPUsArriveByTheHook(t *testing.T) {
	host, hooks := secondDocker(t)
	p := newPerson(t)
	p.options.Network = "none"
	p.env = append(p.env, "DOCKER_HOST="+host, strings.Replace(fakeGPUs(t), "PATH=", "PATH="+hooks+":", 1))
	for selection, want := range map[string]string{
		"":         "0",
		"0":        "0",
		"all":      "all",
		"1,0":      "1,0",
		"GPU-bbbb": "GPU-bbbb0000-1111-2222-3333-444444444444",
	} {
		r := p.runWith(func(o *Options) {
			o.GPUs, o.Command = selection, "nvidia-smi; echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES"
		}, "")
		assert.Equal(t, result{out: "GPUs: " + want + "\n" + want + " all\n"}, r, selection)
	}
	r := p.runWith(func(o *Options) { o.GPUs, o.Command = "none", "nvidia-smi || echo $NVIDIA_VISIBLE_DEVICES" }, "")
	assert.Equal(t, "void\n", r.out, "without a GPU nothing is called")

	require.NoError(t, os.WriteFile(filepath.Join(hooks, "broken"),
		[]byte("nvidia-container-cli: initialization error: nvml error: driver/library version mismatch"), 0o644))
	r = p.runWith(func(o *Options) { o.GPUs, o.Command = "0", "true" }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "no GPU for a container: the driver in the kernel and the driver's libraries have different versions, "+
		"as after an update.\n\tRestart the machine")
	require.NoError(t, os.Remove(filepath.Join(hooks, "broken")))
}

func TestHookThatDockerDidNotFind(t *testing.T) {
	p := newPerson(t)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, hookName), []byte("#!/bin/sh\n"), 0o755))
	p.env = append(p.env, strings.Replace(fakeGPUs(t), "PATH=", "PATH="+bin+":", 1))
	d := dockertest.Connect(t)
	info, err := d.Info(t.Context())
	require.NoError(t, err)
	if len(info.CDI) > 0 || slices.Contains(info.Runtimes, "nvidia") {
		testenv.Skip(t, testenv.NoGPU, "this Docker can pass GPUs on")
	}
	r := p.runWith(func(o *Options) { o.GPUs, o.Command = "0", "true" }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "no GPU for a container: Docker didn't find NVIDIA's hook when it started.\n"+
		"\tIf nvidia-container-toolkit is installed: sudo systemctl restart docker. If not, install it first, from NVIDIA's repository\n"+
		"Docker said: ")
}
