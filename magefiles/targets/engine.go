package targets

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/magefile/mage/mg"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Engine is what becomes of the Dagger engine, which builds start by themselves.
type Engine mg.Namespace

// Status says which engines there are (the one that hands GPUs on is there once it was used), whether they are those that
// would be used, and how large their state is.
func (Engine) Status(
	ctx context.Context,
	json *bool, // print it as JSON
) error {
	return withEngine(ctx, func(ctx context.Context, o engine.Options) error {
		usual, err := engine.Status(ctx, o)
		if err != nil {
			return err
		}
		o.GPU = true
		gpu, err := engine.Status(ctx, o)
		if err != nil {
			return err
		}
		there := gpu.Container != "" || gpu.Volume != ""
		if deref(json) {
			all := struct {
				engine.State
				GPU *engine.State `json:",omitempty"` // the engine that hands GPUs on
			}{State: usual}
			if there {
				all.GPU = &gpu
			}
			return printJSON(all)
		}
		if err := printState(usual); err != nil || !there {
			return err
		}
		fmt.Println()
		return printState(gpu)
	})
}

func printState(s engine.State) error {
	state := s.Container
	if state == "" {
		state = "none: it is made when it is needed"
	} else if !s.Current {
		state += ", out of date: the next build replaces it"
	}
	volume := s.Volume
	if s.Size > 0 {
		volume += ", " + units.HumanSize(float64(s.Size))
	}
	if s.Limit > 0 {
		volume += " of at most " + units.HumanSize(float64(s.Limit)) + " between builds"
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "engine\t%s\nstate\t%s\nimage\t%s\nconnections\t%d\nvolume\t%s\n", s.Name, state, s.Image, s.Users, volume)
	return w.Flush()
}

// Start starts the engine, so that the next build need not wait for it.
func (Engine) Start(ctx context.Context) error { return withEngine(ctx, engine.Start) }

// Stop stops the engine, and the one that hands GPUs on. Their state stays.
func (Engine) Stop(ctx context.Context) error {
	return withEngine(ctx, func(ctx context.Context, o engine.Options) error {
		err := engine.Stop(ctx, o)
		o.GPU = true
		return errors.Join(err, engine.Stop(ctx, o))
	})
}

// Logs prints what the engine wrote.
func (Engine) Logs(
	ctx context.Context,
	follow *bool, // go on printing what it writes
	tail *string, // so many of the last lines (default: all)
	gpu *bool, // of the engine that hands GPUs on
) error {
	return withEngine(ctx, func(ctx context.Context, o engine.Options) error {
		o.GPU = deref(gpu)
		lines := deref(tail)
		if lines == "" {
			lines = "all"
		}
		return engine.Logs(ctx, o, os.Stdout, lines, deref(follow))
	})
}

// Prune removes the engine, and the one that hands GPUs on, their state and their images.
// The next build makes them again.
func (Engine) Prune(ctx context.Context) error { return withEngine(ctx, engine.Prune) }

func withEngine(ctx context.Context, do func(context.Context, engine.Options) error) error {
	return Do(ctx, func(ctx context.Context, _ ci.Project, report *progress.Reporter) error {
		dir, err := cache.Open()
		if err != nil {
			return err
		}
		return do(ctx, engine.Options{Cache: dir, Report: report})
	})
}

// Clean removes what killed runs and builds left behind. What is in use, and
// what isn't Berth's, stays.
func Clean(ctx context.Context) error {
	return Do(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) error {
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
