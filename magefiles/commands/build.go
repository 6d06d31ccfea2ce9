package commands

import (
	"context"
	"fmt"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/magefiles/targets"
)

// Build carries out targets.Build.
func (c Set) Build(ctx context.Context, f targets.BuildFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Build(ctx, p, ci.BuildOptions{Tag: f.Tag, Output: f.Output, Locked: f.Locked, Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(result)
		}
		done := fmt.Sprintf("built in %.1f s", result.Seconds)
		if result.Cached {
			done = "up to date"
		}
		fmt.Printf("%s %s (%s)\n", result.Image, result.Digest, done)
		return nil
	})
}

// Verify carries out targets.Verify.
func (c Set) Verify(ctx context.Context, f targets.VerifyFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Verify(ctx, p, ci.VerifyOptions{Locked: f.Locked, Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(result)
		}
		fmt.Printf("%s twice, bit for bit\n", result.Digest)
		return nil
	})
}

// Pin carries out targets.Pin.
func (c Set) Pin(ctx context.Context, f targets.PinFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		if f.Check {
			return ci.CheckPins(p)
		}
		changes, err := ci.Pin(ctx, p, ci.PinOptions{Report: report})
		report.Close()
		if err != nil {
			return err
		}
		for _, change := range changes {
			fmt.Println(change)
		}
		fmt.Printf("%d changes\n", len(changes))
		return nil
	})
}

// Materials carries out targets.Materials.
func (c Set) Materials(ctx context.Context, f targets.MaterialsFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		names, err := ci.Materials(ctx, p, ci.MaterialsOptions{Dir: f.Output, Locked: f.Locked, Report: report})
		report.Close()
		for _, name := range names {
			fmt.Println(name)
		}
		return err
	})
}

// Clean carries out targets.Clean.
func (c Set) Clean(ctx context.Context) error {
	return c.Do(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) error {
		swept, err := ci.Clean(ctx)
		for _, name := range swept.Removed {
			fmt.Println("removed", name)
		}
		for _, name := range swept.Left {
			fmt.Println("left", name)
		}
		if err == nil && len(swept.Removed)+len(swept.Left) == 0 {
			fmt.Println("no container and no volume was left behind")
		}
		return err
	})
}
