package ci

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/gpu/lease"
	"github.com/berthdev/berth/docker/launch"
)

// GPUs is who uses the GPUs of this machine, and who waits for them.
type GPUs struct {
	GPUs    []GPUState    `json:"gpus"`
	Waiting []lease.Entry `json:"waiting"` // the next one first
}

// A GPUState is a GPU, or a partition of one, and who uses it.
type GPUState struct {
	Index     string       `json:"index"` // as -g takes it: "0", "0:1"
	UUID      string       `json:"uuid"`
	Name      string       `json:"name"`
	Lease     *lease.Entry `json:"lease,omitempty"`
	Processes []int        `json:"processes_without_lease,omitempty"` // that compute on it though nobody has a lease
}

// ReadGPUs asks the driver and the leases. Whether somebody computes without a lease is
// left out where the driver can't tell.
func ReadGPUs(ctx context.Context) (GPUs, error) {
	machine, err := gpu.Probe(ctx, "/")
	if err != nil {
		return GPUs{}, err
	}
	if err := machine.Broken(); err != nil {
		return GPUs{}, err
	}
	status, err := lease.Read()
	if err != nil {
		return GPUs{}, err
	}
	processes, _ := gpu.Computing(ctx, "/")
	if ctx.Err() != nil {
		return GPUs{}, context.Cause(ctx)
	}
	status.Leases, status.Queue = withNames(ctx, status.Leases), withNames(ctx, status.Queue)
	return gpuStates(machine, status, processes), nil
}

// gpuStates puts together who uses what.
func gpuStates(machine gpu.Machine, status lease.Status, processes gpu.Processes) GPUs {
	all := GPUs{Waiting: append([]lease.Entry{}, status.Queue...)}
	add := func(index, uuid, name string) {
		g := GPUState{Index: index, UUID: uuid, Name: name}
		at := slices.IndexFunc(status.Leases, func(e lease.Entry) bool { return slices.Contains(e.UUIDs, uuid) })
		if at >= 0 {
			g.Lease = &status.Leases[at]
		} else {
			g.Processes = processes[uuid]
		}
		all.GPUs = append(all.GPUs, g)
	}
	for _, g := range machine.GPUs {
		if len(g.MIG) == 0 {
			add(fmt.Sprint(g.Index), g.UUID, g.Name)
		}
		for _, i := range g.MIG {
			add(fmt.Sprintf("%d:%d", g.Index, i.Index), i.UUID, g.Name+" "+i.Profile)
		}
	}
	return all
}

// Use says who uses a GPU, in words.
func (g GPUState) Use() string {
	switch {
	case g.Lease != nil:
		return who(*g.Lease)
	case len(g.Processes) > 0:
		return "without a lease: " + pidList(g.Processes)
	}
	return "idle"
}

// preview chooses the GPUs that a launch would lease now, and notes what it would wait
// for.
func preview(ctx context.Context, docker *daemon.Client, host launch.Host, o launch.Options) (launch.Options, []string, error) {
	request, err := gpu.Resolve(o.GPUs, host.GPU)
	if err != nil || request.None() || o.Share || !host.Local {
		return o, nil, nil // NewPlan reports what is wrong
	}
	status, err := lease.Read()
	if err != nil {
		return o, nil, err
	}
	r := reservation{docker: docker, machine: host.GPU, selection: o.GPUs}
	r.count, r.uuids = host.GPU.Wanted(o.GPUs, request)
	var busy []string
	if gpu.Auto(o.GPUs) {
		if busy, err = r.busy(ctx); err != nil {
			return o, nil, err
		}
	}
	idle, w := r.wouldWait(status, busy)
	if gpu.Auto(o.GPUs) {
		chosen := idle
		for _, uuid := range r.uuids { // in place of those that it would wait for
			if !slices.Contains(chosen, uuid) {
				chosen = append(chosen, uuid)
			}
		}
		o.GPUs = strings.Join(chosen[:r.count], ",")
	}
	if len(idle) < r.count || len(w.Ahead) > 0 {
		w.Held, w.Ahead = withNames(ctx, w.Held), withNames(ctx, w.Ahead)
		r.notes = append(r.notes, "It would wait for "+r.what()+":")
		for line := range strings.Lines(r.state(w)) {
			r.notes = append(r.notes, strings.TrimSpace(line))
		}
	}
	return o, r.notes, nil
}

// wouldWait returns which GPUs are idle, and what a request made now would wait for.
func (r *reservation) wouldWait(status lease.Status, busy []string) (idle []string, w lease.Waiting) {
	idle = slices.Clone(r.uuids)
	take := func(entries []lease.Entry) (of []lease.Entry) {
		for _, e := range entries {
			if slices.ContainsFunc(e.UUIDs, func(uuid string) bool { return slices.Contains(r.uuids, uuid) }) {
				of = append(of, e)
				idle = slices.DeleteFunc(idle, func(uuid string) bool { return slices.Contains(e.UUIDs, uuid) })
			}
		}
		return of
	}
	w.Held = take(status.Leases)
	for _, uuid := range busy {
		if at := slices.Index(idle, uuid); at >= 0 {
			idle = slices.Delete(idle, at, at+1)
			w.Busy = append(w.Busy, uuid)
		}
	}
	w.Ahead = take(status.Queue)
	return idle, w
}
