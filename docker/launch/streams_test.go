package launch

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// /dev/full is what a full disk looks like.
func TestOutputThatCannotBePassedOn(t *testing.T) {
	p := newPerson(t)
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
			assert.Equal(t, "passing on the command's output: write /dev/stdout: no space left on device. The container was ended. If a disk is full, make room or send the output elsewhere\n", complaint.String())
			assert.Empty(t, p.containers())

			c = p.launch(shell("(" + line + ") >&2"))
			c.Stderr = full
			c.Run()
			assert.Equal(t, ExitDaemon, c.ProcessState.ExitCode(), "standard error")
			assert.Empty(t, p.containers())
		})
	}
}

// What was ignored at the start stays so, as with docker run under nohup.
func TestIgnoredSignals(t *testing.T) {
	for _, names := range []string{"HUP", "HUP INT TERM QUIT"} {
		t.Run(names, func(t *testing.T) {
			p := newPerson(t)
			inner := p.launch(shell("echo ready; read line; echo got $line; exit 5"))
			c := exec.Command("sh", "-c", "trap '' "+names+`; exec "$0"`, inner.Path)
			c.Env, c.Dir = inner.Env, inner.Dir
			in, err := c.StdinPipe()
			require.NoError(t, err)
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, c.Start())
			lines := bufio.NewReader(out)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "ready\n", line)
			for sig, name := range map[syscall.Signal]string{syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGQUIT: "QUIT"} {
				if strings.Contains(names, name) {
					require.NoError(t, c.Process.Signal(sig))
				}
			}
			_, err = in.Write([]byte("this\n"))
			require.NoError(t, err)
			line, err = lines.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "got this\n", line)
			c.Wait()
			assert.Equal(t, 5, c.ProcessState.ExitCode())
		})
	}
}
