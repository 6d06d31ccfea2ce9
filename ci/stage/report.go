package stage

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// A Report is a whole run of a pipeline.
type Report struct {
	Project string    `json:"project"`
	Image   string    `json:"image,omitempty"`  // that was built
	Digest  string    `json:"digest,omitempty"` // of its manifest
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Stages  []Result  `json:"stages"`
}

// Passed reports whether every stage passed.
func (r Report) Passed() bool {
	for _, s := range r.Stages {
		if s.State != Passed {
			return false
		}
	}
	return true
}

// JSON is the report for programs.
func (r Report) JSON() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	return append(data, '\n'), err
}

type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
		Cases    []junitCase  `xml:"testcase"`
	}
	junitCase struct {
		Class   string     `xml:"classname,attr"`
		Name    string     `xml:"name,attr"`
		Time    string     `xml:"time,attr"`
		Failure *junitText `xml:"failure"`
		Error   *junitText `xml:"error"` // only read: other programs write it
		Skipped *junitText `xml:"skipped"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit is the report as JUnit XML, in the form that its readers agree on: a suite for
// each stage, and a case for each check. A stage without checks is a case itself.
func (r Report) JUnit() ([]byte, error) {
	all := junitSuites{Name: r.Project, Time: seconds(r.Seconds)}
	for _, s := range r.Stages {
		suite := junitSuite{Name: s.Stage, Time: seconds(s.Seconds)}
		for _, c := range s.cases() {
			one := junitCase{Class: strings.TrimSpace(s.Stage + " " + c.Group), Name: c.Name, Time: seconds(c.Seconds)}
			if c.Failure != "" {
				first, _, _ := strings.Cut(c.Failure, "\n")
				one.Failure = &junitText{Message: valid(first), Text: valid(c.Failure)}
				suite.Failures++
			} else if c.Skipped != "" {
				one.Skipped = &junitText{Message: valid(c.Skipped)}
				suite.Skipped++
			}
			suite.Cases = append(suite.Cases, one)
		}
		suite.Tests = len(suite.Cases)
		all.Tests += suite.Tests
		all.Failures += suite.Failures
		all.Suites = append(all.Suites, suite)
	}
	data, err := xml.MarshalIndent(all, "", "  ")
	return append([]byte(xml.Header), append(data, '\n')...), err
}

// cases are the checks of a stage, and the stage itself if they don't say what became of it.
func (r Result) cases() []Check {
	self := Check{Name: r.Stage, Seconds: r.Seconds}
	switch {
	case r.State == Skipped:
		self.Skipped = r.Why
	case r.State == Failed && r.failed() == 0:
		self.Failure = r.Why
	case len(r.Checks) > 0:
		return r.Checks
	}
	return append([]Check{self}, r.Checks...)
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// valid leaves out what XML can't have, such as the colours of a terminal.
func valid(text string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' || c >= 0x20 && c != 0xfffe && c != 0xffff {
			return c
		}
		return -1
	}, strings.ToValidUTF8(text, "�"))
}

// Annotations are GitHub's workflow commands that put what failed on its pages, a line
// each. A stage's notes become notices.
// (docs.github.com, "Workflow commands for GitHub Actions".)
func (r Report) Annotations() string {
	var b strings.Builder
	b.WriteString(Annotations(Failures(r.Stages)))
	for _, s := range r.Stages {
		for _, n := range s.Notes {
			fmt.Fprintf(&b, "::notice title=%s::%s\n", property(s.Stage), data(n))
		}
	}
	return b.String()
}

// Annotations are those of failures.
func Annotations(failures []Failure) string {
	var b strings.Builder
	for _, f := range failures {
		place := ""
		if f.File != "" {
			place = fmt.Sprintf("file=%s,line=%d,", property(f.File), f.Line)
		}
		fmt.Fprintf(&b, "::error %stitle=%s::%s\n", place, property(f.Stage+": "+f.Name), data(f.Text))
	}
	return b.String()
}

// data and property escape what workflow commands give a meaning to.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func property(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

// GitHub takes a page of 1 MiB at most, and none that is larger (docs.github.com, "Workflow
// commands", "Step isolation and limits"). The end of a long text says the most.
const (
	pageSize = 1 << 20
	textSize = 64 << 10
)

// lastOf is the end of a text, from a line's beginning, if it is long.
func lastOf(text string) string {
	if len(text) <= textSize {
		return text
	}
	_, end, _ := strings.Cut(text[len(text)-textSize:], "\n")
	return "…\n" + end
}

// Markdown is the report as a page: what a person wants to see at once.
func (r Report) Markdown() string {
	var b strings.Builder
	verdict := "passed"
	if !r.Passed() {
		verdict = "failed"
	}
	fmt.Fprintf(&b, "## %s: %s\n\n", cell(r.Project), verdict)
	if r.Digest != "" {
		fmt.Fprintf(&b, "Image `%s`, `%s`\n\n", r.Image, r.Digest)
	}
	b.WriteString("| stage | | time | checks | |\n|---|---|---:|---:|---|\n")
	for _, s := range r.Stages {
		mark := map[State]string{Passed: "✅", Failed: "❌", Skipped: "⏭️"}[s.State]
		checks := ""
		if len(s.Checks) > 0 {
			checks = fmt.Sprintf("%d of %d", len(s.Checks)-s.failed(), len(s.Checks))
		}
		why, _, _ := strings.Cut(s.Why, "\n")
		fmt.Fprintf(&b, "| %s | %s | %.1f s | %s | %s |\n", s.Stage, mark, s.Seconds, checks, cell(why))
	}
	for _, s := range r.Stages {
		for _, n := range s.Notes {
			fmt.Fprintf(&b, "\n**%s**\n", cell(n))
		}
	}
	failures := Failures(r.Stages)
	for i, f := range failures {
		if b.Len() > pageSize-4*textSize {
			fmt.Fprintf(&b, "\nAnd %d more: report.json has them.\n", len(failures)-i)
			break
		}
		fmt.Fprintf(&b, "\n<details><summary>%s: %s</summary>\n\n%s\n</details>\n", f.Stage, html(f.Name), fence(valid(lastOf(f.Text))))
	}
	for _, s := range r.Stages {
		for _, c := range s.Curves {
			b.WriteString("\n" + c.mermaid())
		}
	}
	return b.String()
}

// curvePoints is how many points of a curve a page shows: more don't fit in its width.
const curvePoints = 60

// mermaid is the curve as a chart, in the language that GitHub draws
// (mermaid.js.org, "XY Chart").
func (c Curve) mermaid() string {
	n := min(len(c.Losses), curvePoints)
	if n < 2 {
		return ""
	}
	var losses []string
	for i := range n {
		losses = append(losses, fmt.Sprintf("%.4g", c.Losses[i*(len(c.Losses)-1)/(n-1)]))
	}
	return fmt.Sprintf("```mermaid\nxychart-beta\n    title \"%s\"\n    x-axis \"step\" %g --> %g\n    y-axis \"loss\"\n    line [%s]\n```\n",
		strings.NewReplacer(`"`, "'", "\n", " ").Replace(c.Name), c.Steps[0], c.Steps[len(c.Steps)-1], strings.Join(losses, ", "))
}

