//go:build mage

// Berth builds, tests and launches a GPU training container. Exit codes: 0; 1
// failure; 2 usage; 3 a prerequisite is missing; 4 pins differ; 130 interrupted;
// for run, those of docker run; for train, once it trains, those of the trainer.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/magefile/mage/mg"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// Build makes the pinned image and loads it into Docker. When nothing changed
// it is done at once.
func Build(
	ctx context.Context,
	t *string, // tag of the image (default: the project's name and :latest)
	o *string, // also write the image as an OCI archive to this file
	locked *bool, // fail when a locked package is gone, instead of taking the nearest version
	json *bool, // print the result as JSON
) error {
	return with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Build(ctx, p, ci.BuildOptions{Tag: or(t), Output: or(o), Locked: or(locked), Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if or(json) {
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

// Verify builds twice, each time on an engine with fresh state, and fails unless
// both images are the same bit for bit. It names what differs.
func Verify(
	ctx context.Context,
	locked *bool, // fail when a locked package is gone, instead of taking the nearest version
	json *bool, // print the result as JSON
) error {
	return with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Verify(ctx, p, ci.VerifyOptions{Locked: or(locked), Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if or(json) {
			return printJSON(result)
		}
		fmt.Printf("%s twice, bit for bit\n", result.Digest)
		return nil
	})
}

// Pin resolves docker/packages.toml against the Debian archive as it is now, takes
// the newest Go of the line in go.mod, writes docker/packages.lock,
// docker/golang.lock and docker/base.digest, and prints what changed.
func Pin(
	ctx context.Context,
	check *bool, // change nothing; exit with 4 unless the lock is what packages.toml asks for
) error {
	return with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		if or(check) {
			return ci.CheckPins(p)
		}
		changes, err := ci.Pin(ctx, p, report)
		report.Close()
		if err != nil {
			return err
		}
		for _, c := range changes {
			fmt.Println(c)
		}
		fmt.Printf("%d changes\n", len(changes))
		return nil
	})
}

// Materials writes what docker/Dockerfile takes beside the checkout's own files,
// rootfs.tar and golang.tar, so that plain docker build can build it too.
func Materials(
	ctx context.Context,
	o *string, // folder to write to (default: the checkout)
	locked *bool, // fail when a locked package is gone, instead of taking the nearest version
) error {
	return with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		names, err := ci.Materials(ctx, p, cmp.Or(or(o), p.Root), or(locked), report)
		report.Close()
		for _, name := range names {
			fmt.Println(name)
		}
		return err
	})
}

// Data fetches the data set that the image has, to work with it outside.
func Data(
	ctx context.Context,
	o *string, // folder to write to (default: data in the checkout)
	locked *bool, // fail when the locked package is gone, instead of taking the nearest version
) error {
	return with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		dir := cmp.Or(or(o), p.Path("data"))
		names, err := ci.Data(ctx, p, dir, or(locked), report)
		report.Close()
		for _, name := range names {
			fmt.Println(filepath.Join(dir, name))
		}
		return err
	})
}

// with is session, with the error as mage wants it: with its exit code.
func with(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	if err := session(ctx, do); err != nil {
		return mg.Fatal(ci.ExitCode(err), advice(err))
	}
	return nil
}

// session finds the checkout and runs do until it ends or a signal asks it to,
// with progress on standard error.
func session(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	root, err := ci.FindRoot(".")
	if err != nil {
		return err
	}
	p := project
	p.Root = root
	report := progress.New(os.Stderr)
	defer report.Close()
	return signals.Explain(ctx, ci.Guard(func() error { return do(ctx, p, report) }))
}

// advice is an error as a person reads it.
func advice(err error) string { return strings.TrimSpace(ci.Explain(err).Error()) }

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// or is the value that an optional flag points to, or the zero value.
func or[T any](flag *T) T {
	if flag == nil {
		var zero T
		return zero
	}
	return *flag
}
