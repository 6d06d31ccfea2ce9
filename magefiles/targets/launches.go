package targets

import (
	"context"
	"time"
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
	return commands().Run(ctx, RunFlags{
		Image: deref(t), Command: deref(cmd), Entrypoint: deref(entrypoint), Name: deref(n), Hostname: deref(hostname), GPUs: deref(g),
		Share: deref(share), Wait: wait, GUI: deref(gui), Detach: deref(d),
		Mounts: deref(v), Env: deref(e), Ports: deref(p), Network: deref(net), IPC: deref(ipc), SharedMem: deref(shm),
		Dry: deref(dry), JSON: deref(json),
	})
}

// RunFlags are those of Run.
type RunFlags struct {
	Image, Command, Entrypoint, Name, Hostname, GPUs, GUI string
	Mounts, Env, Ports, Network, IPC, SharedMem           string
	Detach, Share                                         bool
	Wait                                                  *time.Duration // nil if it wasn't typed
	Dry, JSON                                             bool
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
	return commands().Smoke(ctx, SmokeFlags{Image: deref(t), GPUs: deref(g), Share: deref(share), Wait: wait, Through: deref(through)})
}

// SmokeFlags are those of Smoke.
type SmokeFlags struct {
	Image, GPUs, Through string
	Share                bool
	Wait                 *time.Duration // nil if it wasn't typed
}

// Ps lists the launches that run on this machine, of everybody: name, person, GPUs,
// since when, state, the last line of output.
func Ps(
	ctx context.Context,
	all *bool, // also your detached launches that ended within the last week
	json *bool, // print them as JSON
) error {
	return commands().Ps(ctx, PsFlags{All: deref(all), JSON: deref(json)})
}

// PsFlags are those of Ps.
type PsFlags struct{ All, JSON bool }

// Logs prints what a launch wrote, also after its end.
func Logs(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	follow *bool, // go on printing what it writes, until it ends
	tail *string, // so many of the last lines (default: all)
) error {
	return commands().Logs(ctx, LogsFlags{Name: deref(n), Follow: deref(follow), Tail: deref(tail)})
}

// LogsFlags are those of Logs.
type LogsFlags struct {
	Name, Tail string
	Follow     bool
}

// Attach connects this terminal to a detached launch (run -d). Ctrl-P Ctrl-Q leaves it,
// and so does closing the terminal: the launch goes on. If it ends meanwhile, this exits
// with its code.
func Attach(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
) error {
	return commands().Attach(ctx, AttachFlags{Name: deref(n)})
}

// AttachFlags are those of Attach.
type AttachFlags struct{ Name string }

// Shell opens another shell in a running launch of yours, and exits with its code.
func Shell(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	cmd *string, // run this by a shell instead of opening one
) error {
	return commands().Shell(ctx, ShellFlags{Name: deref(n), Command: deref(cmd)})
}

// ShellFlags are those of Shell.
type ShellFlags struct{ Name, Command string }

// Stop ends a launch of yours: it gets TERM (and HUP where it has a terminal), and is
// killed if it still runs 10 seconds later.
func Stop(
	ctx context.Context,
	n *string, // name of the launch, or its beginning (default: the only one)
	all *bool, // all of your detached launches
) error {
	return commands().Stop(ctx, StopFlags{Name: deref(n), All: deref(all)})
}

// StopFlags are those of Stop.
type StopFlags struct {
	Name string
	All  bool
}
