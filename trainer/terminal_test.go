package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/checkpoint"
)

// session is a trainer on a terminal.
type session struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	output chan []byte
	seen   bytes.Buffer
}

// sample is the folder of the data to train on.
func sample(t *testing.T) string {
	t.Helper()
	folder, err := filepath.Abs("../testdata/fashion-mnist-1000")
	require.NoError(t, err)
	return folder
}

// onTerminal starts this test binary as the trainer (see TestMain) on a terminal
// of its own, in a folder.
func onTerminal(t *testing.T, dir string, args ...string) *session {
	t.Helper()
	trainer, err := exec.LookPath("trainer") // testscript.Main puts it there
	require.NoError(t, err)
	cmd := exec.Command(trainer, append(args, "--data-dir="+sample(t))...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm-256color", "NO_COLOR=")
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 120})
	require.NoError(t, err)
	s := &session{t: t, cmd: cmd, master: master, output: make(chan []byte, 100)}
	t.Cleanup(func() {
		cmd.Process.Kill()
		master.Close()
	})
	go func() {
		defer close(s.output)
		for {
			b := make([]byte, 4096)
			n, err := master.Read(b)
			if n > 0 {
				s.output <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

// await reads until a text has been shown.
func (s *session) await(text string) {
	s.t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.seen.String(), text) {
		select {
		case b, ok := <-s.output:
			require.True(s.t, ok, "the trainer ended without %q:\n%s", text, s.seen.String())
			s.seen.Write(b)
		case <-deadline:
			require.Fail(s.t, "not shown", "%q in\n%s", text, s.seen.String())
		}
	}
}

// end reads until the trainer ends, and returns its exit code and all output.
func (s *session) end() (int, string) {
	s.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case b, ok := <-s.output:
			if !ok {
				s.cmd.Wait()
				return s.cmd.ProcessState.ExitCode(), s.seen.String()
			}
			s.seen.Write(b)
		case <-deadline:
			require.Fail(s.t, "the trainer doesn't end", "%s", s.seen.String())
		}
	}
}

// TestWatched: what a person sees on a terminal.
func TestWatched(t *testing.T) {
	code, out := onTerminal(t, t.TempDir(), "train", "--num-epochs=2", "--batch-size=50").end()
	assert.Zero(t, code, out)
	assert.Regexp(t, `Epoch 1/2 .*━.* \d+/16  \d+ images/s  loss \d\.\d+  accuracy 0\.\d+  \d+:\d\d left\r\x1b\[K`, out)
	assert.Contains(t, out, "\x1b[1;33mNo GPU is used, training on the CPU")
	assert.Contains(t, out, "[ 2/ 2] Time elapsed: ")
	assert.Contains(t, out, " accuracy  \x1b[38;2;0;114;178m⠤⠤⠤⠤\x1b[0m train  \x1b[38;2;230;159;0m⠤ ⠤ \x1b[0m test")
	assert.Contains(t, out, "Best test accuracy ")
	shown := out[strings.LastIndex(out, "\x1b[K"):]
	assert.NotContains(t, shown, "left", "no live line stays")
}

// TestSignals: Ctrl-C, SIGTERM and SIGHUP end a run between two steps, with a
// checkpoint that continues it, and the command that does so.
func TestSignals(t *testing.T) {
	for name, c := range map[string]struct {
		send func(*session)
		code int
		says string
	}{
		"Ctrl-C":  {func(s *session) { s.master.WriteString("\x03") }, 130, "trainer: interrupted"},
		"SIGTERM": {func(s *session) { s.cmd.Process.Signal(syscall.SIGTERM) }, 143, "trainer: stopped by signal: terminated"},
		"SIGHUP":  {func(s *session) { s.cmd.Process.Signal(syscall.SIGHUP) }, 129, "trainer: stopped by signal: hangup"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := onTerminal(t, dir, "train", "--num-epochs=1000", "--batch-size=20", "--checkpoint-dir=my checkpoints", "--json=run.json",
				"--fashion", "--checkpoint-every=7")
			s.await("images/s")
			c.send(s)
			code, out := s.end()
			assert.Equal(t, c.code, code, out)
			assert.Contains(t, out, c.says)
			_, line, _ := strings.Cut(out, "Continue with: ")
			line, _, _ = strings.Cut(line, "\r\n")
			assert.Equal(t, "trainer train --resume --checkpoint-dir='my checkpoints' --num-epochs=1000 --device=cpu --data-dir="+quote(sample(t))+
				" --fashion --checkpoint-every=7", line)
			assert.Positive(t, savedAt(t, filepath.Join(dir, "my checkpoints")))
			record, err := os.ReadFile(filepath.Join(dir, "run.json"))
			require.NoError(t, err)
			assert.Contains(t, string(record), `"outcome": "`+strings.TrimPrefix(c.says, "trainer: "))

			again, in := piped(t, dir, "sh", "-c", "exec "+line)
			require.NoError(t, again.Process.Signal(syscall.SIGTERM))
			rest, err := io.ReadAll(in)
			require.NoError(t, err)
			again.Wait()
			assert.Equal(t, 143, again.ProcessState.ExitCode())
			assert.Contains(t, string(rest), "Continue with: "+line+"\n")
		})
	}
}

