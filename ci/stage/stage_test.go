package stage

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// passes and fails are stages that do nothing else.
func passes(name string, after ...string) Stage {
	return New(name, after, func(context.Context, *Recorder) error { return nil })
}

func fails(name string, after ...string) Stage {
	return New(name, after, func(_ context.Context, r *Recorder) error {
		fmt.Fprintln(r.Log, "what it said")
		return errors.New("broken\non purpose")
	})
}

func states(results []Result) string {
	var all []string
	for _, r := range results {
		all = append(all, r.Stage+" "+string(r.State))
	}
	return strings.Join(all, ", ")
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		stages []Stage
		want   string
	}{
		"all pass":                       {[]Stage{passes("a"), passes("b", "a")}, "a passed, b passed"},
		"what waits doesn't run":         {[]Stage{fails("a"), passes("b", "a"), passes("c", "b"), passes("d")}, "a failed, b skipped, c skipped, d passed"},
		"the first reason is kept":       {[]Stage{fails("a"), fails("b"), passes("c", "a", "b")}, "a failed, b failed, c skipped"},
		"one failure doesn't end others": {[]Stage{fails("a"), passes("b")}, "a failed, b passed"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "ci")
			results, err := Run(t.Context(), folder, c.stages, nil)
			require.NoError(t, err)
			assert.Equal(t, c.want, states(results))
			for _, r := range results {
				if r.State == Failed {
					text, err := os.ReadFile(r.Log)
					require.NoError(t, err)
					assert.Equal(t, "what it said\n", string(text))
				}
			}
		})
	}
}

// TestRunSideBySide has two stages that each need the other at work.
func TestRunSideBySide(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	meet := func(context.Context, *Recorder) error {
		both.Done()
		both.Wait()
		return nil
	}
	results, err := Run(t.Context(), t.TempDir(), []Stage{New("a", nil, meet), New("b", nil, meet)}, nil)
	require.NoError(t, err)
	assert.Equal(t, "a passed, b passed", states(results))
}

func TestChecksDecide(t *testing.T) {
	s := New("unit", nil, func(_ context.Context, r *Recorder) error {
		r.Add(Check{Name: "x"})
		r.Add(Check{Name: "y", Failure: "no"})
		return nil
	})
	results, err := Run(t.Context(), t.TempDir(), []Stage{s}, nil)
	require.NoError(t, err)
	assert.Equal(t, Failed, results[0].State)
	assert.Equal(t, "1 of 2 checks failed", results[0].Why)
	assert.Equal(t, []Failure{{Stage: "unit", Name: "y", Text: "no"}}, Failures(results))
}

func TestOrderIsRefused(t *testing.T) {
	for _, stages := range [][]Stage{{passes("a", "b"), passes("b")}, {passes("a"), passes("a")}, {passes("a", "a")}} {
		_, err := Run(t.Context(), t.TempDir(), stages, nil)
		assert.Error(t, err)
	}
}

// report is one with everything in it.
func report() Report {
	return Report{
		Project: "demo|cnn", Image: "demo:latest", Digest: "sha256:12", Started: time.Unix(0, 0).UTC(), Seconds: 12,
		Stages: []Result{
			{Stage: "lint", State: Passed, Seconds: 1, Checks: []Check{{Name: "pins"}}},
			{Stage: "unit", State: Failed, Seconds: 2, Why: "1 of 3 checks failed", Err: errors.New("x"), Log: "ci/unit.log", Checks: []Check{
				{Name: "TestA", Group: "pkg", Seconds: 0.5},
				{Name: "TestB", Group: "pkg", Failure: "a_test.go:3: want 1, have <2>\n```\x1b[31m% done"},
				{Name: "TestC", Group: "pkg", Skipped: "no network"},
			}},
			{Stage: "build", State: Failed, Seconds: 3, Why: "the step failed\nRUN false", Err: errors.New("x")},
			{Stage: "smoke", State: Skipped, Why: "build failed", Notes: []string{"NO GPU here: on the CPU"},
				Curves: []Curve{{Name: "loss", Steps: []float64{0, 10, 20}, Losses: []float64{2.3, 1.1, 0.5}}}},
		},
	}
}

