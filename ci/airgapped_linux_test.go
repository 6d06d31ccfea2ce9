package ci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestAirGapped does what docs/air-gapped.md says: what this machine's Docker has is carried to
// another one, which has no network, and neither has the process that types.
func TestAirGapped(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Docker")
	}
	dockertest.Connect(t)
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	p := checkout(t, 0o022)
	if testenv.Long() {
		ownCache(t)
		appendTo(t, p, p.Dockerfile, "RUN echo carried > /carried\n") // nobody has built that
	}
	built := build(t, p, "")
	carry := t.TempDir()
	docker(t, "save", "-o", filepath.Join(carry, "image.tar"), built.Image)
	if testenv.Long() {
		engine := docker(t, "inspect", "-f", "{{.Config.Image}}", os.Getenv("BERTH_ENGINE"))
		docker(t, "save", "-o", filepath.Join(carry, "engine.tar"), strings.TrimSpace(engine))
	}

	dockertest.SecondDocker(t)
	binary, err := compiled()
	require.NoError(t, err)
	offline := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), binary, args...)
		c.Dir, c.Env = p.Root, append(os.Environ(), "GOPROXY=off")
		var stdout, stderr strings.Builder
		c.Stdout, c.Stderr = &stdout, &stderr
		require.NoError(t, withoutNetwork(c), "%s\n%s", strings.Join(args, " "), &stderr)
		return stdout.String()
	}
	if testenv.Long() {
		docker(t, "load", "-i", filepath.Join(carry, "engine.tar"))
		var again Result
		require.NoError(t, json.Unmarshal([]byte(offline("build", "-locked", "-json")), &again))
		assert.False(t, again.Cached)
		assert.Equal(t, built.Digest, again.Digest)
		assert.Contains(t, offline("verify", "-locked"), built.Digest+" twice, bit for bit")
		docker(t, "rmi", built.Image)
	}

	dockertest.Cache(t) // nothing is carried but the image
	docker(t, "load", "-i", filepath.Join(carry, "image.tar"))
	assert.Contains(t, offline("build"), built.Digest+" (up to date)")
	assert.Equal(t, "here\n", offline("run", "-net=none", "-cmd=echo here"))
}

// docker runs Docker's command line.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// withoutNetwork runs a command in a network namespace that has a loopback and nothing else.
func withoutNetwork(c *exec.Cmd) error {
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine, and the namespace with it
		ended <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(socket)
			up, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
			if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, up); err != nil {
				return err
			}
			return c.Run() // of this thread, whose namespace the process inherits
		}()
	}()
	return <-ended
}
