package ci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/usage"
)

func TestExitCodeOfErrors(t *testing.T) {
	noSuchGPU, broken := func() (error, error) {
		_, unknown := gpu.Resolve("3", gpu.Machine{GPUs: []gpu.GPU{{UUID: "GPU-aaaa"}}})
		_, none := gpu.Resolve("all", gpu.Machine{})
		return unknown, none
	}()
	_, noPlan := launch.NewPlan(launch.Host{}, launch.Options{IPC: "nonsense"})
	for name, c := range map[string]struct {
		err       error
		code, run int
	}{
		"a GPU that isn't there":  {noSuchGPU, ExitUsage, 125},
		"no GPU at all":           {broken, ExitPrerequisite, 125},
		"an option of a launch":   {noPlan, ExitUsage, 125},
		"anything else":           {errors.New("no"), ExitFailure, 125},
		"Ctrl-C":                  {signals.Interrupt{Signal: syscall.SIGINT}, ExitInterrupted, 130},
		"the terminal was closed": {fmt.Errorf("building: %w", signals.Interrupt{Signal: syscall.SIGHUP}), ExitInterrupted, 129},
		"what a person typed":     {fmt.Errorf("-x: %w: no", usage.Err), ExitUsage, 125},
	} {
		require.Error(t, c.err, name)
		assert.Equal(t, c.code, ExitCode(c.err), name)
		assert.Equal(t, c.run, RunExitCode(c.err), name)
	}
	assert.Zero(t, ExitCode(nil))
}

func TestGuard(t *testing.T) {
	assert.NoError(t, Guard(func() error { return nil }))
	assert.Equal(t, io.EOF, Guard(func() error { return io.EOF }))
	err := Guard(func() error {
		var nobody *Project
		_ = nobody.Name
		return nil
	})
	require.ErrorContains(t, err, "this is a bug in Berth")
	assert.ErrorContains(t, err, "exit_test.go:", "the place")
	assert.Equal(t, ExitFailure, ExitCode(err))
}

// The tests below run the compiled binary in a checkout that has no more than
// makes it one, since the image is named.

// checkoutOfNothing is such a checkout.
func checkoutOfNothing(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "magefiles"), 0o755))
	return dir
}

// imageWith returns the tag of the tests' shell image with programs added to it.
// They are shell scripts, come first on the PATH, and go with the test.
func imageWith(t *testing.T, programs map[string]string) string {
	command := testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	tag := newTag(t, dockertest.Connect(t))
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for program, script := range programs {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "usr/local/bin/" + program, Mode: 0o755, Size: int64(len(script))}))
		_, err := io.WriteString(w, script)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	docker := func(in io.Reader, args ...string) string {
		c := exec.Command(command, args...)
		c.Stdin = in
		out, err := c.Output()
		require.NoError(t, err, "docker %s", args)
		return strings.TrimSpace(string(out))
	}
	id := docker(nil, "create", dockertest.Shell(t), "true")
	defer docker(nil, "rm", id)
	docker(&files, "cp", "-", id+":/")
	docker(nil, "commit", id, tag)
	return tag
}

// TestExitCodesAsWritten runs what the tables of README.md and docs/run.md promise.
func TestExitCodesAsWritten(t *testing.T) {
	binary, err := compiled()
	require.NoError(t, err)
	image := imageWith(t, map[string]string{
		"trainer": "#!/bin/bash\n[ \"$1\" = smoke ] || { echo \"$@\"; exit 42; }\ncat result; exit $(cat result)\n",
	})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/exit",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
			e.Setenv("IMAGE", image)
			e.Setenv("NAME", dockertest.Name(t))
			e.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST"))
			e.Setenv("BERTH_CACHE", filepath.Join(e.WorkDir, ".cache"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// exits CODE PROGRAM [ARGS...]: the program must exit with that code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec(args[1], args[2:]...)
				have := 0
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
					have = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if have != want {
					ts.Fatalf("exit code %d instead of %d", have, want)
				}
			},
		},
	})
}

// Signals. `by` is what starts the process: nothing, nohup, or a shell that
// ignores INT as it does for whatever has an & behind it.
func TestSignalsOfRun(t *testing.T) {
	image := dockertest.Shell(t)
	for _, c := range []struct {
		by     string
		signal syscall.Signal
		code   int
	}{
		{"", syscall.SIGHUP, 129}, {"", syscall.SIGINT, 130}, {"", syscall.SIGTERM, 143},
		{"nohup", syscall.SIGHUP, 7}, {"&", syscall.SIGINT, 7},
		{"nohup", syscall.SIGTERM, 143}, {"&", syscall.SIGHUP, 129},
	} {
		t.Run(strings.TrimSpace(c.by+" "+unix.SignalName(c.signal)), func(t *testing.T) {
			t.Parallel()
			dir := checkoutOfNothing(t)
			// bash alone goes on when it isn't its child that INT ended.
			child := begin(t, c.by, dir, nil, "run", "-t="+image, "-gui=off", "-net=none",
				"-cmd=trap 'exit 130' INT; echo ready; until [ -e over ]; do sleep 0.05; done; exit 7")
			child.expect("ready\n")
			child.signal(c.signal, c.code == 7)
			if c.code == 7 {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "over"), nil, 0o644))
			}
			assert.Equal(t, c.code, child.code())
		})
	}
}

