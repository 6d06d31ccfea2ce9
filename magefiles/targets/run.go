package targets

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// Run opens a shell in the image as you, with this checkout at /my_workspace. It
// builds the image first if need be. It exits as docker run does: with the
// command's own code, or 125, 126, 127; with -d, with 0 once the command runs.
func Run(
	ctx context.Context,
	cmd *string, // run this by a shell instead of opening one
	entrypoint *string, // run this instead of the image's entry point
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, auto, auto:2 (idle ones), UUIDs or their beginnings
	share *bool, // take no lease of the GPUs, and heed nobody's
	wait *time.Duration, // for GPUs that others hold, at most, such as 10m (default: as long as it takes)
	t *string, // run the image of this tag, as it is, instead of building the project's own
	d *bool, // go on without this terminal: see ps, logs, attach, stop; without -cmd, a shell to attach to
	n *string, // name of the container (default: the project's and 8 random hex digits)
	hostname *string, // host name inside (default: the host's)
	gui *string, // display: auto (default), x11, wayland, off
	v *string, // mounts: SOURCE:TARGET or SOURCE:TARGET:ro, separated by commas
	e *string, // environment: NAME=VALUE, or NAME for the host's value, separated by commas
	p *string, // ports to publish: HOST:CONTAINER or PORT, on 127.0.0.1; ADDRESS:HOST:CONTAINER elsewhere; separated by commas
	net *string, // network: bridge (default), host, none, or a Docker network
	ipc *string, // private (default) or host
	shm *string, // size of /dev/shm, such as 8g (default: half of the memory)
	dry *bool, // print what would be run, as a table and as a docker run line, and run nothing
	json *bool, // with -dry: print the plan as JSON
) error {
	o := launch.Options{
		Image: deref(t), Command: deref(cmd), Entrypoint: deref(entrypoint), Name: deref(n), Hostname: deref(hostname), GPUs: deref(g),
		Share: deref(share), Wait: wait, GUI: deref(gui), Detach: deref(d),
		Mounts: deref(v), Env: deref(e), Ports: deref(p), Network: deref(net), IPC: deref(ipc), SharedMem: deref(shm),
	}
	return asDockerRun(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (int, error) {
		if deref(dry) {
			return 0, show(ctx, p, o, deref(json), report)
		}
		return enter(ctx, p, o, report)
	})
}

// asDockerRun does something that ends the process with the exit code of a command in
// a container or, if it fails, with what docker run has for that.
func asDockerRun(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) (int, error)) error {
	var code int
	err := session(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		code, err = do(ctx, p, report)
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", ci.Explain(err, typedCommand()))
		if code == 0 {
			code = ci.RunExitCode(err)
		}
	}
	return exit(code)
}

// Launch builds the image unless the options name one, and runs a container as Run
// does, for custom targets. It ends the process with the container's exit code, unless
// that is 0.
func Launch(ctx context.Context, o launch.Options) error {
	var code int
	err := Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		code, err = enter(ctx, p, o, report)
		return err
	})
	if err != nil {
		return err
	}
	return exit(code)
}

// Smoke runs the project's smoke commands in the image, one after the other, and
// fails unless all of them exit with 0.
func Smoke(
	ctx context.Context,
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, auto, auto:2 (idle ones), UUIDs or their beginnings
	share *bool, // take no lease of the GPUs, and heed nobody's
	wait *time.Duration, // for GPUs that others hold, at most, such as 10m (default: as long as it takes)
	t *string, // test the image of this tag, as it is, instead of building the project's own
	through *string, // docker: in a container as run makes it; dagger: in the engine; auto (default): dagger for GPUs if it can
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		return ci.Smoke(ctx, p, ci.SmokeOptions{
			Through: deref(through), Image: deref(t), GPUs: deref(g), Share: deref(share), Wait: wait,
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
