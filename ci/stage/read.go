package stage

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
)

// ReadJUnit returns the checks of a JUnit XML file, as pytest and others write it.
func ReadJUnit(text []byte) ([]Check, error) {
	var root struct {
		XMLName xml.Name
		junitSuite
	}
	if err := xml.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("reading JUnit XML: %w", err)
	}
	if name := root.XMLName.Local; name != "testsuites" && name != "testsuite" {
		return nil, fmt.Errorf("reading JUnit XML: its root is <%s>, not <testsuites> or <testsuite>", name)
	}
	return root.checks(nil), nil
}

func (s junitSuite) checks(all []Check) []Check {
	for _, c := range s.Cases {
		seconds, _ := strconv.ParseFloat(c.Time, 64) // some leave it out
		one := Check{Name: c.Name, Group: c.Class, Seconds: seconds}
		for _, f := range []*junitText{c.Failure, c.Error} {
			if f != nil {
				one.Failure = f.text("failed")
			}
		}
		if c.Skipped != nil {
			one.Skipped = c.Skipped.text("skipped")
		}
		all = append(all, one)
	}
	for _, inner := range s.Suites {
		all = inner.checks(all)
	}
	return all
}

// text is all that the element says, and otherwise what there is to say.
func (t junitText) text(otherwise string) string {
	return cmp.Or(strings.TrimSpace(t.Text), strings.TrimSpace(t.Message), otherwise)
}

// ReadGoTest returns the tests in the output of go test -json (go doc test2json), in
// their order; other output has none. Tests within tests aren't listed on their own. A
// package that failed without a failing test, because it didn't compile for one, is a
// check itself.
func ReadGoTest(output []byte) (all []Check) {
	said := map[[2]string]*strings.Builder{}
	failed := map[string]bool{} // packages
	for line := range bytes.Lines(output) {
		var e struct {
			Action, Package, Test, Output, ImportPath, FailedBuild string
			Elapsed                                                float64
		}
		if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil || e.Package+e.ImportPath == "" {
			continue
		}
		test, _, inner := strings.Cut(e.Test, "/")
		key := [2]string{cmp.Or(e.Package, e.ImportPath), test}
		if said[key] == nil {
			said[key] = new(strings.Builder)
		}
		c := Check{Name: e.Test, Group: e.Package, Seconds: e.Elapsed}
		switch e.Action {
		case "output", "build-output":
			said[key].WriteString(e.Output)
			continue
		case "pass":
		case "fail":
			if build := said[[2]string{e.FailedBuild, ""}]; build != nil {
				said[key].WriteString(build.String())
			}
			c.Failure = cmp.Or(strings.TrimSpace(said[key].String()), "failed")
		case "skip":
			c.Skipped = cmp.Or(strings.TrimSpace(said[key].String()), "skipped")
		default:
			continue
		}
		switch {
		case inner:
		case e.Test != "":
			failed[e.Package] = failed[e.Package] || c.Failure != ""
			all = append(all, c)
		case c.Failure != "" && !failed[e.Package]:
			c.Name = "package"
			all = append(all, c)
		}
	}
	return all
}

// ReadLosses returns the curve in a file that a training wrote: lines of a step and a
// loss, as numbers with a blank between them. Other lines are left out.
func ReadLosses(name string, text []byte) (c Curve) {
	c.Name = name
	for line := range strings.Lines(string(text)) {
		var step, loss float64
		if n, _ := fmt.Sscanf(line, "%g %g", &step, &loss); n == 2 && step == step && loss-loss == 0 { // neither is NaN, the loss is finite
			c.Steps, c.Losses = append(c.Steps, step), append(c.Losses, loss)
		}
	}
	return c
}
