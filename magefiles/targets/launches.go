package targets

import (
	"context"
	"fmt"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
)

// Ps lists the launches that run on this machine, of everybody: name, person, GPUs,
// since when, state, the last line of output.
func Ps(
	ctx context.Context,
	all *bool, // also your lasting launches that ended within the last week
	json *bool, // print them as JSON
) error {
	return withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		list, err := launch.List(ctx, docker, deref(all), standard)
		if err != nil {
			return err
		}
		if deref(json) {
			return printJSON(list)
		}
		fmt.Print(launch.Table(list))
		return nil
	})
}

// Logs prints what a launch wrote, also after its end.
func Logs(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	follow *bool, // go on printing what it writes, until it ends
	tail *string, // so many of the last lines (default: all)
) error {
	return withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		return launch.Logs(ctx, docker, deref(n), deref(tail), deref(follow), standard)
	})
}

// Attach connects this terminal to a lasting launch (run -d). Ctrl-P Ctrl-Q leaves it,
// and so does closing the terminal: the launch goes on. If it ends meanwhile, this exits
// with its code.
func Attach(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
) error {
	return asDockerRun(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) (code int, err error) {
		err = connected(ctx, func(ctx context.Context, docker *daemon.Client) error {
			code, err = launch.Attach(ctx, docker, deref(n), standard)
			return err
		})
		return code, err
	})
}

// Shell opens another shell in a running launch of yours, and exits with its code.
func Shell(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	cmd *string, // run this by a shell instead of opening one
) error {
	return asDockerRun(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) (code int, err error) {
		err = connected(ctx, func(ctx context.Context, docker *daemon.Client) error {
			code, err = launch.Shell(ctx, docker, deref(n), deref(cmd), standard)
			return err
		})
		return code, err
	})
}

// Stop ends a launch of yours: it gets TERM (and HUP where it has a terminal), and is
// killed if it still runs 10 seconds later.
func Stop(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	all *bool, // all of your lasting launches
) error {
	return withDocker(ctx, func(ctx context.Context, docker *daemon.Client) error {
		stopped, err := launch.Stop(ctx, docker, deref(n), deref(all), standard)
		for _, l := range stopped {
			fmt.Println(l.Stopped())
		}
		return err
	})
}

func withDocker(ctx context.Context, do func(context.Context, *daemon.Client) error) error {
	return Do(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) error { return connected(ctx, do) })
}

func connected(ctx context.Context, do func(context.Context, *daemon.Client) error) error {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return err
	}
	defer docker.Close()
	return do(ctx, docker)
}