func TestFiles(t *testing.T) {
	files, err := report().Files("ci")
	require.NoError(t, err)
	for name, text := range files {
		golden := filepath.Join("testdata", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			require.NoError(t, os.WriteFile(golden, text, 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(text), name)
	}
	assert.Equal(t, "::error title=unit%3A pkg TestB::a_test.go:3: want 1, have <2>%0A```\x1b[31m%25 done\n"+
		"::error title=build%3A build::the step failed%0ARUN false\n"+
		"::notice title=smoke::NO GPU here: on the CPU\n", report().Annotations())
}

// GitHub refuses a page that is too large, and then shows none.
func TestPageOfManyFailures(t *testing.T) {
	long := strings.Repeat("what it said\n", 1<<17) + "and last\n"
	var checks []Check
	for i := range 100 {
		checks = append(checks, Check{Name: fmt.Sprint(i), Failure: long})
	}
	page := Report{Stages: []Result{{Stage: "unit", State: Failed, Checks: checks}}}.Markdown()
	assert.Less(t, len(page), 1<<20)
	shown := strings.Count(page, "</details>")
	assert.Equal(t, shown, strings.Count(page, "\nand last\n"))
	assert.Greater(t, shown, 10)
	assert.Contains(t, page, fmt.Sprintf("And %d more", 100-shown))
}

// TestJUnitReadsBack reads what was written: readers of others find the same.
func TestJUnitReadsBack(t *testing.T) {
	text, err := report().JUnit()
	require.NoError(t, err)
	checks, err := ReadJUnit(text)
	require.NoError(t, err)
	var names []string
	for _, c := range checks {
		state := "ok"
		if c.Failure != "" {
			state = "failed"
		} else if c.Skipped != "" {
			state = "skipped"
		}
		names = append(names, c.Group+" "+c.Name+" "+state)
	}
	assert.Equal(t, []string{"lint pins ok", "unit pkg TestA ok", "unit pkg TestB failed", "unit pkg TestC skipped",
		"build build failed", "smoke smoke skipped"}, names)
}

func TestReadJUnit(t *testing.T) {
	// As pytest 8 writes it.
	checks, err := ReadJUnit([]byte(`<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1">
		<testcase classname="tests.test_a" name="test_ok" time="0.25" />
		<testcase classname="tests.test_a" name="test_no" time="0.1"><failure message="assert 1 == 2">def test_no(): ...</failure></testcase>
		<testcase classname="tests.test_a" name="test_err"><error message="failed on setup" /></testcase>
		<testcase classname="tests.test_a" name="test_skip"><skipped type="pytest.skip" message="no GPU" /></testcase>
	</testsuite></testsuites>`))
	require.NoError(t, err)
	assert.Equal(t, []Check{
		{Name: "test_ok", Group: "tests.test_a", Seconds: 0.25},
		{Name: "test_no", Group: "tests.test_a", Seconds: 0.1, Failure: "def test_no(): ..."},
		{Name: "test_err", Group: "tests.test_a", Failure: "failed on setup"},
		{Name: "test_skip", Group: "tests.test_a", Skipped: "no GPU"},
	}, checks)
	for _, bad := range []string{"", "<html/>", "<testsuite>", "nothing"} {
		_, err := ReadJUnit([]byte(bad))
		assert.ErrorContains(t, err, "JUnit", bad)
	}
}

func FuzzReadJUnit(f *testing.F) {
	f.Add([]byte(`<testsuite><testcase name="x"><failure/></testcase></testsuite>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		checks, err := ReadJUnit(text)
		if err != nil {
			return
		}
		again, err := Report{Stages: []Result{{Stage: "s", State: Passed, Checks: checks}}}.JUnit()
		require.NoError(t, err)
		require.NoError(t, xml.Unmarshal(again, new(junitSuites)))
	})
}

func TestReadGoTest(t *testing.T) {
	output, err := os.ReadFile("testdata/gotest.json")
	require.NoError(t, err)
	checks := ReadGoTest(output)
	var have []string
	for _, c := range checks {
		have = append(have, fmt.Sprintf("%s %s %t %t", c.Group, c.Name, c.Failure != "", c.Skipped != ""))
	}
	assert.Equal(t, []string{"x/b package true false", "x/a TestFine false false", "x/a TestNo true false", "x/a TestLater false true"}, have)
	assert.Contains(t, checks[2].Failure, "a_test.go:9: no")
	assert.Contains(t, checks[0].Failure, "b_test.go:4:13")
	assert.Empty(t, ReadGoTest([]byte("ok x 0.1s\n{}\n{\"Action\":1}\n")))
}

func FuzzReadGoTest(f *testing.F) {
	f.Add([]byte(`{"Action":"fail","Package":"x","Test":"TestA","Elapsed":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, c := range ReadGoTest(text) {
			assert.False(t, c.Failure != "" && c.Skipped != "")
		}
	})
}

func TestReadLosses(t *testing.T) {
	c := ReadLosses("loss", []byte("0 2.5\nstep loss\n1 NaN\n2 1e-1\n3 +Inf\n\n4"))
	assert.Equal(t, Curve{Name: "loss", Steps: []float64{0, 2}, Losses: []float64{2.5, 0.1}}, c)
}
