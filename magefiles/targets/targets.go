// Package targets has what people type. A magefile imports it, and sets the project:
//
//	//mage:import
//	"github.com/berthdev/berth/magefiles/targets"
//
//	var _ = targets.Use(ci.Project{})
//
// Targets do nothing by themselves: flags in, one call of another package, a line
// out. Exit codes: 0; 1 failure; 2 usage; 3 a prerequisite is missing; 4 pins or
// workflows differ; 130 interrupted; for run, those of docker run.
package targets

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/magefile/mage/mg"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// project is that of the magefile.
var project ci.Project

// Use sets the project. It is for a magefile's variable, which is set before any
// target runs. In a process that run -d started to keep a launch it doesn't return.
func Use(p ci.Project) struct{} {
	launch.KeepIfAsked()
	project = p
	return struct{}{}
}

// Build makes the pinned image and loads it into Docker. When nothing changed
// it is done at once.
func Build(
	ctx context.Context,
	t *string, // tag of the image (default: the project's name and :latest)
	o *string, // also write the image as an OCI archive to this file
	locked *bool, // fail when a locked package is gone, instead of taking the nearest version
	json *bool, // print the result as JSON
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Build(ctx, p, ci.BuildOptions{Tag: deref(t), Output: deref(o), Locked: deref(locked), Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if deref(json) {
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
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		result, err := ci.Verify(ctx, p, ci.VerifyOptions{Locked: deref(locked), Report: report})
		report.Close()
		if err != nil {
			return err
		}
		if deref(json) {
			return printJSON(result)
		}
		fmt.Printf("%s twice, bit for bit\n", result.Digest)
		return nil
	})
}

// Pin resolves what the project asks for as it is available now, writes the locks
// and the digest of the base stage, and prints what changed.
func Pin(
	ctx context.Context,
	check *bool, // change nothing; exit with 4 unless the locks are what is asked for
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		if deref(check) {
			return ci.CheckPins(p)
		}
		changes, err := ci.Pin(ctx, p, ci.PinOptions{Report: report})
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

// Materials writes what the Dockerfile takes in addition to the checkout's own
// files, such as rootfs.tar, so that plain docker build can build it too.
func Materials(
	ctx context.Context,
	o *string, // folder to write to (default: the root of the build context)
	locked *bool, // fail when a locked package is gone, instead of taking the nearest version
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		names, err := ci.Materials(ctx, p, ci.MaterialsOptions{Dir: deref(o), Locked: deref(locked), Report: report})
		report.Close()
		for _, name := range names {
			fmt.Println(name)
		}
		return err
	})
}

// Do finds the project and runs do until it ends or a signal asks it to, with progress
// on standard error. Its error is as mage wants it, with its exit code. It is for
// custom targets.
func Do(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	if err := session(ctx, do); err != nil {
		return mg.Fatal(ci.ExitCode(err), ci.Explain(err, typedCommand()))
	}
	return nil
}

func session(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	p, err := project.At(".")
	if err != nil {
		return err
	}
	report := progress.New(os.Stderr)
	defer report.Close()
	return signals.Explain(ctx, ci.Guard(func() error { return do(ctx, p, report) }))
}

// typedCommand is the command that a person typed to call a target: mage keeps the program
// that it compiles from magefiles in a folder of its own.
func typedCommand() string {
	program, err := filepath.Abs(os.Args[0])
	if err == nil && !strings.HasPrefix(program, mg.CacheDir()+string(filepath.Separator)) {
		return os.Args[0]
	}
	return "go tool mage"
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// deref is the value that an optional flag points to, or the zero value.
func deref[T any](flag *T) T {
	if flag == nil {
		var zero T
		return zero
	}
	return *flag
}
