package ci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/gpu/lease"
	people "github.com/berthdev/berth/docker/identity" // this package has another identity
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

var errSharedAuto = fmt.Errorf("-share: %w: without a lease nobody can tell which GPUs are idle. Name them: -g=0,1", usage.Err)

// Lease plans a launch as Plan does, with the image built first, and then leases the
// GPUs that the container gets, for which it may have to wait: report says for what. The
// plan has the GPUs that were leased. The caller closes the lease once the container is
// gone; it is nil where nothing is to be leased. What others read the lease is for is
// the container's name, unless another name is given.
//
// What is wrong with the options, or the image, is found before any wait.
func Lease(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, name string, s launch.Streams, report *progress.Reporter,
) (launch.Plan, *lease.Lease, error) {
	if o.Share && gpu.Auto(o.GPUs) {
		return launch.Plan{}, nil, errSharedAuto
	}
	host, o, err := look(ctx, docker, p, o, true, s, report)
	if err != nil {
		return launch.Plan{}, nil, err
	}
	plan, err := launch.NewPlan(host, o)
	if err != nil || o.Share || plan.GPU.None() {
		return plan, nil, err
	}
	if !host.Local {
		plan.Notes = append(plan.Notes, "Docker runs on another machine: its GPUs are used without a lease")
		return plan, nil, nil
	}
	r := reservation{docker: docker, machine: host.GPU, selection: o.GPUs, report: report}
	held, err := r.acquire(ctx, plan.GPU, lease.Holder{Name: cmp.Or(name, plan.Container.Name), User: host.User.Name}, o.Wait)
	if err != nil {
		return launch.Plan{}, nil, err
	}
	if r.told != nil { // meanwhile, the machine may have become another
		launchID := host.Launch
		if host, err = launch.Probe(ctx, docker, o, s); err != nil {
			held.Close()
			return launch.Plan{}, nil, err
		}
		host.Launch = launchID
	}
	if gpu.Auto(o.GPUs) {
		o.GPUs = strings.Join(held.UUIDs(), ",")
	}
	if plan, err = launch.NewPlan(host, o); err != nil {
		held.Close()
		return launch.Plan{}, nil, err
	}
	plan.Notes = append(plan.Notes, r.notes...)
	return plan, held, nil
}

// A reservation is the leasing of what a selection asks for.
type reservation struct {
	docker    *daemon.Client
	machine   gpu.Machine
	selection string // of GPUs, as typed
	count     int    // how many of
	uuids     []string
	report    *progress.Reporter
	told      *lease.Waiting    // what it waited for last
	others    map[string]string // see findOthers
	notes     []string
}

// errLate ends a wait that took too long.
var errLate = errors.New("late")

// acquire takes the lease of what Resolve made of the selection, and says what it waits
// for.
func (r *reservation) acquire(ctx context.Context, wanted gpu.Request, h lease.Holder, wait *time.Duration) (*lease.Lease, error) {
	r.count, r.uuids = r.machine.Wanted(r.selection, wanted)
	book, err := lease.Open()
	if err != nil {
		return nil, err
	}
	request := lease.Request{Count: r.count, Candidates: r.uuids}
	if gpu.Auto(r.selection) {
		request.Busy = r.busy
	}
	waiting := ctx
	if wait != nil && *wait > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, *wait, errLate)
		defer cancel()
	}
	until := "until Ctrl-C"
	if wait != nil {
		until = fmt.Sprintf("for at most %s or until Ctrl-C", *wait)
	}
	held, err := book.Acquire(waiting, request, h, func(w lease.Waiting) error {
		w.Held, w.Ahead = withNames(ctx, w.Held), withNames(ctx, w.Ahead)
		r.told = &w
		if wait != nil && *wait <= 0 {
			return errLate
		}
		r.report.Printf("Waiting for %s, %s:\n%s", r.what(), until, r.state(w))
		return nil
	})
	if late := errors.Is(err, errLate) || errors.Is(context.Cause(waiting), errLate); err != nil && late {
		return nil, r.late(*wait)
	} else if err != nil {
		return nil, err
	}
	if request.Busy == nil {
		r.noteOthers(ctx, held.UUIDs())
	} else {
		r.notes = append(r.notes, "Leased "+r.labels(held.UUIDs()))
	}
	return held, nil
}

// late is the error of a wait that took too long.
func (r *reservation) late(wait time.Duration) error {
	err := fmt.Errorf("-g=%s: %s: %w, and not free within -wait=%s", cmp.Or(r.selection, "0"), r.what(), lease.ErrHeld, wait)
	if r.told != nil {
		err = fmt.Errorf("%w:\n%s", err, r.state(*r.told))
	}
	return advice.With(err, "Wait for longer, or see\n\t%s gpu:status", advice.Berth)
}

