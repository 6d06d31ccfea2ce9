//go:build mage

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/magefile/mage/mg"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
)

// Run opens a shell in the image as you, with this checkout at /my_workspace. It
// builds the image first if need be. It exits as docker run does: with the
// command's own code, or 125, 126, 127.
func Run(
	ctx context.Context,
	cmd *string, // run this by a shell instead of opening one
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
	return exit(enter(ctx, launch.Options{
		Image: or(t), Command: or(cmd), Name: or(n), Hostname: or(hostname), GPUs: or(g), GUI: or(gui),
		Mounts: or(v), Env: or(e), Network: or(net), IPC: or(ipc), SharedMem: or(shm),
	}, or(dry), or(json)))
}

// Train trains the demo workload in the image, on the first GPU or, without one,
// on the CPU. Checkpoint, record and curve go to artifacts/train. Ctrl-C stops it
// with a checkpoint; -args=--resume goes on from there.
func Train(
	ctx context.Context,
	epochs *int, // train for so many epochs (default: 50)
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, UUIDs or their beginnings
	args *string, // further flags for the trainer, as for a shell: -args='--resume --lr=3e-4'
) error {
	command := project.Train
	if epochs != nil {
		command += fmt.Sprintf(" --num-epochs=%d", *epochs)
	}
	if args != nil {
		command += " " + *args
	}
	return exit(enter(ctx, launch.Options{Command: command, GPUs: or(g), GUI: "off"}, false, false))
}

// Smoke runs the project's smoke commands in the image, one after the other, and
// fails unless all of them exit with 0.
func Smoke(
	ctx context.Context,
	g *string, // GPUs: 0 (default: the first, if any), all, none, 2,3, UUIDs or their beginnings
) error {
	failures := 0
	for _, command := range project.Smoke {
		start := time.Now()
		code, err := enter(ctx, launch.Options{Command: command, GPUs: or(g), GUI: "off"}, false, false)
		if err != nil {
			return exit(code, err)
		}
		verdict := "ok"
		if code != 0 {
			failures++
			verdict = fmt.Sprintf("exit code %d", code)
		}
		fmt.Printf("%s: %s (%.1f s)\n", command, verdict, time.Since(start).Seconds())
	}
	if failures > 0 {
		return mg.Fatalf(ci.ExitFailure, "%d of %d smoke commands failed", failures, len(project.Smoke))
	}
	return nil
}

// enter builds the image unless the options name one, launches a container, and
// returns its exit code.
func enter(ctx context.Context, o launch.Options, dry, asJSON bool) (code int, err error) {
	code = failed
	err = with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) error {
		docker, err := daemon.Connect(ctx)
		if err != nil {
			return err
		}
		defer docker.Close()
		build := o.Image == "" && !dry
		o.Project, o.Root, o.Image = p.Name, p.Root, cmp.Or(o.Image, p.Tag())
		host, err := look(ctx, docker, p, o, build, report)
		if err != nil {
			return err
		}
		report.Close()
		if o.Digest, err = ci.Digest(ctx, docker, host.Image); err != nil {
			return err
		}
		plan, err := launch.NewPlan(host, o)
		if err != nil {
			return err
		}
		switch {
		case !dry:
			code, err = launch.Run(ctx, docker, plan, standard)
			return err
		case asJSON:
			text, err := plan.JSON()
			if err != nil {
				return err
			}
			fmt.Println(string(text))
		default:
			fmt.Printf("%s\n%s\n", plan.Table(), plan.Shell())
		}
		code = 0
		return nil
	})
	return code, err
}

// exit ends the process as the container ended, unless that was well.
func exit(code int, err error) error {
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
	}
	// Not by way of mage, which would add a line of its own to the command's output.
	if code != 0 {
		os.Exit(code)
	}
	return nil
}

// failed is docker run's exit code for what isn't the command's own fault.
const failed = 125

var standard = launch.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}

// look probes the host, and meanwhile builds the image if it should. Mostly
// nothing has changed: then neither waits for the other.
func look(ctx context.Context, docker *daemon.Client, p ci.Project, o launch.Options, build bool, report *progress.Reporter) (host launch.Host, err error) {
	if !build {
		return launch.Probe(ctx, docker, o, standard)
	}
	var unknown error
	var probe sync.WaitGroup
	probe.Go(func() { host, unknown = launch.Probe(ctx, docker, o, standard) })
	result, err := ci.Build(ctx, p, ci.BuildOptions{Report: report})
	probe.Wait()
	if err != nil {
		return launch.Host{}, err
	}
	if unknown != nil || !result.Cached || host.Image.ID != result.ID {
		return launch.Probe(ctx, docker, o, standard) // before, there was another image, or none
	}
	return host, nil
}
