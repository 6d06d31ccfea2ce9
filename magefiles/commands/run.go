package commands

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/magefiles/targets"
)

// Run carries out targets.Run.
func (c Set) Run(ctx context.Context, f targets.RunFlags) error {
	o := launch.Options{
		Image: f.Image, Command: f.Command, Entrypoint: f.Entrypoint, Name: f.Name, Hostname: f.Hostname, GPUs: f.GPUs,
		Share: f.Share, Wait: f.Wait, GUI: f.GUI, Detach: f.Detach,
		Mounts: f.Mounts, Env: f.Env, Ports: f.Ports, Network: f.Network, IPC: f.IPC, SharedMem: f.SharedMem,
	}
	return c.asDockerRun(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (int, error) {
		if f.Dry {
			return 0, show(ctx, p, o, f.JSON, report)
		}
		return enter(ctx, p, o, report)
	})
}

// asDockerRun does something that ends the process with the exit code of a command in
// a container or, if it fails, with what docker run has for that.
func (c Set) asDockerRun(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) (int, error)) error {
	var code int
	err := c.session(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		code, err = do(ctx, p, report)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", ci.Explain(err, typedCommand()))
		if code == 0 || errors.Is(err, context.Canceled) { // whatever a signal interrupted
			code = ci.RunExitCode(err)
		}
	}
	return exit(code)
}

// Launch builds the image unless the options name one, and runs a container as Run
// does, for custom targets. It ends the process with the container's exit code, unless
// that is 0.
func (c Set) Launch(ctx context.Context, o launch.Options) error {
	var code int
	err := c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		code, err = enter(ctx, p, o, report)
		return err
	})
	if err != nil {
		return err
	}
	return exit(code)
}

// Smoke carries out targets.Smoke.
func (c Set) Smoke(ctx context.Context, f targets.SmokeFlags) error {
	return c.Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		return ci.Smoke(ctx, p, ci.SmokeOptions{
			Through: f.Through, Image: f.Image, GPUs: f.GPUs, Share: f.Share, Wait: f.Wait,
			For: "smoke of " + p.Name, Streams: standard, Report: report,
		}, func(v ci.Verdict) { fmt.Println(v) })
	})
}

// enter builds the image unless the options name one, leases the GPUs, launches a
// container, and returns its exit code.
func enter(ctx context.Context, p ci.Project, o launch.Options, report *progress.Reporter) (code int, err error) {
	// An earlier launch of this process has taken over the signals permanently.
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	defer func() { err = signals.Explain(ctx, err) }()
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer docker.Close()
	plan, held, err := ci.Lease(ctx, docker, p, o, "", standard, report)
	report.Close()
	if err != nil {
		return 0, err
	}
	defer held.Close() // once the container is gone, or is another process's
	if !o.Detach {
		return launch.Run(ctx, docker, plan, standard)
	}
	code, err = launch.Detach(ctx, docker, plan, standard, held.Files()...)
	if err == nil {
		fmt.Println(plan.Container.Name)
	}
	return code, err
}

// show prints what enter would run.
func show(ctx context.Context, p ci.Project, o launch.Options, asJSON bool, report *progress.Reporter) error {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return err
	}
	defer docker.Close()
	plan, err := ci.Plan(ctx, docker, p, o, false, standard, report)
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Printf("%s\n%s\n", plan.Table(), plan.Shell())
		return nil
	}
	text, err := plan.JSON()
	if err == nil {
		fmt.Println(string(text))
	}
	return err
}

// exit ends the process with the container's exit code, unless that is 0.
// Returned as an error, mage would add its own line to the command's output.
func exit(code int) error {
	if code != 0 {
		os.Exit(code)
	}
	return nil
}

var standard = launch.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
