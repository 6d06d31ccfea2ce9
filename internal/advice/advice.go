// Package advice keeps what a person can do about an error apart from what is
// wrong. Errors carry it as a value, through every wrapping, and only the edge that
// shows them knows what was typed, and turns advice into words.
package advice

import (
	"fmt"
	"slices"
	"strings"
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

// Text is an error as a person reads it: what is wrong and, after that, each piece of
// advice in its chain, once. berth is the command that was typed, such as "go tool mage".
func Text(err error, berth string) string {
	text := strings.TrimSpace(err.Error())
	var all []string
	collect(err, &all)
	for i, a := range all {
		if slices.Contains(all[:i], a) {
			continue
		}
		if !strings.HasSuffix(text, ".") && !strings.Contains(text[strings.LastIndexByte(text, '\n')+1:], "\t") {
			text += "."
		}
		separator := " "
		if strings.Contains(text, "\n") {
			separator = "\n"
		}
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
