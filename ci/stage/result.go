package stage

import (
	"cmp"
	"fmt"
	"strings"
)

// A State is what became of a stage.
type State string

// The states.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped" // one that it waits for didn't pass
)

// A Result is what became of a stage.
type Result struct {
	Stage   string   `json:"stage"`
	State   State    `json:"state"`
	Why     string   `json:"why,omitempty"` // it failed or was skipped
	Seconds float64  `json:"seconds"`
	Checks  []Check  `json:"checks,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Curves  []Curve  `json:"curves,omitempty"`
	Log     string   `json:"log,omitempty"` // file with the output
	Err     error    `json:"-"`
}

// A Check is one thing that a stage looked at.
type Check struct {
	Name    string  `json:"name"`
	Group   string  `json:"group,omitempty"` // what it is part of, such as a package of tests
	Seconds float64 `json:"seconds"`
	Failure string  `json:"failure,omitempty"` // "" if it passed
	Skipped string  `json:"skipped,omitempty"` // why it was left out
	File    string  `json:"file,omitempty"`    // in which it failed, if it is about one
	Line    int     `json:"line,omitempty"`    // there, from 1
}

// A Curve is the losses of a training by its steps.
type Curve struct {
	Name   string    `json:"name"`
	Steps  []float64 `json:"steps"`
	Losses []float64 `json:"losses"`
}

func (r Result) failed() (n int) {
	for _, c := range r.Checks {
		if c.Failure != "" {
			n++
		}
	}
	return n
}

// Line is the result in a line for a person.
func (r Result) Line() string {
	switch r.State {
	case Skipped:
		return fmt.Sprintf("%s: skipped, since %s", r.Stage, r.Why)
	case Failed:
		first, _, _ := strings.Cut(r.Why, "\n")
		return fmt.Sprintf("%s: failed (%.1f s): %s", r.Stage, r.Seconds, first)
	}
	if len(r.Checks) == 0 {
		return fmt.Sprintf("%s: ok (%.1f s)", r.Stage, r.Seconds)
	}
	return fmt.Sprintf("%s: ok (%.1f s), %s", r.Stage, r.Seconds, Plural(len(r.Checks), "check"))
}

// Failure is one thing that failed, to be shown to a person.
type Failure struct {
	Stage, Name, Text string
	File              string // "" unless it is about a file
	Line              int
}

// Failures lists what failed: the checks, and where none did, the stages themselves.
func Failures(results []Result) (all []Failure) {
	for _, r := range results {
		if r.State != Failed {
			continue
		}
		n := len(all)
		for _, c := range r.Checks {
			if c.Failure != "" {
				all = append(all, Failure{r.Stage, cmp.Or(join(c.Group, c.Name), r.Stage), c.Failure, c.File, c.Line})
			}
		}
		if len(all) == n {
			all = append(all, Failure{Stage: r.Stage, Name: r.Stage, Text: r.Why})
		}
	}
	return all
}

// join names a check within its group.
func join(group, name string) string {
	return strings.TrimSpace(group + " " + name)
}

// Plural is a number of things.
func Plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
