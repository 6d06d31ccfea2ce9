// Package progress shows a person what long work is doing: on a terminal one
// live line under the lines that stay, elsewhere plain lines, few enough to read in a log.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// plainInterval is the shortest time between two live lines where there is no terminal
// to overwrite them on.
const plainInterval = 10 * time.Second

// A Reporter writes progress. Its methods may be called from several
// goroutines, and on a nil Reporter, which says nothing.
type Reporter struct {
	mu    sync.Mutex
	out   io.Writer
	width int // columns of the terminal, 0 where there is none
	last  time.Time
	live  bool // a live line stands on the terminal
	now   func() time.Time
}

// New reports on out, with a live line if it is a terminal that can move its
// cursor.
func New(out io.Writer) *Reporter {
	r := &Reporter{out: out, now: time.Now}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			r.width = max(width, 20)
		}
	}
	return r
}

// Printf writes a line that stays.
func (r *Reporter) Printf(format string, args ...any) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	fmt.Fprintf(r.out, strings.TrimSuffix(format, "\n")+"\n", args...)
}

// Update replaces the live line. Where there is no terminal it writes a line,
// at most one in ten seconds.
func (r *Reporter) Update(format string, args ...any) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.width == 0 {
		if now := r.now(); now.Sub(r.last) >= plainInterval {
			r.last = now
			fmt.Fprintf(r.out, strings.TrimSuffix(format, "\n")+"\n", args...)
		}
		return
	}
	line := []rune(strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf(format, args...)), "\n", " "))
	if len(line) > r.width-1 {
		line = append(line[:r.width-2], '…')
	}
	r.clear()
	fmt.Fprint(r.out, string(line))
	r.live = true
}

// Close removes the live line.
func (r *Reporter) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
}

func (r *Reporter) clear() {
	if r.live {
		fmt.Fprint(r.out, "\r\x1b[K")
		r.live = false
	}
}
