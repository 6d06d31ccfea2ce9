package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Level says how much a console tells.
type Level int

// The levels, from all to least.
const (
	Debug Level = iota
	Info
	Warning
	Error
)

// ParseLevel reads debug, info, warning or error, in any case, as Python's
// logging names them.
func ParseLevel(s string) (Level, error) {
	for i, name := range []string{"debug", "info", "warning", "error"} {
		if strings.EqualFold(s, name) {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("log level %q: give debug, info, warning or error", s)
}

// A Console tells a person what goes on: lines on standard output, warnings and
// one live line under them all on standard error, where that is a terminal. It is
// for one goroutine.
type Console struct {
	Level    Level
	Screen   Screen
	out, err io.Writer
	live     bool // a live line is shown
	terminal bool // standard error is one that can move its cursor
	last     time.Time
}

// NewConsole returns a console. What it can show is found out from err and from
// TERM, NO_COLOR (https://no-color.org) and the locale in the environment.
func NewConsole(out, err io.Writer, getenv func(string) string) *Console {
	c := &Console{Level: Info, out: out, err: err, Screen: Screen{Width: 80}}
	locale := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = getenv(name)
		}
	}
	locale = strings.ToUpper(locale)
	c.Screen.Unicode = strings.Contains(locale, "UTF-8") || strings.Contains(locale, "UTF8")
	if width := terminalWidth(err); width > 0 && getenv("TERM") != "dumb" {
		c.terminal = true
		c.Screen.Width = width
	}
	c.Screen.Colour = c.terminal && terminalWidth(out) > 0 && getenv("NO_COLOR") == ""
	return c
}

// terminalWidth is the width of a terminal in columns, or 0 if w isn't one.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(width, 20)
}

// Printf writes a line of the given level.
func (c *Console) Printf(level Level, format string, args ...any) {
	if level < c.Level {
		return
	}
	c.Clear()
	line := fmt.Sprintf(format, args...)
	if level < Warning {
		fmt.Fprintln(c.out, line)
		return
	}
	if c.Screen.Colour {
		line = "\x1b[1;33m" + line + "\x1b[0m"
	}
	fmt.Fprintln(c.err, line)
}

// Write writes text as it is, below the lines so far.
func (c *Console) Write(text []byte) (int, error) {
	c.Clear()
	return c.out.Write(text)
}

// refresh is the shortest time between two live lines.
const refresh = 50 * time.Millisecond

// Live shows a live line, unless there is no terminal for it, it would be too
// soon after the last, or the level is above info. Its head and tail are always
// shown, the bar between them takes the rest of the width.
func (c *Console) Live(now time.Time, head string, done float64, tail string) {
	if !c.terminal || c.Level > Info || now.Sub(c.last) < refresh {
		return
	}
	c.last = now
	const margin = 3
	room := c.Screen.Width - margin - utf8.RuneCountInString(head) - utf8.RuneCountInString(tail)
	line := head
	if room >= 4 {
		line += " " + c.bar(min(room, 30), done)
	}
	line += " " + tail
	c.Clear()
	if room < -1 { // cut on the right rather than wrap
		line = string([]rune(line)[:c.Screen.Width-1])
	}
	io.WriteString(c.err, line)
	c.live = true
}

func (c *Console) bar(width int, done float64) string {
	full := min(max(int(done*float64(width)), 0), width)
	on, off := "━", "─"
	if !c.Screen.Unicode {
		on, off = "=", "-"
	}
	bar := strings.Repeat(on, full)
	if c.Screen.Colour {
		bar = "\x1b[32m" + bar + "\x1b[0m"
	}
	return bar + strings.Repeat(off, width-full)
}

// Clear removes the live line.
func (c *Console) Clear() {
	if c.live {
		io.WriteString(c.err, "\r\x1b[K")
		c.live = false
	}
}
