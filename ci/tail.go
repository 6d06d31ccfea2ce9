package ci

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
)

// kept is how many lines of a build's output an error shows.
const kept = 60

// colour matches the escape sequences that colour a terminal's text.
var colour = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// A tail passes the lines written to it on, one by one and without colours, and keeps the last.
type tail struct {
	show func(line string)

	mu      sync.Mutex
	partial []byte
	lines   []string
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.partial = append(t.partial, p...)
	for {
		line, rest, found := bytes.Cut(t.partial, []byte{'\n'})
		if !found {
			return len(p), nil
		}
		t.partial = append([]byte(nil), rest...)
		if text := strings.TrimRight(colour.ReplaceAllString(string(line), ""), "\r "); text != "" {
			t.lines = append(t.lines, text)
			t.lines = t.lines[max(0, len(t.lines)-kept):]
			t.show(text)
		}
	}
}

// String returns the lines that were kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "\n")
}
