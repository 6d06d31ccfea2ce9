//go:build mage

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Train trains the demo workload in the image, on the first GPU or, without one,
// on the CPU. Checkpoint, record and curve go to artifacts/train. Ctrl-C stops it
// with a checkpoint; -args=--resume goes on from there, with its batch size, learning
// rate and seed: what else was given, such as -epochs, is to be given again. It exits
// with the trainer's own code once that runs.
func Train(
	ctx context.Context,
	epochs *int, // train for so many epochs (default: 50)
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, auto, auto:2 (idle ones), UUIDs or their beginnings
	share *bool, // take no lease of the GPUs, and heed nobody's
	wait *time.Duration, // for GPUs that others hold, at most, such as 10m (default: as long as it takes)
	t *string, // train in the image of this tag, as it is, instead of building the project's own
	args *string, // further flags for the trainer, as for a shell: -args='--batch-size=250 --lr=3e-4'
) error {
	o := launch.Options{GUI: "off", Wait: wait, Share: share != nil && *share}
	o.Command = "cd /my_workspace && mkdir -p artifacts/train && exec trainer train" +
		" --data-dir=/usr/share/datasets/fashion-mnist --checkpoint-dir=artifacts/train" +
		" --json=artifacts/train/run.json --curve=artifacts/train/curve.png"
	if epochs != nil {
		o.Command += fmt.Sprintf(" --num-epochs=%d", *epochs)
	}
	if args != nil {
		o.Command += " " + *args
	}
	if g != nil {
		o.GPUs = *g
	}
	if t != nil {
		o.Image = *t
	}
	return berth.Launch(ctx, o)
}

// Data fetches the data set that the image has, to work with it outside.
func Data(
	ctx context.Context,
	o *string, // folder to write to (default: data in the checkout)
	locked *bool, // fail when the locked package is gone, instead of taking the nearest version
) error {
	return berth.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		store, err := cache.Open()
		if err != nil {
			return err
		}
		dir := p.Path("data")
		if o != nil && *o != "" {
			dir = *o
		}
		names, err := packages.Extract(ctx, p.Root, "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist", dir,
			input.Options{Cache: store, Locked: locked != nil && *locked, Report: report})
		report.Close()
		for _, name := range names {
			fmt.Println(filepath.Join(dir, name))
		}
		return err
	})
}
