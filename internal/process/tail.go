// Package process runs other programs: tied to the life of this one, together with all that
// they start, or for an answer within a limit; and keeps the end of what they said for an error.
package process

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// maxLines is how many lines of a program's output an error shows.
const maxLines = 60

// colour matches the escape sequences that colour a terminal's text.
var colour = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// A Tail takes a program's output: it passes the lines on, one by one and without
// colours, and keeps the last. Its methods may be called from several goroutines.
type Tail struct {
	Show func(line string) // may be nil

	mu      sync.Mutex
	partial []byte
	lines   []string
}

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := append(t.partial, p...)
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found {
			t.partial = bytes.Clone(rest) // not the whole text that it is the end of
			return len(p), nil
		}
		rest = after
		text := plain(line)
		if text == "" {
			continue
		}
		t.lines = append(t.lines, text)
		t.lines = t.lines[max(0, len(t.lines)-maxLines):]
		if t.Show != nil {
			t.Show(text)
		}
	}
}

func plain(line []byte) string {
	return strings.TrimRight(colour.ReplaceAllString(string(line), ""), "\r ")
}

// String returns the lines that were kept, and the one that has no end yet.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if text := plain(t.partial); text != "" {
		lines = append(lines[:len(lines):len(lines)], text)
	}
	return strings.Join(lines, "\n")
}
