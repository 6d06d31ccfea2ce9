package report

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestParseLevel(t *testing.T) {
	for s, want := range map[string]Level{"debug": Debug, "INFO": Info, "Warning": Warning, "error": Error} {
		got, err := ParseLevel(s)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err := ParseLevel("loud")
	assert.ErrorContains(t, err, `log level "loud": give debug, info, warning or error`)
}

func TestPlainConsole(t *testing.T) {
	var out, errs bytes.Buffer
	c := NewConsole(&out, &errs, env("LANG", "en_US.UTF-8"))
	assert.Equal(t, Screen{Width: 80, Unicode: true}, c.Screen)
	c.Printf(Debug, "hidden")
	c.Printf(Info, "%d lines", 1)
	c.Printf(Warning, "careful")
	c.Live(time.Now(), "never", 0.5, "shown")
	c.Clear()
	assert.Equal(t, "1 lines\n", out.String())
	assert.Equal(t, "careful\n", errs.String())
}

// terminal opens one of the given width. all returns what was written to it.
func terminal(t *testing.T, width uint16) (tty *os.File, all func() string) {
	master, tty, err := pty.Open()
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, pty.Setsize(master, &pty.Winsize{Rows: 24, Cols: width}))
	text := make(chan string)
	go func() {
		var b bytes.Buffer
		b.ReadFrom(master) // until the terminal is closed
		text <- b.String()
	}()
	return tty, func() string {
		require.NoError(t, tty.Close())
		return <-text
	}
}

func TestTerminal(t *testing.T) {
	tty, all := terminal(t, 70)
	c := NewConsole(tty, tty, env("LC_ALL", "C.UTF-8", "LANG", "C"))
	assert.Equal(t, Screen{Width: 70, Unicode: true, Colour: true}, c.Screen)
	start := time.Now()
	c.Live(start, "Epoch 1/2", 0.5, "8/16  100 images/s")
	c.Live(start.Add(time.Millisecond), "too", 0.5, "soon")
	c.Live(start.Add(time.Second), "Epoch 1/2", 1, "16/16")
	c.Printf(Info, "done")
	c.Clear()
	full, half := strings.Repeat("━", 30), strings.Repeat("━", 15)
	assert.Equal(t, "Epoch 1/2 \x1b[32m"+half+"\x1b[0m"+strings.Repeat("─", 15)+" 8/16  100 images/s"+
		"\r\x1b[K"+"Epoch 1/2 \x1b[32m"+full+"\x1b[0m 16/16"+
		"\r\x1b[K"+"done\r\n", all())
}

func TestTerminalWithoutColour(t *testing.T) {
	tty, all := terminal(t, 60)
	c := NewConsole(tty, tty, env("NO_COLOR", "1", "LANG", "C"))
	c.Live(time.Now(), "a", 0.25, "b")
	c.Printf(Warning, "plain")
	assert.Equal(t, "a =======----------------------- b\r\x1b[Kplain\r\n", all())
}

func TestDumbTerminal(t *testing.T) {
	tty, all := terminal(t, 60)
	c := NewConsole(tty, tty, env("TERM", "dumb"))
	c.Live(time.Now(), "a", 0.25, "b")
	c.Printf(Warning, "plain")
	assert.Equal(t, "plain\r\n", all())
}

// TestNarrowTerminal: a live line never wraps, since then it could not be
// removed again.
func TestNarrowTerminal(t *testing.T) {
	for width := uint16(1); width < 60; width++ {
		tty, all := terminal(t, width)
		c := NewConsole(tty, tty, env("NO_COLOR", "1", "LANG", "C.UTF-8"))
		c.Live(time.Now(), "Epoch 10/50", 0.3, "36/120  4321 images/s")
		assert.Less(t, utf8.RuneCountInString(all()), max(int(width), 20), "%d columns", width)
	}
}
