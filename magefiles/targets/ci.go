package targets

import (
	"context"
	"fmt"
	"os"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

// CI runs lint, the unit tests and the build side by side, then the smoke commands in
// the image, and last verify. Report and logs go to artifacts/ci. On GitHub it adds the
// report to the job's page, and what failed as annotations.
func CI(
	ctx context.Context,
	only *string, // run these stages alone: lint,unit,build,smoke,verify
	in *string, // where the unit tests run: host (default), or image, in the image's test stage without a network
	g *string, // GPUs for the smoke commands: 0 (default: the first, if any), all, none, 2,3, auto, auto:2 (idle ones), UUIDs or their beginnings
	through *string, // how the smoke commands run, as for smoke: docker, dagger or auto
	o *string, // folder for the report and the logs (default: artifacts/ci)
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, progress *progress.Reporter) error {
		options := ci.PipelineOptions{Folder: deref(o), Only: deref(only), GPUs: deref(g), Through: deref(through), Report: progress}
		switch deref(in) {
		case "", "host":
		case "image":
			options.InImage = true
		default:
			return fmt.Errorf("-in: %w: %q is neither host nor image", usage.Err, deref(in))
		}
		report, failed := ci.Pipeline(ctx, p, options)
		progress.Close()
		if err := showReport(report); err != nil {
			return err
		}
		return failed
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
