// Package advice keeps what a person can do about an error apart from what is
// wrong. Errors carry it as a value, through every wrapping, and only the edge that
// shows them knows what was typed, and turns advice into words.
package advice

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// Berth stands in advice for the command that a person typed to call Berth, to
// which the name of a target is added: "Type\n\t" + advice.Berth + " pin".
const Berth = "{berth}"

// advised is an error with advice.
type advised struct {
	error
	text string
}

func (a advised) Unwrap() error { return a.error }

// With adds advice to an error, which keeps its text; nil stays nil.
func With(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return advised{err, fmt.Sprintf(format, args...)}
}

// About adds the row of the table that explains an error: its advice is what mends it on
// the machine where the error is shown, and how to read the whole row. The error keeps
// its text; nil stays nil.
func About(err error, row *trouble.Row) error { return With(err, "{row %s}", row.Name) }

// rowName stands in advice for the mend of a row.
var rowName = regexp.MustCompile(`\{row ([a-z0-9-]+)\}`)

// Row is the row that an error is about, the outermost if there are several; nil if it
// is about none.
func Row(err error) *trouble.Row {
	for _, text := range Of(err) {
		if m := rowName.FindStringSubmatch(text); m != nil {
			row, _ := trouble.Find(m[1])
			return row
		}
	}
	return nil
}

// mend is what a row advises on a system.
func mend(row string, on trouble.System) string {
	name := rowName.FindStringSubmatch(row)[1]
	r, err := trouble.Find(name)
	if err != nil {
		return row // no row has ever had the name: a test looks at all of them
	}
	return r.Mend.On(on) + "\nMore:\n\t" + Berth + " doctor -row=" + name
}

// Text is an error as a person reads it: what is wrong and, after that, each piece of
// advice in its chain, once. berth is the command that was typed, such as "go tool mage".
// What depends on the distribution is for this machine's.
func Text(err error, berth string) string { return TextOn(err, berth, trouble.Here()) }

// TextOn is Text for a distribution.
func TextOn(err error, berth string, on trouble.System) string {
	text := strings.TrimSpace(err.Error())
	if text == "" {
		text = "it failed"
	}
	var all []string
	collect(err, &all)
	for i, a := range all {
		if slices.Contains(all[:i], a) {
			continue
		}
		if !strings.ContainsAny(text[len(text)-1:], ".?!") && !strings.Contains(text[strings.LastIndexByte(text, '\n')+1:], "\t") {
			text += "."
		}
		separator := " "
		if strings.Contains(text, "\n") {
			separator = "\n"
		}
		a = rowName.ReplaceAllStringFunc(a, func(row string) string { return mend(row, on) })
		text += separator + strings.ReplaceAll(a, Berth, berth)
	}
	return text
}

// Of returns each piece of advice in an error's chain, the outermost first.
func Of(err error) (all []string) {
	collect(err, &all)
	return all
}

// collect lists the advice in an error's chain, the outermost first.
func collect(err error, all *[]string) {
	if a, ok := err.(advised); ok {
		*all = append(*all, a.text)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			collect(inner, all)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			collect(inner, all)
		}
	}
}
