package owned

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// createTimeout is how long a daemon may take to make a container whose maker was killed
// while it asked for it.
const createTimeout = 5 * time.Second

// A SweepResult is what a sweep found.
type SweepResult struct {
	Removed []string // names of containers and volumes
	Left    []string // the same, each with why it couldn't be removed now
}

// Sweep removes what killed processes left in Docker, each in the daemon that it is
// in, with their folders. A lasting container that runs stays, and one that has ended
// is saved first (see Ended). Sweep never waits for a daemon unless patient is set: what
// can't be removed at once is another sweep's.
func Sweep(ctx context.Context, dir cache.Dir, docker *daemon.Client, patient bool) (SweepResult, error) {
	claims, err := dir.Abandoned()
	if err != nil || len(claims) == 0 {
		return SweepResult{}, err
	}
	daemons := daemons{ctx: ctx, known: map[string]*daemon.Client{docker.Host(): docker}, given: docker.Host()}
	defer daemons.close()
	var swept SweepResult
	var mu sync.Mutex
	var work errgroup.Group
	work.SetLimit(8)
	for _, c := range claims {
		work.Go(func() error {
			s, done, err := sweepClaim(ctx, dir, c, &daemons, patient)
			if done {
				c.Release()
			} else {
				c.Leave()
			}
			mu.Lock()
			defer mu.Unlock()
			swept.Removed = append(swept.Removed, s.Removed...)
			swept.Left = append(swept.Left, s.Left...)
			return err
		})
	}
	err = work.Wait()
	return swept, err
}

// sweepClaim removes what one claim names, and reports whether all of it is gone.
func sweepClaim(
	ctx context.Context, dir cache.Dir, c *cache.Claim, daemons *daemons, patient bool,
) (swept SweepResult, done bool, err error) {
	done = true
	for _, o := range objects(c.Notes()) {
		docker, err := daemons.at(o.address)
		if err != nil {
			swept.Left = append(swept.Left, fmt.Sprintf("%s: the Docker at %s, where it is, doesn't answer", o, o.address))
			done = false
			continue
		}
		stays, err := o.save(ctx, dir, docker, claimOf(c))
		if stays {
			done = false
			continue
		}
		var found, gone bool
		if err == nil {
			found, gone, err = o.remove(ctx, docker, claimOf(c), patient)
		}
		if err != nil {
			return swept, false, err
		}
		if found {
			swept.Removed = append(swept.Removed, o.String())
		}
		done = done && gone
	}
	return swept, done, nil
}

// Abandoned lists the names of what a sweep would remove, if it is there. It
// changes nothing, and doesn't ask Docker.
func Abandoned(dir cache.Dir) ([]string, error) {
	claims, err := dir.Abandoned()
	var names []string
	for _, c := range claims {
		for _, o := range objects(c.Notes()) {
			name := o.String()
			if o.container.Lasting != nil {
				name += ", if it has ended"
			}
			names = append(names, name)
		}
		c.Leave()
	}
	return names, err
}

// An object is what a claim says of one thing in Docker.
type object struct {
	address   string
	daemon    string // "" if unknown
	container container
	volume    string
}

func (o object) String() string {
	if o.volume != "" {
		return "volume " + o.volume
	}
	return "container " + o.container.Name
}

// objects puts together what the notes of a claim say: the latest of what was made
// first.
func objects(notes []json.RawMessage) []object {
	var all []object
	ids := map[string]string{}
	for _, data := range notes {
		var n note
		if json.Unmarshal(data, &n) != nil {
			continue
		}
		switch {
		case n.Daemon != "":
			ids[n.Address] = n.Daemon
		case n.Volume != "":
			all = append(all, object{address: n.Address, volume: n.Volume})
		case n.Container != nil && n.Container.ID != "":
			i := slices.IndexFunc(all, func(o object) bool {
				return o.volume == "" && o.container.ID == "" && o.container.Name == n.Container.Name
			})
			if i >= 0 {
				all[i].container = *n.Container
			} else { // the first note is damaged
				all = append(all, object{address: n.Address, container: *n.Container})
			}
		case n.Container != nil:
			all = append(all, object{address: n.Address, container: *n.Container})
		}
	}
	slices.Reverse(all)
	for i := range all {
		all[i].daemon = ids[all[i].address]
	}
	return all
}

