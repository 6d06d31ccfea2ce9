package main

import (
	"bytes"
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

// onTerminal starts this test binary as the trainer (see TestMain) on a terminal
// of its own, in a folder.
func onTerminal(t *testing.T, dir string, args ...string) *session {
	t.Helper()
	sample, err := filepath.Abs("../testdata/fashion-mnist-1000")
	require.NoError(t, err)
	trainer, err := exec.LookPath("trainer") // testscript.Main puts it there
	require.NoError(t, err)
	cmd := exec.Command(trainer, append(args, "--data-dir="+sample)...)
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
	for b := range s.output {
		s.seen.Write(b)
	}
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode(), s.seen.String()
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

// TestSignals: Ctrl-C and SIGTERM end a run between two steps, with a
// checkpoint that continues it.
func TestSignals(t *testing.T) {
	for name, c := range map[string]struct {
		send func(*session)
		code int
		says string
	}{
		"Ctrl-C":  {func(s *session) { s.master.WriteString("\x03") }, 130, "trainer: interrupted"},
		"SIGTERM": {func(s *session) { s.cmd.Process.Signal(syscall.SIGTERM) }, 143, "trainer: stopped by signal: terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := onTerminal(t, dir, "train", "--num-epochs=1000", "--batch-size=20", "--checkpoint-dir=my checkpoints", "--json=run.json")
			s.await("images/s")
			c.send(s)
			code, out := s.end()
			assert.Equal(t, c.code, code, out)
			assert.Contains(t, out, c.says)
			assert.Contains(t, out, "Continue with: trainer train --resume --checkpoint-dir='my checkpoints' --num-epochs=1000 --data-dir=")
			folder, err := checkpoint.Open(filepath.Join(dir, "my checkpoints"))
			require.NoError(t, err)
			defer folder.Close()
			saved, err := folder.Load()
			require.NoError(t, err)
			assert.Positive(t, saved.State.Step)
			record, err := os.ReadFile(filepath.Join(dir, "run.json"))
			require.NoError(t, err)
			assert.Contains(t, string(record), `"outcome": "`+strings.TrimPrefix(c.says, "trainer: "))
		})
	}
}

// TestSecondSignal: who presses Ctrl-C twice doesn't wait for the step.
func TestSecondSignal(t *testing.T) {
	s := onTerminal(t, t.TempDir(), "train", "--num-epochs=1000", "--batch-size=800", "--num-workers=1")
	s.await("Network:")
	s.master.WriteString("\x03")
	time.Sleep(50 * time.Millisecond)
	s.master.WriteString("\x03")
	s.end()
	status := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Exited() { // the step was done before the second one
		assert.Equal(t, 130, status.ExitStatus())
		return
	}
	assert.Equal(t, syscall.SIGINT, status.Signal())
}
