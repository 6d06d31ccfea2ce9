package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

const yellow = "\x1b[01;33m"

func TestSessionInATerminal(t *testing.T) { asEverybody(t, session) }

func session(t *testing.T, p *person) {
	hostname, err := os.Hostname()
	require.NoError(t, err)
	end := p.prompt()
	s := p.openTerminal(nil, 24, 100)
	before := s.modes()

	s.expect(yellow)
	assert.Regexp(t, `^\w+@`+hostname+"$", strings.TrimSuffix(s.expect("\x1b[00m"), "\x1b[00m"))
	s.expect(end)
	s.enter("stty size")
	s.expect("24 100\r\n")

	s.expect(end)
	s.resize(31, 91)
	s.enter("until test \"$(stty size)\" = '31 91'; do sleep 0.02; done; echo res''ized")
	s.expect("resized\r\n")

	s.enter("sh -c 'echo started; exec sleep 100'")
	s.expect("started\r\n")
	s.tty.Write([]byte{3}) // Ctrl-C
	s.enter("echo code=$?")
	s.expect("code=130\r\n")
	// Ctrl-P brings the last line back at once: no detach keys hold it.
	s.tty.Write([]byte{16})
	s.expect("echo code=$?")
	s.enter("; cat")
	s.expect("code=0\r\n")
	s.enter("typed")
	s.expect("typed\r\ntyped\r\n")
	s.tty.Write([]byte{4}) // Ctrl-D
	s.expect(end)
	s.enter("exit 42")
	assert.Equal(t, 42, s.code())

	assert.Equal(t, before, s.modes(), "the terminal isn't as it was")
	assert.FileExists(t, filepath.Join(p.options.Root, ours.Home, ".bash_history"))
}

func TestFirstCommandKnowsTheTerminal(t *testing.T) {
	p := newPerson(t)
	s := p.openTerminal(shell("stty size; test -t 0 && test -t 1 && test -t 2 && echo all; exit 7"), 33, 77)
	s.expect("33 77\r\nall\r\n")
	assert.Equal(t, 7, s.code())
}

func TestExitCodes(t *testing.T) { asEverybody(t, exitCodes) }

func exitCodes(t *testing.T, p *person) {
	for line, code := range map[string]int{
		"true":                            0,
		"exit 42":                         42,
		"no-such-command":                 ExitNotFound,
		"/etc":                            ExitNotRunnable,
		"kill -TERM $$":                   143,
		"kill -KILL $$":                   137,
		"sleep 1 & kill -INT $!; wait $!": 130,
	} {
		assert.Equal(t, code, p.run(line, "").code, line)
	}
	for entrypoint, code := range map[string]int{
		"no-such-command": ExitNotFound,
		"/no/such/file":   ExitNotFound,
		"/etc":            ExitNotRunnable,
		"/etc/passwd":     ExitNotRunnable,
	} {
		assert.Equal(t, code, p.runWith(func(o *Options) { o.Entrypoint, o.Command = entrypoint, "true" }, "").code, entrypoint)
	}
	r := p.runWith(func(o *Options) { o.Network = "no-such-network" }, "")
	assert.Equal(t, ExitDaemon, r.code)
}

func TestStreamsByteForByte(t *testing.T) { asEverybody(t, streams) }

func streams(t *testing.T, p *person) {
	var lines bytes.Buffer
	for i := range 1_000_000 {
		fmt.Fprintln(&lines, i)
	}
	r := p.run("cat; echo done >&2; exit 3", lines.String())
	assert.Equal(t, 3, r.code)
	assert.Equal(t, "done\n", r.err)
	assert.True(t, lines.String() == r.out, "%d bytes in, %d out, or others", lines.Len(), len(r.out))
}

func TestReaderThatLeaves(t *testing.T) {
	p := newPerson(t)
	c := p.launch(shell("yes"))
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	_, err = io.ReadFull(out, make([]byte, 4))
	require.NoError(t, err)
	out.Close()
	c.Wait()
	assert.Equal(t, exitSignal+int(syscall.SIGPIPE), c.ProcessState.ExitCode())
}

func TestClosedTerminalEndsTheContainer(t *testing.T) { asEverybody(t, closedTerminal) }

func closedTerminal(t *testing.T, p *person) {
	// It ignores what a terminal's end tells it.
	s := p.openTerminal(shell("trap '' HUP TERM; echo ready; sleep 100"), 24, 80)
	s.expect("ready")
	require.NoError(t, s.tty.Close())
	s.code()
	assert.Empty(t, p.containers())
}

