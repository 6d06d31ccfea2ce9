package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"time"

	"github.com/berthdev/berth/trainer/internal/atomic"
)

// A Case is one check, with how long it took.
type Case struct {
	Name   string
	Detail string // what was found
	Err    error  // nil if it passed
	Took   time.Duration
	Losses []float64 // of the steps, if it trained
}

// WriteJUnit writes the outcome of checks as JUnit XML, whole or not at all.
func WriteJUnit(name, suite string, cases []Case) error {
	type failure struct {
		Message string `xml:"message,attr"`
	}
	type testcase struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Time    string   `xml:"time,attr"`
		Failure *failure `xml:"failure"`
		Out     string   `xml:"system-out,omitempty"`
	}
	out := struct {
		XMLName  xml.Name   `xml:"testsuite"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Time     string     `xml:"time,attr"`
		Cases    []testcase `xml:"testcase"`
	}{Name: suite, Tests: len(cases)}
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	var total time.Duration
	for _, c := range cases {
		t := testcase{Name: c.Name, Class: suite, Time: seconds(c.Took), Out: c.Detail}
		if c.Err != nil {
			t.Failure = &failure{c.Err.Error()}
			out.Failures++
		}
		total += c.Took
		out.Cases = append(out.Cases, t)
	}
	out.Time = seconds(total)
	err := atomic.WriteFile(name, func(w io.Writer) error {
		if _, err := io.WriteString(w, xml.Header); err != nil {
			return err
		}
		encoder := xml.NewEncoder(w)
		encoder.Indent("", "  ")
		if err := encoder.Encode(out); err != nil {
			return err
		}
		_, err := io.WriteString(w, "\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("JUnit: %w", err)
	}
	return nil
}
