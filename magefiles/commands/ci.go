package commands

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
	"github.com/berthdev/berth/magefiles/targets"
)

// CI carries out targets.CI.
func (c Set) CI(ctx context.Context, f targets.CIFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, progress *progress.Reporter) error {
		options := ci.PipelineOptions{Folder: f.Output, Only: f.Only, GPUs: f.GPUs, Through: f.Through, Report: progress}
		switch f.In {
		case "", "host":
		case "image":
			options.InImage = true
		default:
			return fmt.Errorf("-in: %w: %q is neither host nor image", usage.Err, f.In)
		}
		report, failed := ci.Pipeline(ctx, p, options)
		progress.Close()
		return errors.Join(failed, showReport(report))
	})
}

// Lint carries out targets.Lint.
func (c Set) Lint(ctx context.Context, f targets.LintFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, _ *progress.Reporter) error {
		result, err := ci.Lint(ctx, p, ci.LintOptions{Fix: f.Fix})
		if f.JSON {
			return errors.Join(printJSON(result), err)
		}
		for _, f := range result.Fixed {
			fmt.Printf("%s:%d: %s: fixed\n", f.File, f.Line, f.Rule)
		}
		var failures []stage.Failure
		for _, f := range result.Findings {
			fmt.Println(f)
			failures = append(failures, stage.Failure{Stage: "lint", Name: f.Rule, Text: f.Text + ". " + f.Mend, File: f.File, Line: f.Line})
		}
		if os.Getenv("GITHUB_ACTIONS") == "true" {
			fmt.Print(stage.Annotations(failures))
		}
		return err
	})
}

// showReport prints what a person should see of a report, and gives GitHub what it shows.
func showReport(r stage.Report) error {
	for _, s := range r.Stages {
		for _, note := range s.Notes {
			fmt.Printf("%s: %s\n", s.Stage, note)
		}
	}
	for _, f := range stage.Failures(r.Stages) {
		fmt.Printf("\n--- %s: %s\n%s\n", f.Stage, f.Name, f.Text)
	}
	if r.Digest != "" {
		fmt.Println(r.Image, r.Digest)
	}
	if os.Getenv("GITHUB_ACTIONS") == "true" {
		fmt.Print(r.Annotations())
	}
	page := os.Getenv("GITHUB_STEP_SUMMARY")
	if page == "" || len(r.Stages) == 0 {
		return nil
	}
	f, err := os.OpenFile(page, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("adding the report to the job's page: %w", err)
	}
	_, err = f.WriteString(r.Markdown())
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
