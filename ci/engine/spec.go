package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
)

const (
	role     = "engine"          // of everything here, in daemon.LabelRole
	stateDir = "/var/lib/dagger" // in the container

	// The engine's socket in the folder that it shares with this machine.
	sharedDir  = "/run/berth" // in the container
	socketName = "engine.sock"

	// stateLimit is how many bytes of old results the engine keeps, and freeSpace
	// how many it leaves free on its disk. It collects garbage between builds: some
	// images of CUDA's size stay, an afternoon's worth of them doesn't.
	stateLimit = 20_000_000_000
	freeSpace  = 5_000_000_000
)

// A spec says how an engine is run in Docker.
type spec struct {
	name   string
	image  string
	inputs string // hash of what the image was made from
	socket string // folder of this machine for the engine's socket; empty where the daemon is elsewhere
	group  int    // that the socket belongs to
	limit  int64  // bytes of state
	gpus   *GPUs  // that it hands on; nil for the usual engine
}

// volume is the name of the volume with the engine's state. Another version of
// the engine may not understand it, so each has its own.
func (s spec) volume() string { return volumeOf(s.name) }

func volumeOf(name string) string { return name + "-" + Version }

func (s spec) labels() map[string]string {
	all := map[string]string{daemon.LabelRole: role, daemon.LabelInputs: s.inputs}
	if s.gpus != nil {
		all[labelGPUs] = s.gpus.hash()
	}
	return all
}

// containers are the ways to run the engine, best first. It builds images, for
// which it mounts file systems, makes network bridges and starts containers:
// Docker calls that privileged. A host that can't give every capability (a
// virtual machine without SYS_RESOURCE) refuses the first; the second asks for
// the same, less that one. Those that share a folder for the engine's socket
// come before those that can do without.
func (s spec) containers() []daemon.Container {
	privileged := daemon.Container{
		Name:  s.name,
		Image: s.image,
		// Network namespaces kept ready: half as many as by default make its stop
		// as much faster. The limits are in megabytes: reserved, free, at most.
		Command: []string{
			"--oci-cni-pool-size", "8",
			"--oci-worker-gc-keepstorage", fmt.Sprintf("0,%d,%d", int64(freeSpace/1e6), s.limit/1e6),
		},
		Labels:     s.labels(),
		Mounts:     []daemon.Mount{{Type: "volume", Source: s.volume(), Target: stateDir}},
		Privileged: true,
	}
	if s.gpus != nil {
		s.gpus.give(&privileged)
	}
	limited := privileged
	limited.Labels = s.labels()
	limited.Privileged = false
	limited.CapAdd = []string{"ALL"}
	limited.CapDrop = []string{"SYS_RESOURCE"}
	limited.SecurityOpt = []string{"seccomp=unconfined", "apparmor=unconfined"}
	limited.Unmasked = true
	limited.DeviceCgroupRules = []string{"a *:* rwm"}
	limited.Mounts = append(slices.Clip(limited.Mounts), daemon.Mount{Type: "bind", Source: "/sys/fs/cgroup", Target: "/sys/fs/cgroup"})
	ways := []daemon.Container{privileged, limited}
	if s.socket == "" {
		return ways
	}
	for _, far := range []daemon.Container{privileged, limited} {
		near := far
		near.Labels = s.labels()
		// It goes on to listen in its own file system, too: whoever removes the
		// folder doesn't take the engine away.
		near.Command = append(slices.Clone(far.Command), "--group", strconv.Itoa(s.group), "--addr", "unix://"+sharedDir+"/"+socketName)
		near.Mounts = append(slices.Clone(far.Mounts), daemon.Mount{Type: "bind", Source: s.socket, Target: sharedDir})
		ways = append(ways, near)
	}
	return append(ways[2:], ways[:2]...)
}

// noSuchFolder reports whether a container wasn't created because the daemon lacks a
// folder that it was to share.
func noSuchFolder(err error) bool {
	return strings.Contains(err.Error(), "bind source path does not exist")
}

// notPrivileged reports whether a container failed to start because the host can't
// give it all that --privileged asks for.
func notPrivileged(err error) bool {
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "unable to apply caps") || strings.Contains(text, "operation not permitted")
}

// An action is what to do about a container with the engine's name.
type action int

const (
	create  action = iota // there is none
	use                   // it runs
	start                 // it is the right one, but doesn't run
	resume                // it is the right one, but paused
	replace               // it is out of date
	wait                  // it is out of date, but in use
	refuse                // it isn't ours
)

// decide says what to do about the container of that name, nil if there is none.
// wanted reports whether an engine with these labels will do.
func decide(c *daemon.Status, wanted func(labels map[string]string) bool) action {
	switch {
	case c == nil:
		return create
	case c.Labels[daemon.LabelRole] != role:
		return refuse
	case !wanted(c.Labels):
		if c.State == "running" && len(c.Execs) > 0 {
			return wait
		}
		return replace
	case c.State == "running":
		return use
	case c.State == "created" || c.State == "exited":
		return start
	case c.State == "paused":
		return resume
	default: // dead, removing
		return replace
	}
}

// A source is where the engine's image comes from.
type source int

const (
	pull        source = iota // the official image, from its registry
	present                   // the official image, which is in Docker
	built                     // our own image, which is in Docker
	fromScratch               // our own image, yet to be built
)

// chooseSource returns the source to try first. wanted is $BERTH_ENGINE_SOURCE:
// "image" or "source" for one of the two, empty for whatever is nearest.
func chooseSource(wanted string, hasOfficial, hasBuilt bool) source {
	switch {
	case wanted != "source" && hasOfficial:
		return present
	case wanted != "image" && hasBuilt:
		return built
	case wanted != "source":
		return pull
	default:
		return fromScratch
	}
}
