package commands

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/docker/go-units"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/magefiles/targets"
)

// EngineStatus carries out targets.Engine.Status.
func (c Set) EngineStatus(ctx context.Context, f targets.EngineStatusFlags) error {
	return c.withEngine(ctx, func(ctx context.Context, o engine.Options) error {
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
		if f.JSON {
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

// EngineStart carries out targets.Engine.Start.
func (c Set) EngineStart(ctx context.Context) error { return c.withEngine(ctx, engine.Start) }

// EngineStop carries out targets.Engine.Stop.
func (c Set) EngineStop(ctx context.Context) error {
	return c.withEngine(ctx, func(ctx context.Context, o engine.Options) error {
		err := engine.Stop(ctx, o)
		o.GPU = true
		return errors.Join(err, engine.Stop(ctx, o))
	})
}

// EngineLogs carries out targets.Engine.Logs.
func (c Set) EngineLogs(ctx context.Context, f targets.EngineLogsFlags) error {
	return c.withEngine(ctx, func(ctx context.Context, o engine.Options) error {
		o.GPU = f.GPU
		lines := f.Tail
		if lines == "" {
			lines = "all"
		}
		return engine.Logs(ctx, o, os.Stdout, lines, f.Follow)
	})
}

// EnginePrune carries out targets.Engine.Prune.
func (c Set) EnginePrune(ctx context.Context) error { return c.withEngine(ctx, engine.Prune) }

func (c Set) withEngine(ctx context.Context, do func(context.Context, engine.Options) error) error {
	return c.Do(ctx, func(ctx context.Context, _ ci.Project, report *progress.Reporter) error {
		dir, err := cache.Open()
		if err != nil {
			return err
		}
		return do(ctx, engine.Options{Cache: dir, Report: report})
	})
}
