// Package trouble has the one table of what may be wrong with a machine: each row says
// what is wrong, what that means for building, running and GPUs, and what mends it, by
// distribution. mage doctor finds rows by looking; errors of all other commands name the
// row that explains them (see advice.About); docs/troubleshooting.md is made of them.
//
// It decides nothing: which row holds is for those who look, or who fail.
package trouble

import (
	"fmt"
	"slices"
	"strings"
)

// A State is how bad something is.
type State string

// The states, the best first.
const (
	OK      State = "ok"      // as it should be, or something optional that isn't there
	Warning State = "warning" // it works, but not all of it, or not for long
	Fault   State = "fault"   // something that is needed doesn't work
)

// Worse reports whether a state is worse than another one.
func (s State) Worse(than State) bool { return slices.Index(states, s) > slices.Index(states, than) }

var states = []State{"", OK, Warning, Fault}

// A Row is a cause.
type Row struct {
	Name  string // by which errors point to it, such as "docker-permission"
	State State
	Wrong string // what is wrong, as a clause that follows a colon
	Means string // what that means for building, running, and GPUs, in sentences
	Mend  Mend
	// Source is where the fact is from, if it isn't Berth's own.
	Source string
}

// A Mend says what to do, by distribution: its keys are IDs of os-release(5), the empty
// one is for all others. Lines that begin with a tab are to be typed, or go into the file
// that the line before names. In them stands {berth} for the command that was typed.
type Mend map[string]string

// everywhere is a Mend that is the same for all.
func everywhere(text string) Mend { return Mend{"": text} }

// On is the mend for a system.
func (m Mend) On(s System) string {
	for _, id := range s.IDs {
		if text, ok := m[id]; ok {
			return text
		}
	}
	return m[""]
}

// Commands are the lines of a mend that are to be typed.
func Commands(mend string) (all []string) {
	for line := range strings.Lines(mend) {
		if command, ok := strings.CutPrefix(line, "\t"); ok {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// Rows returns the whole table, by group and in the order of the checks.
func Rows() []Group {
	return []Group{
		{"The machine", machine},
		{"Docker", docker},
		{"GPUs", gpus},
		{"From the GPU into a container", passing},
		{"Display", display},
		{"Space, mirrors and the engine", space},
	}
}

// A Group is rows about one thing.
type Group struct {
	Title string
	Rows  []*Row
}

// Find returns the row of that name.
func Find(name string) (*Row, error) {
	var names []string
	for _, g := range Rows() {
		for _, r := range g.Rows {
			if r.Name == name {
				return r, nil
			}
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return nil, fmt.Errorf("there is no row %q. There are %s", name, strings.Join(names, ", "))
}