// remove removes an object, and reports whether it was found, and whether it is gone.
func (o object) remove(ctx context.Context, docker *daemon.Client, claim string, patient bool) (found, gone bool, err error) {
	id, err := o.find(ctx, docker, claim)
	for err == nil && id == "" && patient && o.mayAppear() {
		if err = sleep(ctx, 100*time.Millisecond); err == nil {
			id, err = o.find(ctx, docker, claim)
		}
	}
	if err != nil {
		return false, false, err
	}
	if id == "" {
		if o.mayAppear() {
			return false, false, nil
		}
		// Or it is in another daemon, which had this address then.
		is, err := docker.ID(ctx)
		return false, err == nil && (o.daemon == "" || o.daemon == is), err
	}
	remove := func() error { return docker.Remove(ctx, id) }
	if o.volume != "" {
		remove = func() error { return docker.RemoveVolume(ctx, id) }
	}
	if patient {
		err = RetryOnConflict(ctx, remove)
	} else if err = remove(); errors.Is(err, daemon.ErrConflict) {
		return false, false, nil // another process, or the daemon, is removing it
	}
	return err == nil, err == nil, err
}

// mayAppear reports whether the daemon may still make the object.
func (o object) mayAppear() bool {
	return o.volume == "" && o.container.ID == "" && time.Since(o.container.At) < createTimeout
}

// find returns the ID by which to remove the object, or "" if it isn't there.
func (o object) find(ctx context.Context, docker *daemon.Client, claim string) (id string, err error) {
	if o.volume != "" {
		v, err := docker.Volume(ctx, o.volume)
		if errors.Is(err, daemon.ErrNotFound) || err == nil && v.Labels[daemon.LabelClaim] != claim {
			return "", nil
		}
		return v.Name, err
	}
	if o.container.ID != "" {
		c, err := docker.Inspect(ctx, o.container.ID)
		if errors.Is(err, daemon.ErrNotFound) {
			return "", nil
		}
		return c.ID, err
	}
	// It may have been made, but its maker was killed before it knew the ID, and so
	// before it could start it.
	candidates, err := docker.Containers(ctx, daemon.LabelClaim+"="+claim)
	if err != nil {
		return "", err
	}
	for _, c := range candidates {
		image, err := docker.Image(ctx, c.Image)
		if errors.Is(err, daemon.ErrNotFound) {
			continue
		} else if err != nil {
			return "", err
		}
		if madeFor(o.container, claim, c, image) {
			return c.ID, nil
		}
	}
	return "", nil
}

// madeFor reports whether a container can only be the one that was about to be made
// under a claim: it has its name, has never run, and has the claim's label from its
// maker, not from its image.
func madeFor(about container, claim string, c daemon.Status, image daemon.Image) bool {
	return c.State == "created" && c.Name == about.Name && c.Labels[daemon.LabelClaim] == claim && image.Labels[daemon.LabelClaim] == ""
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// daemons are the clients of a sweep by address: the one that it was given, and
// those of other daemons on this machine.
type daemons struct {
	ctx   context.Context
	given string
	mu    sync.Mutex
	known map[string]*daemon.Client // nil if it doesn't answer
}

func (d *daemons) at(address string) (*daemon.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	docker, known := d.known[address]
	if !known {
		docker, _ = daemon.ConnectTo(d.ctx, address)
		d.known[address] = docker
	}
	if docker == nil {
		return nil, daemon.ErrUnavailable
	}
	return docker, nil
}

func (d *daemons) close() {
	for address, docker := range d.known {
		if docker != nil && address != d.given {
			docker.Close()
		}
	}
}