// TestSignalsOfBuild sends them while a build waits for a daemon that accepts it
// and says nothing, and later hangs up.
func TestSignalsOfBuild(t *testing.T) {
	for _, c := range []struct {
		by     string
		signal syscall.Signal
		code   int
	}{
		{"", syscall.SIGHUP, ExitInterrupted}, {"", syscall.SIGINT, ExitInterrupted}, {"", syscall.SIGTERM, ExitInterrupted},
		{"nohup", syscall.SIGHUP, ExitPrerequisite}, {"&", syscall.SIGINT, ExitPrerequisite},
	} {
		t.Run(strings.TrimSpace(c.by+" "+unix.SignalName(c.signal)), func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "docker.sock")
			silent, err := net.Listen("unix", socket)
			require.NoError(t, err)
			defer silent.Close()
			child := begin(t, c.by, project.Root, []string{"DOCKER_HOST=unix://" + socket}, "build")
			connection, err := silent.Accept()
			require.NoError(t, err)
			child.signal(c.signal, c.code == ExitPrerequisite)
			if c.code == ExitPrerequisite {
				silent.Close()
				connection.Close()
			}
			assert.Equal(t, c.code, child.code(), child.errors.String())
			if c.code == ExitInterrupted {
				assert.Contains(t, child.errors.String(), "Error: interrupted")
			}
		})
	}
}

// The first smoke command of this project is bash --version, so that is what
// waits for the signal; the second must not run.
func TestInterruptedSmokeStops(t *testing.T) {
	image := imageWith(t, map[string]string{
		"bash":    "#!/bin/bash\n[ \"$1\" = --version ] || exec /bin/bash \"$@\"\necho ready\nexec sleep 600\n",
		"trainer": "#!/bin/bash\necho the second one\n",
	})
	t.Run("by a signal", func(t *testing.T) {
		child := begin(t, "", checkoutOfNothing(t), nil, "smoke", "-t="+image)
		child.expect("ready\n")
		child.signal(syscall.SIGTERM, false)
		assert.NotContains(t, child.remaining(), "the second one")
		assert.Equal(t, ExitInterrupted, child.code())
	})
	t.Run("by Ctrl-C", func(t *testing.T) {
		binary, err := compiled()
		require.NoError(t, err)
		c := exec.Command(binary, "smoke", "-t="+image)
		c.Dir = checkoutOfNothing(t)
		terminal, err := pty.Start(c)
		require.NoError(t, err)
		defer terminal.Close()
		seen := bufio.NewReader(terminal)
		for line := ""; !strings.Contains(line, "ready"); {
			line, err = seen.ReadString('\n')
			require.NoError(t, err)
		}
		_, err = terminal.WriteString("\x03")
		require.NoError(t, err)
		rest, _ := io.ReadAll(seen) // ends with EIO when the process has gone
		c.Wait()
		assert.Equal(t, ExitInterrupted, c.ProcessState.ExitCode())
		assert.NotContains(t, string(rest), "the second one")
	})
}

// A child is a process of the binary.
type child struct {
	t      *testing.T
	c      *exec.Cmd
	out    *bufio.Reader
	errors process.Tail
}

func begin(t *testing.T, by, dir string, env []string, args ...string) *child {
	binary, err := compiled()
	require.NoError(t, err)
	args = append([]string{binary}, args...)
	switch by {
	case "nohup":
		args = append([]string{"nohup"}, args...)
	case "&":
		args = append([]string{"sh", "-c", `trap "" INT; exec "$@"`, "sh"}, args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	k := &child{t: t, c: exec.CommandContext(ctx, args[0], args[1:]...)}
	k.c.Cancel = func() error { return k.c.Process.Signal(syscall.SIGTERM) } // so that it removes its container
	k.c.WaitDelay = 10 * time.Second
	k.c.Dir, k.c.Env, k.c.Stderr = dir, append(os.Environ(), env...), &k.errors
	out, err := k.c.StdoutPipe()
	require.NoError(t, err)
	k.out = bufio.NewReader(out)
	require.NoError(t, k.c.Start())
	t.Cleanup(func() {
		cancel()
		k.c.Wait()
	})
	return k
}

func (k *child) expect(line string) {
	have, err := k.out.ReadString('\n')
	require.NoError(k.t, err, k.errors.String())
	require.Equal(k.t, line, have)
}

// signal sends a signal, which must be an ignored one or not. The kernel drops
// those that are ignored at once, so a wait for an effect would prove nothing.
func (k *child) signal(s syscall.Signal, ignored bool) {
	require.Eventually(k.t, func() bool { return ignores(k.t, k.c.Process.Pid, s) == ignored }, 5*time.Second, 5*time.Millisecond,
		"%s is ignored, or isn't, against what was asked for", s)
	require.NoError(k.t, k.c.Process.Signal(s))
}

// remaining is what the process still prints until it ends; code comes after it.
func (k *child) remaining() string {
	rest, err := io.ReadAll(k.out)
	require.NoError(k.t, err)
	return string(rest)
}

func (k *child) code() int {
	k.c.Wait()
	return k.c.ProcessState.ExitCode()
}

// ignores reports whether a process ignores a signal, as the kernel has it.
func ignores(t *testing.T, pid int, s syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, after, found := strings.Cut(string(status), "\nSigIgn:\t")
	require.True(t, found)
	mask, err := strconv.ParseUint(after[:16], 16, 64)
	require.NoError(t, err)
	return mask&(1<<(s-1)) != 0
}
