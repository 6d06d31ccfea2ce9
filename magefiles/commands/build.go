package commands

import (
	"context"
	"fmt"
	"strings"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
	"github.com/berthdev/berth/magefiles/targets"
)

// Build carries out targets.Build.
func (c Set) Build(ctx context.Context, f targets.BuildFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Build(ctx, p, ci.BuildOptions{Tag: f.Tag, Output: f.Output, From: f.From, Locked: f.Locked, Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(result)
		}
		done := fmt.Sprintf("built in %.1f s", result.Seconds)
		switch {
		case result.Cached:
			done = "up to date"
		case result.Pulled != "":
			done = fmt.Sprintf("pulled from %s in %.1f s", result.Pulled, result.Seconds)
		}
		fmt.Printf("%s %s (%s)\n", result.Image, result.Digest, done)
		return nil
	})
}

// Verify carries out targets.Verify.
func (c Set) Verify(ctx context.Context, f targets.VerifyFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		if f.Image == "" && f.Key != "" {
			return fmt.Errorf("-key: %w: it is for -image. Add that", usage.Err)
		}
		if f.Image != "" {
			return verifyImage(ctx, p, f, report)
		}
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

func verifyImage(ctx context.Context, p ci.Project, f targets.VerifyFlags, report *progress.Reporter) error {
	result, err := ci.VerifyImage(ctx, p, ci.VerifyImageOptions{Image: f.Image, Key: f.Key, Locked: f.Locked, Report: report})
	report.Close()
	if err != nil {
		return err
	}
	if f.JSON {
		return printJSON(result)
	}
	fmt.Printf("%s %s: this checkout builds it, bit for bit\n", result.Image, result.Digest)
	return nil
}

// Publish carries out targets.Publish.
func (c Set) Publish(ctx context.Context, f targets.PublishFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Publish(ctx, p, ci.PublishOptions{To: f.To, Key: f.Key, Locked: f.Locked, Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(result)
		}
		fmt.Printf("%s@%s\n", result.Image, result.Digest)
		return nil
	})
}

// Pin carries out targets.Pin.
func (c Set) Pin(ctx context.Context, f targets.PinFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		switch {
		case f.Check && f.Dry:
			return fmt.Errorf("-check: %w: it and -dry exclude each other. Give one of them", usage.Err)
		case f.Base && (f.Check || f.Dry):
			return fmt.Errorf("-base: %w: it goes without -check and -dry. Leave them out", usage.Err)
		case f.JSON && !f.Dry:
			return fmt.Errorf("-json: %w: it is for -dry. Add that", usage.Err)
		case f.Check:
			return ci.CheckPins(p)
		case f.Dry:
			return printResolved(ctx, p, f.JSON, report)
		}
		var changes []string
		var err error
		if f.Base {
			report.Update("Asking registries for the digests of base images")
			changes, err = ci.PinBases(ctx, p)
		} else {
			changes, err = ci.Pin(ctx, p, ci.PinOptions{Report: report})
		}
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

func printResolved(ctx context.Context, p ci.Project, json bool, report *progress.Reporter) error {
	items, err := ci.Resolve(ctx, p, ci.PinOptions{Report: report})
	report.Close()
	if err != nil {
		return err
	}
	if json {
		return printJSON(items)
	}
	for _, i := range items {
		fmt.Println(i.Name, i.Version)
	}
	return nil
}

// Why carries out targets.Why.
func (c Set) Why(ctx context.Context, name string) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		chains, err := ci.Why(ctx, p, name, ci.PinOptions{Report: report})
		report.Close()
		if err != nil {
			return err
		}
		for _, chain := range chains {
			fmt.Println(strings.Join(chain, "\n\t<- "))
		}
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
