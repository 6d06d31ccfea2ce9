package launch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/usage"
)

// allLines means every line where a number of last lines may be given.
const allLines = "all"

// Logs writes what a launch has written to the person's output, also after its end
// (see owned.KeptFor). tail is a number of lines, "" for all.
func Logs(ctx context.Context, d *daemon.Client, name, tail string, follow bool, s Streams) error {
	tail = cmp.Or(tail, allLines)
	if n, err := strconv.Atoi(tail); tail != allLines && (err != nil || n < 0) {
		return fmt.Errorf("-tail: %w: %q isn't a number of lines", usage.Err, tail)
	}
	for again := false; ; again = true {
		l, err := find(ctx, d, name, true, s)
		if err != nil {
			return err
		}
		if follow && l.ended == nil {
			err = l.followLog(ctx, d, s, tail)
		} else {
			err = l.copyLog(ctx, d, s.Out, s.Err, tail, false)
		}
		// One that has just ended is in the cache now.
		if again || l.ended != nil || !errors.Is(err, daemon.ErrNotFound) {
			return err
		}
	}
}

// copyLog writes the two streams of a launch.
func (l Launch) copyLog(ctx context.Context, d *daemon.Client, out, err io.Writer, tail string, follow bool) error {
	if l.ended != nil {
		return l.copySaved(out, err, tail)
	}
	s, e := d.Inspect(ctx, l.status.ID)
	if e != nil {
		return e
	}
	log, e := d.Logs(ctx, l.status.ID, tail, follow)
	if e != nil {
		return e
	}
	defer log.Close()
	return copyStreams(log, s.TTY, out, err)
}

// copySaved writes what was saved of a launch that has ended.
func (l Launch) copySaved(out, err io.Writer, tail string) error {
	log, e := l.ended.Log()
	if e != nil {
		return e
	}
	defer log.Close()
	if n, e := strconv.Atoi(tail); e == nil {
		var count lineCounter
		if e := copyStreams(log, l.ended.TTY, &count, &count); e != nil {
			return e
		}
		if _, e := log.Seek(0, io.SeekStart); e != nil {
			return e
		}
		skip := max(0, count.lines()-n)
		out, err = &skipper{out, &skip}, &skipper{err, &skip}
	}
	return copyStreams(log, l.ended.TTY, out, err)
}

// copyStreams copies a log in the form that the daemon has it.
func copyStreams(log io.Reader, tty bool, out, err io.Writer) error {
	if !tty {
		return daemon.Demultiplex(out, err, log)
	}
	_, e := io.Copy(out, log)
	return e
}

// A lineCounter counts the lines that are written to it; the last need not have an end.
type lineCounter struct {
	ends    int
	partial bool
}

func (c *lineCounter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		c.ends += bytes.Count(p, []byte{'\n'})
		c.partial = p[len(p)-1] != '\n'
	}
	return len(p), nil
}

func (c *lineCounter) lines() int {
	if c.partial {
		return c.ends + 1
	}
	return c.ends
}

// A skipper drops a number of lines, which it shares with another stream, and passes
// on the rest.
type skipper struct {
	w    io.Writer
	skip *int
}

func (s *skipper) Write(p []byte) (int, error) {
	rest := p
	for *s.skip > 0 {
		_, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found {
			return len(p), nil
		}
		rest = after
		*s.skip--
	}
	if _, err := s.w.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}
