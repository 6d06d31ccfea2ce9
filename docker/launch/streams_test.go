package launch

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// /dev/full is what a full disk looks like.
func TestOutputThatCannotBePassedOn(t *testing.T) {
	p := newPerson(t)
	p.options.Network = "none"
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	for name, line := range map[string]string{"for long": "while :; do echo line; sleep 0.1; done", "at the end": "echo line"} {
		t.Run(name, func(t *testing.T) {
			c := p.launch(shell(line))
			var complaint bytes.Buffer
			c.Stdout, c.Stderr = full, &complaint
			c.Run()
			assert.Equal(t, ExitDaemon, c.ProcessState.ExitCode())
			assert.Equal(t, "passing on the command's output: write /dev/stdout: no space left on device. The container was ended. "+
				"If a disk is full, make room or send the output elsewhere\n", complaint.String())
			assert.Empty(t, p.containers())
		})
	}
	c := p.launch(shell("echo line >&2"))
	c.Stderr = full
	c.Run()
	assert.Equal(t, ExitDaemon, c.ProcessState.ExitCode(), "standard error")
}

// What was ignored at the start stays so, as with docker run under nohup.
func TestIgnoredSignals(t *testing.T) {
	p := newPerson(t)
	p.options.Network = "none"
	inner := p.launch(shell("for s in HUP INT; do trap \"echo got $s\" $s; done; trap 'echo got TERM; exit 9' TERM; " +
		"echo ready; while :; do sleep 0.05; done"))
	c := exec.Command("sh", "-c", `trap '' HUP INT; exec "$0"`, inner.Path)
	c.Env, c.Dir = inner.Env, inner.Dir
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "ready\n", line)
	// In this order they would reach the command.
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		require.NoError(t, c.Process.Signal(sig))
	}
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	assert.Equal(t, "got TERM\n", string(rest))
	c.Wait()
	assert.Equal(t, 9, c.ProcessState.ExitCode())
}