// TestSecondSignal: who presses Ctrl-C twice waits for nothing. The trainer would
// wait for a reader of the pipe forever.
func TestSecondSignal(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	s := onTerminal(t, dir, "train", "--num-epochs=1000", "--batch-size=1", "--log-level=debug", "--json=pipe")
	s.await("batch 1/800")
	s.master.WriteString("\x03")
	s.await("Checkpoint at step") // the first one has been heard
	// Nobody presses this one: a closed terminal sends it, perhaps more than once.
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGHUP))
	s.master.WriteString("\x03")
	_, out := s.end()
	status := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, status.Signaled(), "it exited with %d:\n%s", status.ExitStatus(), out)
	assert.Equal(t, syscall.SIGINT, status.Signal())
}

// savedAt returns the step of the checkpoint in a folder.
func savedAt(t *testing.T, dir string) int64 {
	t.Helper()
	folder, err := checkpoint.Open(dir)
	require.NoError(t, err)
	defer folder.Close()
	saved, err := folder.Load()
	require.NoError(t, err)
	return saved.State.Step
}

// TestClosedTerminal: a window that is closed ends a run as Ctrl-C does, though
// nobody can be told.
func TestClosedTerminal(t *testing.T) {
	dir := t.TempDir()
	s := onTerminal(t, dir, "train", "--num-epochs=1000", "--batch-size=20", "--json=run.json")
	s.await("images/s")
	require.NoError(t, s.master.Close())
	code, _ := s.end()
	assert.Equal(t, 129, code)
	assert.Positive(t, savedAt(t, filepath.Join(dir, "checkpoints")))
	record, err := os.ReadFile(filepath.Join(dir, "run.json"))
	require.NoError(t, err)
	assert.Contains(t, string(record), `"outcome": "stopped by signal: hangup"`)
}

// piped starts a trainer that prints into a pipe, and returns when it is about to
// train.
func piped(t *testing.T, dir, program string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	in, out, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { in.Close() })
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	err = cmd.Start()
	out.Close()
	require.NoError(t, err)
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "Network: ") {
			return cmd, in
		}
	}
	require.Fail(t, "it ended before it trained")
	return nil, nil
}

// TestReaderGone: `trainer train | tee log` loses its reader to the same Ctrl-C.
// There is a checkpoint of an earlier run, of which it has something to tell.
func TestReaderGone(t *testing.T) {
	dir := t.TempDir()
	folder, err := checkpoint.Open(filepath.Join(dir, "checkpoints"))
	require.NoError(t, err)
	require.NoError(t, folder.Save(&checkpoint.Checkpoint{}))
	require.NoError(t, folder.Close())

	args := []string{"train", "--num-epochs=1", "--batch-size=1", "--json=run.json", "--data-dir=" + sample(t)}
	cmd, in := piped(t, dir, "trainer", args...)
	require.NoError(t, in.Close()) // It prints nothing before the end of the epoch.
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	cmd.Wait()
	assert.Equal(t, 143, cmd.ProcessState.ExitCode())
	assert.Positive(t, savedAt(t, filepath.Join(dir, "checkpoints")))
	assert.FileExists(t, filepath.Join(dir, "checkpoints", "trainer.checkpoint.1"))
	record, err := os.ReadFile(filepath.Join(dir, "run.json"))
	require.NoError(t, err)
	assert.Contains(t, string(record), `"outcome": "stopped by signal: terminated"`)
}

// TestIgnoredSignals: what nohup, or a shell that starts it in the background,
// shields the trainer from doesn't reach it.
func TestIgnoredSignals(t *testing.T) {
	args := []string{"-c", `trap "" HUP INT; exec trainer "$@"`, "sh", "train", "--num-epochs=1", "--batch-size=4", "--data-dir=" + sample(t)}
	cmd, in := piped(t, t.TempDir(), "sh", args...)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	out, err := io.ReadAll(in)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait(), string(out))
	assert.Contains(t, string(out), "[ 1/ 1] ")
}
