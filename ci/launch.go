package ci

import (
	"cmp"
	"context"
	"sync"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
)

// Plan plans a launch. Unless the options name an image it is the project's own,
// which is built first if build is set. Nothing is leased: which GPUs are idle is as of
// now, and what a launch would wait for is among the plan's notes.
func Plan(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (launch.Plan, error) {
	host, o, err := look(ctx, docker, p, o, build, s, report)
	if err != nil {
		return launch.Plan{}, err
	}
	o, notes, err := preview(ctx, docker, host, o)
	if err != nil {
		return launch.Plan{}, err
	}
	plan, err := launch.NewPlan(host, o)
	plan.Notes = append(plan.Notes, notes...)
	return plan, err
}

// look returns all that a plan depends on, with the image built if it should be.
func look(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (launch.Host, launch.Options, error) {
	build = build && o.Image == ""
	o.Project, o.Root, o.Home, o.Skeleton = p.Name, p.Root, p.Home, p.Skeleton
	o.Image = cmp.Or(o.Image, p.Tag())
	host, err := probe(ctx, docker, p, o, build, s, report)
	if err != nil {
		return launch.Host{}, o, err
	}
	o.Digest, err = Digest(ctx, docker, host.Image)
	return host, o, err
}

// probe reads the host, and meanwhile builds the image if it should. Mostly
// nothing has changed: then neither waits for the other.
func probe(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (host launch.Host, err error) {
	if !build {
		return launch.Probe(ctx, docker, o, s)
	}
	var unknown error
	var work sync.WaitGroup
	work.Go(func() { host, unknown = launch.Probe(ctx, docker, o, s) })
	result, err := Build(ctx, p, BuildOptions{Report: report})
	work.Wait()
	if err != nil {
		return launch.Host{}, err
	}
	if unknown != nil || !result.Cached || host.Image.ID != result.ID {
		return launch.Probe(ctx, docker, o, s) // before, there was another image, or none
	}
	return host, nil
}
