package progress

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlainLinesAreFew(t *testing.T) {
	var out bytes.Buffer
	r := New(&out)
	clock := time.Unix(0, 0)
	r.now = func() time.Time { return clock }
	for i := range 25 {
		r.Update("step %d", i)
		clock = clock.Add(time.Second)
	}
	r.Printf("done")
	r.Close()
	assert.Equal(t, "step 0\nstep 10\nstep 20\ndone\n", out.String())
}

func TestLiveLineOnATerminal(t *testing.T) {
	terminal, line, err := pty.Open()
	require.NoError(t, err)
	require.NoError(t, pty.Setsize(terminal, &pty.Winsize{Rows: 5, Cols: 20}))
	t.Setenv("TERM", "xterm")
	r := New(line)
	r.Update("fetching %s", "a package with a long name")
	r.Printf("stays")
	r.Update("short")
	r.Close()
	fmt.Fprint(line, "END")
	require.NoError(t, line.Close())
	want := "fetching a package…\r\x1b[Kstays\r\nshort\r\x1b[KEND"
	out := make([]byte, len(want))
	_, err = io.ReadFull(terminal, out)
	require.NoError(t, err)
	assert.Equal(t, want, string(out))
}

func TestDumbTerminalGetsPlainLines(t *testing.T) {
	terminal, line, err := pty.Open()
	require.NoError(t, err)
	defer terminal.Close()
	defer line.Close()
	t.Setenv("TERM", "dumb")
	assert.Zero(t, New(line).width)
}

func TestNilReporterIsSilent(t *testing.T) {
	var r *Reporter
	r.Printf("x")
	r.Update("x")
	r.Close()
}
