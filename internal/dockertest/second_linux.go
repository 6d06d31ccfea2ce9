package dockertest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/testenv"
)

// SecondDocker starts a dockerd of the test's own, in a network namespace of its
// own, which finds the hook of a Toolkit, and returns its address and the folder of the
// hook. From then on it is the test's Docker, and has the image of Shell. Its bridge leads
// nowhere.
func SecondDocker(t *testing.T) (host, hooks string) {
	t.Helper()
	host, hooks, _ = RestartableDocker(t)
	return host, hooks
}

// RestartableDocker is SecondDocker with more flags, and a function that restarts it.
func RestartableDocker(t *testing.T, flags ...string) (host, hooks string, restart func()) {
	t.Helper()
	testenv.NeedsRoot(t, "start a dockerd")
	dockerd := testenv.NeedsCommand(t, testenv.Dockerd, "dockerd")
	dir, err := os.MkdirTemp("", "berth") // short: a socket's path has 107 bytes at most
	require.NoError(t, err)
	t.Cleanup(func() {
		// dockerd mounts it on itself, and leaves that where a container outlives it.
		syscall.Unmount(filepath.Join(dir, "data"), syscall.MNT_DETACH)
		os.RemoveAll(dir)
	})
	hooks = Toolkit(t)
	host = "unix://" + filepath.Join(dir, "docker.sock")
	// A configuration of its own: what the machine's says, flags may not say again.
	config := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(config, storage(), 0o644))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { log.Close() })
	start := func() (end func()) {
		c := exec.Command(dockerd, append([]string{"--config-file", config, "-H", host, "--data-root", dir + "/data", "--exec-root", dir + "/exec",
			"-p", dir + "/pid", "--containerd-namespace", "berth-test", "--containerd-plugins-namespace", "berth-test-plugins",
			"--iptables=false", "--ip-forward=false", "--ip-masq=false"}, flags...)...)
		c.Env = append(os.Environ(), "PATH="+hooks+":"+os.Getenv("PATH"))
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
		c.Stdout, c.Stderr = log, log
		began, over := make(chan error), make(chan struct{})
		go func() {
			// dockerd gets its signal when the thread ends that started it. A goroutine that
			// changes its thread for good ends that: it mustn't be this one.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			defer close(over)
			began <- c.Start()
			c.Wait()
		}()
		require.NoError(t, <-began)
		return func() {
			c.Process.Signal(syscall.SIGTERM)
			<-over
		}
	}
	end := start()
	t.Cleanup(func() { end() })
	t.Setenv("DOCKER_HOST", host)
	var d *daemon.Client
	for late := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if d, err = daemon.Connect(t.Context()); err == nil || time.Now().After(late) {
			break
		}
	}
	if err != nil {
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		// Root in a container may not be allowed to; every other failure is one.
		if bytes.Contains(text, []byte("operation not permitted")) {
			testenv.Skip(t, testenv.Dockerd, "a second one may not start here: %s", text)
		}
		require.Fail(t, "the second dockerd doesn't start", "%s", text)
	}
	defer d.Close()
	_, err = Load(t.Context(), d, "shell")
	require.NoError(t, err)
	return host, hooks, func() {
		end()
		end = start()
		require.Eventually(t, func() bool {
			d, err := daemon.ConnectTo(t.Context(), host)
			if err == nil {
				d.Close()
			}
			return err == nil
		}, 30*time.Second, 50*time.Millisecond, "dockerd doesn't come back")
	}
}

// NewDockerd compiles a dockerd that passes GPUs on by CDI, for which Debian's is too old,
// and returns its folder. From nothing that takes minutes.
func NewDockerd(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command("go", "build", "-tags=exclude_graphdriver_btrfs", "-o", dir, "github.com/docker/docker/cmd/dockerd")
	c.Dir, c.Env = filepath.Join(here(), "testdata", "dockerd"), append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "compiling dockerd: %s", out)
	return dir
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
