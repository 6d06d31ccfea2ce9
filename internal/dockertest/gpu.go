package dockertest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/testenv"
)

// HookName is the name of NVIDIA's hook, by which dockerd calls it.
const HookName = "nvidia-container-runtime-hook"

// Toolkit makes what Berth takes for NVIDIA's Container Toolkit, and returns the folder
// of its programs: the hook that package hook plays, which a file "broken" there makes
// fail with its text, and names that nothing calls.
func Toolkit(t testing.TB) (bin string) {
	t.Helper()
	dir := t.TempDir()
	bin = filepath.Join(dir, "bin")
	c := exec.Command("go", "build", "-o", filepath.Join(bin, HookName), "./hook")
	c.Dir, c.Env = here(), append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "compiling the hook: %s", out)
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nvidia-container-cli"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lib"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lib", "libnvidia-container.so.1"), nil, 0o644))
	return bin
}

// GPUDocker starts a dockerd of the test's own, in a network namespace of its own,
// which finds the hook of a Toolkit, and makes it that of DOCKER_HOST. It returns its
// address and the folder of the hook. Its bridge leads nowhere.
func GPUDocker(t *testing.T) (host, hooks string) {
	t.Helper()
	testenv.NeedsRoot(t, "start a dockerd")
	dockerd := testenv.NeedsCommand(t, testenv.Dockerd, "dockerd")
	dir, err := os.MkdirTemp("", "berth") // short: a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	hooks = Toolkit(t)
	host = "unix://" + filepath.Join(dir, "docker.sock")
	// A configuration of its own: what the machine's says, flags may not say again.
	config := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(config, storage(), 0o644))
	c := exec.Command(dockerd, "--config-file", config, "-H", host, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "-p", dir+"/pid",
		"--containerd-namespace", "berth-test", "--containerd-plugins-namespace", "berth-test-plugins",
		"--iptables=false", "--ip-forward=false", "--ip-masq=false")
	c.Env = append(os.Environ(), "PATH="+hooks+":"+os.Getenv("PATH"))
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
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
	d.Close()
	return host, hooks
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

// SMI makes an nvidia-smi that lists two GPUs, and returns a PATH on which it is, and
// NVIDIA's hook isn't.
func SMI(t testing.TB) (path string) {
	t.Helper()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte(`#!/bin/sh
case $1 in --list-gpus)
echo "GPU 0: NVIDIA H200 (UUID: GPU-aaaa0000-1111-2222-3333-444444444444)"
echo "GPU 1: NVIDIA H200 (UUID: GPU-bbbb0000-1111-2222-3333-444444444444)"
esac
`), 0o755))
	return bin + ":" + PathWithout(HookName)
}

// PathWithout is the PATH without the folders that have a program.
func PathWithout(program string) string {
	var kept []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			kept = append(kept, dir)
		}
	}
	return strings.Join(kept, ":")
}
