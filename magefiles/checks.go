//go:build mage

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

// Test checks everything: format, vet, staticcheck, pins, workflows, then every test,
// with the race detector, the whole pipeline on a real engine included.
func Test(
	ctx context.Context,
	short *bool, // leave out the tests that take minutes
	long *bool, // more rounds and more kills where tests are random; takes an hour or more
	run *string, // only the tests that match this pattern
) error {
	return berth.Do(ctx, func(ctx context.Context, p ci.Project, _ *progress.Reporter) error {
		if set(short) && set(long) {
			return fmt.Errorf("-long: %w: it and -short exclude each other. Give one of them", usage.Err)
		}
		if err := check(ctx, p); err != nil {
			return err
		}
		args, race := []string{"test", "-timeout=80m"}, "-race=false"
		if set(long) {
			os.Setenv("BERTH_TEST_LONG", "1")
			args[1] = "-timeout=4h"
		}
		// The race detector needs a C compiler.
		if cgo, err := output(ctx, p, "go", "env", "CGO_ENABLED"); err != nil {
			return err
		} else if strings.TrimSpace(cgo) == "1" {
			race = "-race"
		} else if slices.Contains(strings.Split(os.Getenv("BERTH_TEST_REQUIRE"), ","), "cgo") {
			return errors.New("BERTH_TEST_REQUIRE lists cgo, but there is no C compiler. Install gcc, or set CGO_ENABLED=1 where it is off")
		} else {
			fmt.Fprintln(os.Stderr, "No C compiler, so no race detector: the tests run without it")
		}
		if set(short) {
			args = append(args, "-short")
		}
		if run != nil {
			args = append(args, "-run="+*run)
		}
		// Two packages at a time, on however many cores: they share one Docker, for which
		// they wait half of the time.
		return errors.Join(
			command(ctx, p, "go", slices.Concat(args, []string{race, "-p=2", "./..."})...),
			// It skips under the race detector what takes minutes there.
			command(ctx, p, "go", slices.Concat(args, []string{"./trainer/cuda"})...),
		)
	})
}

// PinEngine does for the packages around the engine, and around apt, which travel in the
// module, what pin does for those of the image.
func PinEngine(ctx context.Context) error {
	return berth.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		changes, err := ci.Pin(ctx, enginePins(p), ci.PinOptions{Report: report})
		report.Close()
		for _, c := range changes {
			fmt.Println(c)
		}
		return err
	})
}

func enginePins(p ci.Project) ci.Project {
	return ci.Project{Root: p.Root, Inputs: []input.Input{engine.Packages, debian.Apt}}
}

// Bench measures speed and memory, each beside a peer in the same run. The
// figures of docs/benchmarks.md come from it.
func Bench(
	ctx context.Context,
	run *string, // only the benchmarks that match this pattern
) error {
	return berth.Do(ctx, func(ctx context.Context, p ci.Project, _ *progress.Reporter) error {
		pattern := "."
		if run != nil {
			pattern = *run
		}
		return command(ctx, p, "go", "test", "-p=1", "-timeout=80m", "-run=^$", "-bench="+pattern, "-benchmem", "./...")
	})
}

// Check checks format, vet, staticcheck, pins and workflows, and what isn't pinned.
func Check(ctx context.Context) error {
	return berth.Do(ctx, func(ctx context.Context, p ci.Project, _ *progress.Reporter) error { return check(ctx, p) })
}

func check(ctx context.Context, p ci.Project) error {
	unformatted, err := output(ctx, p, "gofmt", "-l", ".")
	if err != nil {
		return err
	}
	if unformatted != "" {
		return fmt.Errorf("these files aren't formatted. Type: gofmt -w .\n%s", unformatted)
	}
	return errors.Join(
		ci.CheckPins(p),
		ci.CheckPins(enginePins(p)),
		ci.CheckWorkflows(p),
		ci.CheckUnpinned(ctx, p),
		command(ctx, p, "go", "vet", "./..."),
		command(ctx, p, "go", "vet", "-tags=mage", "./magefiles"),
		command(ctx, p, "go", "tool", "staticcheck", "./..."),
		command(ctx, p, "go", "tool", "staticcheck", "-tags=mage", "./magefiles"),
	)
}

// command runs a program in the checkout, and shows its output as it comes.
// (mage's sh ignores the context and expands $ in arguments.)
func command(ctx context.Context, p ci.Project, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stdout, c.Stderr = p.Root, os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func output(ctx context.Context, p ci.Project, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Stderr = p.Root, os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}

func set(flag *bool) bool { return flag != nil && *flag }