func TestSignals(t *testing.T) {
	p := newPerson(t)
	t.Run("go to the command without a terminal", func(t *testing.T) {
		for sig, name := range map[syscall.Signal]string{syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP",
			syscall.SIGQUIT: "QUIT"} {
			c := p.launch(shell("trap 'echo got " + name + "; exit 9' " + name + "; echo ready; while :; do sleep 0.05; done"))
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, c.Start())
			_, err = io.ReadFull(out, make([]byte, len("ready\n")))
			require.NoError(t, err)
			require.NoError(t, c.Process.Signal(sig))
			rest, err := io.ReadAll(out)
			require.NoError(t, err)
			c.Wait()
			assert.Equal(t, "got "+name+"\n", string(rest))
			assert.Equal(t, 9, c.ProcessState.ExitCode(), name)
		}
	})
	t.Run("end the container with one", func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGINT} {
			s := p.openTerminal(shell("trap '' TERM; echo ready; sleep 100"), 24, 80)
			s.expect("ready")
			require.NoError(t, s.cmd.Process.Signal(sig))
			assert.Equal(t, exitSignal+int(sig), s.code(), sig)
			assert.Empty(t, p.containers(), sig)
		}
	})
	t.Run("give up while another launch makes the home", func(t *testing.T) {
		p := newPerson(t)
		p.env = append(p.env, "PATH="+dockertest.PathWithout("nvidia-smi"))
		home := filepath.Join(p.options.Root, ours.Home)
		require.NoError(t, os.MkdirAll(home, 0o700))
		making, err := os.Open(home)
		require.NoError(t, err)
		defer making.Close()
		require.NoError(t, syscall.Flock(int(making.Fd()), syscall.LOCK_EX))
		for _, detach := range []bool{false, true} {
			s := p.openTerminal(func(o *Options) { o.Detach, o.GPUs, o.Command = detach, "", "echo it runs" }, 24, 80)
			s.expect("NO GPU") // after which it makes the home
			s.tty.Write([]byte{3})
			assert.Equal(t, 130, s.code())
			assert.NotContains(t, s.shown, "it runs")
		}
	})
	t.Run("give up before the container runs", func(t *testing.T) {
		for i := range 12 {
			c := p.launch(shell("sleep 1"))
			require.NoError(t, c.Start())
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			require.NoError(t, c.Process.Signal(syscall.SIGTERM))
			c.Wait()
			// Before Run has taken the signals over, the process dies of it.
			died := c.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM
			assert.True(t, died || c.ProcessState.ExitCode() == exitSignal+int(syscall.SIGTERM), "after %d ms: %s", i*20, c.ProcessState)
		}
		assert.Empty(t, p.containers())
	})
}

func TestWorkspace(t *testing.T) {
	p := newPerson(t)
	sub := filepath.Join(p.options.Root, "a", "b c")
	require.NoError(t, os.MkdirAll(sub, 0o755))
	c := p.launch(shell("pwd; echo hello > file"))
	c.Dir = sub
	out, err := c.Output()
	require.NoError(t, err)
	assert.Equal(t, Workspace+"/a/b c\n", string(out))
	got, err := os.ReadFile(filepath.Join(sub, "file"))
	require.NoError(t, err)
	assert.Equal(t, "hello\n", string(got))

	c = p.launch(shell("pwd"))
	c.Dir = t.TempDir()
	out, err = c.Output()
	require.NoError(t, err)
	assert.Equal(t, Workspace+"\n", string(out), "from outside of the checkout")
}

func TestMountsAndEnvironment(t *testing.T) {
	p := newPerson(t)
	data := filepath.Join(t.TempDir(), "my, data")
	require.NoError(t, os.Mkdir(data, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(data, "f"), []byte("x\n"), 0o644))
	p.env = append(p.env, "SECRET=from the host")
	r := p.runWith(func(o *Options) {
		o.Mounts = `"` + data + `":/data:ro`
		o.Env = `GREETING="Hello, world",SECRET,UNSET_ANYWHERE,EMPTY=`
		o.Command = `cat /data/f; touch /data/g 2>/dev/null || echo read-only; echo "$GREETING/$SECRET/${UNSET_ANYWHERE-unset}/$EMPTY/"`
	}, "")
	assert.Equal(t, "x\nread-only\nHello, world/from the host/unset//\n", r.out+r.err)
}

