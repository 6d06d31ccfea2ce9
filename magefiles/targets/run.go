package targets

import (
	"context"
	"fmt"
	"os"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// Run opens a shell in the image as you, with this checkout at /my_workspace. It
// builds the image first if need be. It exits as docker run does: with the
// command's own code, or 125, 126, 127.
func Run(
	ctx context.Context,
	cmd *string, // run this by a shell instead of opening one
	entrypoint *string, // run this instead of the image's entry point
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, UUIDs or their beginnings
	t *string, // run the image of this tag, as it is, instead of building the project's own
	n *string, // name of the container (default: the project's and 8 random hex digits)
	hostname *string, // host name inside (default: the host's)
	gui *string, // display: auto (default), x11, wayland, off
	v *string, // mounts: SOURCE:TARGET or SOURCE:TARGET:ro, separated by commas
	e *string, // environment: NAME=VALUE, or NAME for the host's value, separated by commas
	net *string, // network: bridge (default), host, none, or a Docker network
	ipc *string, // private (default) or host
	shm *string, // size of /dev/shm, such as 8g (default: half of the memory)
	dry *bool, // print what would be run, as a table and as a docker run line, and run nothing
	json *bool, // with -dry: print the plan as JSON
) error {
	o := launch.Options{
		Image: deref(t), Command: deref(cmd), Entrypoint: deref(entrypoint), Name: deref(n), Hostname: deref(hostname), GPUs: deref(g),
		GUI:    deref(gui),
		Mounts: deref(v), Env: deref(e), Network: deref(net), IPC: deref(ipc), SharedMem: deref(shm),
	}
	var code int
	err := session(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		if deref(dry) {
			return show(ctx, p, o, deref(json), report)
		}
		code, err = enter(ctx, p, o, report)
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
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, UUIDs or their beginnings
	t *string, // test the image of this tag, as it is, instead of building the project's own
	through *string, // docker: in a container as run makes it; dagger: in the engine; auto (default): dagger for GPUs if it can
) error {
	return Do(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		way, err := ci.ChooseThrough(ctx, ci.ThroughOptions{Through: deref(through), GPUs: deref(g), Image: deref(t)})
		if err != nil {
			return err
		}
		report.Printf("%s", way)
		say := func(v ci.Verdict) { fmt.Println(v) }
		if way.Dagger {
			return ci.EngineSmoke(ctx, p, way, os.Stdout, say, report)
		}
		return ci.Smoke(p.Smoke, func(command string) (int, error) {
			return enter(ctx, p, launch.Options{Image: deref(t), Command: command, GPUs: deref(g), GUI: "off"}, report)
		}, say)
	})
}

// enter builds the image unless the options name one, launches a container, and
// returns its exit code.
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
	plan, err := ci.Plan(ctx, docker, p, o, true, standard, report)
	report.Close()
	if err != nil {
		return 0, err
	}
	return launch.Run(ctx, docker, plan, standard)
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
