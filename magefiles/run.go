//go:build mage

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/progress"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
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
	gui *string, // display: auto (default), x11, wayland, off
	v *string, // mounts: SOURCE:TARGET or SOURCE:TARGET:ro, separated by commas
	e *string, // environment: NAME=VALUE, or NAME for the host's value, separated by commas
	net *string, // network: bridge (default), host, none, or a Docker network
	ipc *string, // private (default) or host
	shm *string, // size of /dev/shm, such as 8g (default: half of the memory)
	dry *bool, // print what would be run, as a table and as a docker run line, and run nothing
	json *bool, // with -dry: print the plan as JSON
) error {
	code := failed
	err := with(ctx, func(ctx context.Context, p ci.Project, report *progress.Reporter) (err error) {
		o := launch.Options{
			Project: p.Name, Root: p.Root, Image: or(t), Command: or(cmd), Name: or(n), GPUs: or(g), GUI: or(gui),
			Mounts: or(v), Env: or(e), Network: or(net), IPC: or(ipc), SharedMem: or(shm),
		}
		if o.Image == "" {
			o.Image = p.Tag()
			if !or(dry) {
				if _, err := ci.Build(ctx, p, ci.BuildOptions{Report: report}); err != nil {
					return err
				}
			}
		}
		report.Close()
		code, err = enter(ctx, o, or(dry), or(json))
		return err
	})
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

// enter launches a container, or shows what it would launch.
func enter(ctx context.Context, o launch.Options, dry, asJSON bool) (code int, err error) {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return failed, err
	}
	defer docker.Close()
	streams := launch.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	host, err := launch.Probe(ctx, docker, o, streams)
	if err != nil {
		return failed, err
	}
	plan, err := launch.NewPlan(host, o)
	if err != nil {
		return failed, err
	}
	if !dry {
		return launch.Run(ctx, docker, plan, streams)
	}
	if asJSON {
		text, err := plan.JSON()
		fmt.Println(string(text))
		return 0, err
	}
	fmt.Printf("%s\n%s\n", plan.Table(), plan.Shell())
	return 0, nil
}
