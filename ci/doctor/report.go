package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// A Page says how a report is shown.
type Page struct {
	System trouble.System // whose commands are shown
	Berth  string         // the command that a person typed, such as "go tool mage"
	Width  int            // columns
	Colour bool
}

// Colours of ECMA-48, by state.
var colours = map[trouble.State]string{trouble.OK: "\x1b[32m", trouble.Warning: "\x1b[33m", trouble.Fault: "\x1b[31m"}

const (
	colourOff = "\x1b[0m"
	stateAt   = len("warning") + 2
	checkAt   = stateAt + len("into containers") + 2
)

// Text writes the findings for a person: a line for each check and, where something is
// wrong, what that means and what to type.
func (p Page) Text(w io.Writer, h Host, all []Finding) error {
	var b strings.Builder
	for _, f := range all {
		state := fmt.Sprintf("%-*s", stateAt, f.State)
		if p.Colour {
			state = colours[f.State] + state + colourOff
		}
		if f.State == trouble.OK {
			p.wrap(&b, fmt.Sprintf("%s%-*s", state, checkAt-stateAt, f.Check), checkAt, f.Found)
			continue
		}
		p.wrap(&b, fmt.Sprintf("%s%-*s", state, checkAt-stateAt, f.Check), checkAt, fmt.Sprintf("%s [%s]", f.Row.Wrong, f.Row.Name))
		if f.Found != "" {
			p.wrap(&b, strings.Repeat(" ", checkAt), checkAt, "Seen: "+f.Found)
		}
		p.explain(&b, f.Row, checkAt)
	}
	for _, name := range h.Silent {
		fmt.Fprintf(&b, "%s gave no answer in time, and was left out\n", name)
	}
	fmt.Fprintf(&b, "\n%s\n", summary(all))
	_, err := io.WriteString(w, b.String())
	return err
}

// summary is the result in a line.
func summary(all []Finding) string {
	count := map[trouble.State]int{}
	for _, f := range all {
		count[f.State]++
	}
	say := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	switch faults, warnings := count[trouble.Fault], count[trouble.Warning]; {
	case faults > 0 && warnings > 0:
		return say(faults, "fault") + " and " + say(warnings, "warning") + "."
	case faults > 0:
		return say(faults, "fault") + "."
	case warnings > 0:
		return "Nothing that is needed is broken; " + say(warnings, "warning") + "."
	}
	return "All is well."
}

// explain writes what a row means, and what mends it.
func (p Page) explain(b *strings.Builder, row *trouble.Row, at int) {
	margin := strings.Repeat(" ", at)
	p.wrap(b, margin, at, row.Means)
	for line := range strings.Lines(p.mend(row)) {
		line = strings.TrimSuffix(line, "\n")
		if command, ok := strings.CutPrefix(line, "\t"); ok {
			fmt.Fprintf(b, "%s    %s\n", margin, command) // to be copied, and so never broken
			continue
		}
		p.wrap(b, margin, at, line)
	}
}

// mend is what to do about a row here.
func (p Page) mend(row *trouble.Row) string {
	return strings.ReplaceAll(row.Mend.On(p.System), advice.Berth, p.Berth)
}

// wrap writes words after what begins a line, and breaks lines before the page's edge.
func (p Page) wrap(b *strings.Builder, begin string, at int, text string) {
	b.WriteString(begin)
	column := at
	for i, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case i == 0:
			column += n
		case column+1+n > p.Width && column > at:
			b.WriteString("\n" + strings.Repeat(" ", at))
			column = at + n
		default:
			b.WriteByte(' ')
			column += 1 + n
		}
		b.WriteString(word)
	}
	b.WriteByte('\n')
}

// Row writes a row of the table for a person.
func (p Page) Row(w io.Writer, row *trouble.Row) error {
	var b strings.Builder
	p.wrap(&b, "", 0, fmt.Sprintf("%s (%s): %s.", row.Name, row.State, row.Wrong))
	p.explain(&b, row, 0)
	if row.Source != "" {
		fmt.Fprintf(&b, "See %s\n", row.Source)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// JSON writes the findings for programs.
func (p Page) JSON(w io.Writer, h Host, all []Finding) error {
	type finding struct {
		Check    string        `json:"check"`
		State    trouble.State `json:"state"`
		Found    string        `json:"found,omitempty"`
		Row      string        `json:"row,omitempty"`
		Wrong    string        `json:"wrong,omitempty"`
		Means    string        `json:"means,omitempty"`
		Mend     string        `json:"mend,omitempty"`
		Commands []string      `json:"commands,omitempty"` // of the mend
		Source   string        `json:"source,omitempty"`
	}
	report := struct {
		State    trouble.State `json:"state"` // the worst
		System   string        `json:"system"`
		Findings []finding     `json:"findings"`
		Silent   []string      `json:"silent,omitempty"` // what gave no answer in time
	}{State: Worst(all), System: h.System.Name, Findings: []finding{}, Silent: h.Silent}
	for _, f := range all {
		j := finding{Check: f.Check, State: f.State, Found: f.Found}
		if f.Row != nil {
			j.Row, j.Wrong, j.Means, j.Mend, j.Source = f.Row.Name, f.Row.Wrong, f.Row.Means, p.mend(f.Row), f.Row.Source
			j.Commands = trouble.Commands(j.Mend)
		}
		report.Findings = append(report.Findings, j)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(report)
}
