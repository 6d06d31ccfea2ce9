package ci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/ci/lint"
	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/internal/advice"
)

// ErrUnpinned is in the chain of the error for a project that has something unpinned.
var ErrUnpinned = errors.New("not everything is pinned")

// LintOptions says what to do about what isn't pinned.
type LintOptions struct {
	Fix bool // look digests and commits up, and write them
}

// LintResult is what isn't pinned in a project.
type LintResult struct {
	Fixed    []lint.Finding `json:"fixed"`    // and is now
	Findings []lint.Finding `json:"findings"` // and is left
}

// Lint finds what a project takes from elsewhere without a pin. Its error wraps
// ErrUnpinned if something is left.
func Lint(ctx context.Context, p Project, o LintOptions) (LintResult, error) {
	r := LintResult{Fixed: []lint.Finding{}, Findings: []lint.Finding{}}
	found, err := lint.Project(ctx, p.Root)
	if err != nil {
		return r, err
	}
	left := found
	if o.Fix {
		var fixed []lint.Finding
		fixed, left, err = lint.Fix(ctx, p.Root, found)
		r.Fixed = append(r.Fixed, fixed...)
	}
	r.Findings = append(r.Findings, left...)
	return r, errors.Join(err, unpinned(left, o))
}

// unpinned is the error for what is left, nil if nothing.
func unpinned(left []lint.Finding, o LintOptions) error {
	if len(left) == 0 {
		return nil
	}
	err := fmt.Errorf("%w: %s", ErrUnpinned, stage.Plural(len(left), "finding"))
	if !o.Fix && slices.ContainsFunc(left, func(f lint.Finding) bool { return f.Fixable }) {
		err = advice.With(err, "To have digests and commits looked up and written, type\n\t%s lint -fix", advice.Berth)
	}
	return err
}

// CheckUnpinned is Lint as one error, which lists what was found.
func CheckUnpinned(ctx context.Context, p Project) error {
	r, err := Lint(ctx, p, LintOptions{})
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, f.String())
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w\n%s", err, strings.Join(lines, "\n"))
}

// unpinned records what isn't pinned: a check for each, or one that all is.
func (l *pipeline) unpinned(ctx context.Context, r *stage.Recorder) error {
	start := time.Now()
	found, err := Lint(ctx, l.project, LintOptions{})
	if err != nil && !errors.Is(err, ErrUnpinned) {
		return err
	}
	for _, f := range found.Findings {
		r.Add(stage.Check{Name: fmt.Sprintf("%s %s:%d", f.Rule, f.File, f.Line), Failure: f.Text + ". " + f.Mend, File: f.File, Line: f.Line})
	}
	if len(found.Findings) == 0 {
		r.Add(stage.Check{Name: "unpinned", Seconds: time.Since(start).Seconds()})
	}
	return nil
}