// busy returns the GPUs that somebody uses. Asked while nobody has a lease of them, that
// is somebody without one. Who can't tell is taken at its word.
func (r *reservation) busy(ctx context.Context) ([]string, error) {
	err := r.findOthers(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if note := fmt.Sprintf("Whether somebody uses GPUs without a lease isn't known: %v", err); err != nil && !slices.Contains(r.notes, note) {
		r.notes = append(r.notes, note)
	}
	return slices.Sorted(maps.Keys(r.others)), nil
}

// findOthers finds who uses GPUs, in words, by UUID: processes that the driver knows of,
// and running launches. Of those, one without a lease shares the GPU, or its command was
// killed and couldn't take it along.
func (r *reservation) findOthers(ctx context.Context) error {
	r.others = map[string]string{}
	processes, err := gpu.Computing(ctx, "/")
	for uuid, pids := range processes {
		r.others[uuid] = "somebody computes on it without a lease: " + pidList(pids)
	}
	var launches []launch.Launch
	var e error
	if r.docker != nil {
		launches, e = launch.OnGPUs(ctx, r.docker)
	}
	for _, l := range launches {
		request, err := gpu.Resolve(l.GPUs, r.machine)
		if err != nil {
			continue // it has GPUs that have gone
		}
		_, uuids := r.machine.Wanted(l.GPUs, request)
		for _, uuid := range uuids {
			r.others[uuid] = fmt.Sprintf("%s of %s runs on it without a lease", l.Name, l.User)
		}
	}
	return errors.Join(err, e)
}

// noteOthers notes who uses GPUs that were leased by name.
func (r *reservation) noteOthers(ctx context.Context, uuids []string) {
	r.findOthers(ctx) // if it fails, they were asked for by name, whoever is there
	for _, uuid := range uuids {
		if other := r.others[uuid]; other != "" {
			r.notes = append(r.notes, fmt.Sprintf("%s is leased, but %s", r.machine.Label(uuid), other))
		}
	}
}

// what names what is asked for.
func (r *reservation) what() string {
	if !gpu.Auto(r.selection) {
		return r.labels(r.uuids)
	}
	return fmt.Sprintf("%d idle of %d GPUs", r.count, len(r.uuids))
}

func (r *reservation) labels(uuids []string) string {
	var all []string
	for _, uuid := range uuids {
		all = append(all, r.machine.Label(uuid))
	}
	return strings.Join(all, ", ")
}

// state says what stands in the way, a line each.
func (r *reservation) state(w lease.Waiting) string {
	var lines []string
	for _, uuid := range r.uuids {
		for _, e := range w.Held {
			if slices.Contains(e.UUIDs, uuid) {
				lines = append(lines, fmt.Sprintf("\t%s: %s", r.machine.Label(uuid), who(e)))
			}
		}
		if slices.Contains(w.Busy, uuid) {
			lines = append(lines, fmt.Sprintf("\t%s: %s", r.machine.Label(uuid), r.others[uuid]))
		}
	}
	for _, e := range w.Ahead {
		lines = append(lines, fmt.Sprintf("\tbefore this: %s, for %d", who(e), e.Count))
	}
	if len(lines) == 0 {
		return "\ta lock that no lease explains, in the folder of the leases"
	}
	return strings.Join(lines, "\n")
}

// who says who has a lease, or waits for one, and since when.
func who(e lease.Entry) string {
	if e.PID == 0 {
		return "somebody, by a lock that no lease explains"
	}
	return fmt.Sprintf("%s, %s, since %s", e.User, cmp.Or(e.Name, "no name"), e.Since.Local().Format("2 Jan 15:04:05"))
}

// withNames returns entries with the names that the system has for their users: what they
// say of themselves proves nothing.
func withNames(ctx context.Context, entries []lease.Entry) []lease.Entry {
	entries = slices.Clone(entries)
	names := map[int]string{}
	for i, e := range entries {
		if e.PID == 0 {
			continue
		}
		if names[e.UID] == "" {
			names[e.UID] = people.Name(ctx, e.UID)
		}
		entries[i].User = names[e.UID]
	}
	return entries
}

func pidList(pids []int) string {
	words := strings.Fields(strings.Trim(fmt.Sprint(pids), "[]"))
	if len(words) == 1 {
		return "process " + words[0]
	}
	return "processes " + strings.Join(words, ", ")
}
