package commands

import (
	"context"
	"fmt"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/magefiles/targets"
)

// Ps carries out targets.Ps.
func (c Set) Ps(ctx context.Context, f targets.PsFlags) error {
	return c.withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		list, err := launch.List(ctx, docker, f.All, standard)
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(list)
		}
		fmt.Print(launch.Table(list))
		return nil
	})
}

// Logs carries out targets.Logs.
func (c Set) Logs(ctx context.Context, f targets.LogsFlags) error {
	return c.withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		return launch.Logs(ctx, docker, f.Name, f.Tail, f.Follow, standard)
	})
}

// Attach carries out targets.Attach.
func (c Set) Attach(ctx context.Context, f targets.AttachFlags) error {
	return c.asDockerRun(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) (code int, err error) {
		err = connected(ctx, func(ctx context.Context, docker *daemon.Client) error {
			code, err = launch.Attach(ctx, docker, f.Name, standard)
			return err
		})
		return code, err
	})
}

// Shell carries out targets.Shell.
func (c Set) Shell(ctx context.Context, f targets.ShellFlags) error {
	return c.asDockerRun(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) (code int, err error) {
		err = connected(ctx, func(ctx context.Context, docker *daemon.Client) error {
			code, err = launch.Shell(ctx, docker, f.Name, f.Command, standard)
			return err
		})
		return code, err
	})
}

// Stop carries out targets.Stop.
func (c Set) Stop(ctx context.Context, f targets.StopFlags) error {
	return c.withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		stopped, err := launch.Stop(ctx, docker, f.Name, f.All, standard)
		for _, l := range stopped {
			fmt.Println(l.Stopped())
		}
		return err
	})
}

func (c Set) withDocker(ctx context.Context, do func(context.Context, *daemon.Client) error) error {
	return c.Do(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) error { return connected(ctx, do) })
}

func connected(ctx context.Context, do func(context.Context, *daemon.Client) error) error {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return err
	}
	defer docker.Close()
	return do(ctx, docker)
}