// cell is text that a table's cell, and a paragraph, show as it is.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`, "_", `\_`, "`", "\\`", "<", "&lt;").Replace(s)
}

func html(s string) string { return strings.NewReplacer("&", "&amp;", "<", "&lt;").Replace(s) }

// fence is text that is shown as it is, whatever it contains.
func fence(s string) string {
	mark := "```"
	for strings.Contains(s, mark) {
		mark += "`"
	}
	return mark + "\n" + strings.TrimSuffix(s, "\n") + "\n" + mark
}

// The files that Files returns.
const (
	JUnitFile   = "junit.xml"
	JSONFile    = "report.json"
	SummaryFile = "summary.md"
)

// Files are the report in all of its forms, by the names of the files. Logs are named
// relative to the folder that the files are for.
func (r Report) Files(folder string) (map[string][]byte, error) {
	stages := append([]Result(nil), r.Stages...)
	for i := range stages {
		if rel, err := filepath.Rel(folder, stages[i].Log); err == nil && stages[i].Log != "" {
			stages[i].Log = filepath.ToSlash(rel)
		}
	}
	r.Stages = stages
	asJSON, err := r.JSON()
	if err != nil {
		return nil, err
	}
	junit, err := r.JUnit()
	return map[string][]byte{JSONFile: asJSON, JUnitFile: junit, SummaryFile: []byte(r.Markdown())}, err
}