func TestMountWithinTheWorkspace(t *testing.T) {
	p := newPerson(t)
	data := t.TempDir()
	if os.Getuid() == 0 {
		p.become(12345, 12345)
	}
	require.NoError(t, os.WriteFile(filepath.Join(data, "f"), []byte("x\n"), 0o644))
	r := p.runWith(func(o *Options) {
		o.Mounts = data + ":/my_workspace/a/data:ro," + data + "/f:/my_workspace/b/f"
		o.Command = "cat a/data/f b/f"
	}, "")
	assert.Equal(t, "x\nx\n", r.out, r.err)
	for _, name := range []string{"a", "a/data", "b", "b/f"} {
		info, err := os.Stat(filepath.Join(p.options.Root, name))
		require.NoError(t, err)
		root, err := os.Stat(p.options.Root)
		require.NoError(t, err)
		assert.Equal(t, root.Sys().(*syscall.Stat_t).Uid, info.Sys().(*syscall.Stat_t).Uid, name)
	}
}

func TestContainerIsConfined(t *testing.T) {
	p := newPerson(t)
	r := p.runWith(func(o *Options) {
		o.SharedMem = "96m"
		o.Command = `grep -E 'NoNewPrivs|CapBnd' /proc/self/status; df --output=size -h /dev/shm | tail -1; cat /proc/1/comm; stat -c %a $XDG_RUNTIME_DIR`
	}, "")
	caps := "0000000000000000"
	if os.Getuid() == 0 {
		caps = "00000000000000eb"
	}
	assert.Equal(t, "CapBnd:\t"+caps+"\nNoNewPrivs:\t1\n  96M\ndocker-init\n700\n", r.out+r.err)
}

func TestHomeLasts(t *testing.T) {
	p := newPerson(t)
	require.Equal(t, "", p.run("test -f ~/.bashrc && echo mine > ~/note && echo changed > ~/.bashrc", "").err)
	assert.Equal(t, "mine\nchanged\n", p.run("cat ~/note ~/.bashrc", "").out)
	info, err := os.Stat(filepath.Join(p.options.Root, ours.Home))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestDockerRunLineCanBePasted(t *testing.T) {
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	p := newPerson(t)
	h := hostOf(t, p)
	o := p.options
	o.Command = `echo "it's $(whoami) at $PWD with $A"; exit 5`
	o.Env = `A="1, 2"`
	o.Mounts = t.TempDir() + ":/data:ro"
	plan, err := NewPlan(h, o)
	require.NoError(t, err)
	require.NoError(t, plan.Home.seed(t.Context()))
	script := strings.Replace(plan.Shell(), "rm -r \"$dir\"\n", "code=$?\nrm -r \"$dir\"\nexit $code\n", 1)
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 5, exit.ExitCode())
	assert.Equal(t, fmt.Sprintf("it's %s at %s with 1, 2\n", h.User.Name, plan.Container.WorkingDir), string(out))
}

// TestRunWithin ends launches by their context, also one whose command has ended while nobody
// reads what it wrote, and takes no signal from this process.
func TestRunWithin(t *testing.T) {
	p := newPerson(t)
	t.Setenv("BERTH_CACHE", p.cache)
	d := dockertest.Connect(t)
	signalled := make(chan os.Signal, 1)
	signal.Notify(signalled, syscall.SIGHUP)
	defer signal.Stop(signalled)
	for command, left := range map[string]bool{"echo begun; exec sleep 1000": false, "echo begun; head -c 200000 /dev/zero": true} {
		reader, writer, err := os.Pipe()
		require.NoError(t, err)
		nothing, err := os.Open(os.DevNull)
		require.NoError(t, err)
		s := Streams{In: nothing, Out: writer, Err: writer}
		o := p.options
		o.Command = command
		h, err := Probe(t.Context(), d, o, s)
		require.NoError(t, err)
		plan, err := NewPlan(h, o)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan int, 1)
		go func() {
			code, err := RunWithin(ctx, d, plan, s)
			assert.NoError(t, err)
			ended <- code
		}()
		_, err = io.ReadFull(reader, make([]byte, len("begun\n")))
		require.NoError(t, err)
		if left {
			eventually(t, func() bool { return len(p.containers()) == 0 }, "it doesn't end")
		}
		cancel()
		select {
		case code := <-ended:
			assert.Equal(t, 143, code)
		case <-time.After(time.Minute):
			assert.Fail(t, "it goes on", command)
		}
		require.NoError(t, errors.Join(reader.Close(), writer.Close(), nothing.Close()))
	}
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	<-signalled
}
