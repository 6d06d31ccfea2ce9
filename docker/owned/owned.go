// Package owned decides what of Docker's objects is Berth's to remove. The proof is
// always a record in Berth's cache folder that names the object by what nothing
// else can have: a container or image by its ID, a volume by its name and the claim
// that it was made under, a daemon by its own ID. Labels only find candidates, since
// images that are committed from a container, and containers of such images,
// inherit them. Where there is no record, nothing is removed.
//
// There are two kinds of records. What a process makes for itself and takes away at
// its end is noted in its claim (Things, Sweep). What stays, such as images and the
// engine, has a record of its own (Lasting).
package owned

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// A note is what a claim says about Docker. Each has one of Container, Volume and
// Daemon.
type note struct {
	Address   string     `json:"address"` // of the daemon
	Daemon    string     `json:"daemon,omitempty"`
	Container *container `json:"container,omitempty"`
	Volume    string     `json:"volume,omitempty"`
}

// A container is noted twice: with its name when it is about to be made, and with
// its ID before it can be started.
type container struct {
	ID   string    `json:"id,omitempty"`
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// Things are what this process has made in a daemon for itself. They are removed
// by Close or, if the process is killed, by another one's Sweep.
type Things struct {
	docker *daemon.Client
	claim  *cache.Claim
	made   []func(context.Context) error // remove one each

	noting sync.WaitGroup
	cancel context.CancelFunc
}

// Claim makes a folder in the cache with the record of what is made in Docker.
func Claim(dir cache.Dir, docker *daemon.Client, prefix string) (*Things, error) {
	claim, err := dir.Claim(prefix)
	if err != nil {
		return nil, err
	}
	return &Things{docker: docker, claim: claim, cancel: func() {}}, nil
}

// Path is the folder that belongs to the things, which nobody else can enter.
func (t *Things) Path() string { return t.claim.Path() }

// Container creates a container, whose labels get the claim's and the owner's. It
// isn't given up half-way when ctx ends: nobody could say then whether there is one.
func (t *Things) Container(ctx context.Context, spec daemon.Container) (id string, err error) {
	spec.Labels = t.labels(spec.Labels)
	if spec.Name == "" {
		spec.Name = "berth-" + claimOf(t.claim)
	}
	// An auto-removed container doesn't outlive a crash of the machine.
	lasting := !spec.AutoRemove
	about := container{Name: spec.Name, At: time.Now()}
	if err := t.claim.Note(note{Address: t.docker.Host(), Container: &about}, lasting); err != nil {
		return "", err
	}
	if id, err = t.docker.Create(context.WithoutCancel(ctx), spec); err != nil {
		return "", err
	}
	t.made = append(t.made, func(ctx context.Context) error { return t.docker.Remove(ctx, id) })
	about.ID = id
	return id, t.claim.Note(note{Address: t.docker.Host(), Container: &about}, lasting)
}

// Volume creates a volume under a name that nothing else can have had.
func (t *Things) Volume(ctx context.Context, name string, labels map[string]string) error {
	if err := t.claim.Note(note{Address: t.docker.Host(), Volume: name}, true); err != nil {
		return err
	}
	t.made = append(t.made, func(ctx context.Context) error { return t.docker.RemoveVolume(ctx, name) })
	return t.docker.CreateVolume(context.WithoutCancel(ctx), name, t.labels(labels))
}

func (t *Things) labels(labels map[string]string) map[string]string {
	all := map[string]string{daemon.LabelOwner: Owner(), daemon.LabelClaim: claimOf(t.claim)}
	for k, v := range labels {
		all[k] = v
	}
	return all
}

// Made reports whether a volume's labels are those of one that was made under this
// claim.
func (t *Things) Made(labels map[string]string) bool {
	return labels[daemon.LabelClaim] == claimOf(t.claim)
}

func claimOf(c *cache.Claim) string { return filepath.Base(c.Path()) }

// Owner is the value of daemon.LabelOwner on what this person makes.
func Owner() string { return strconv.Itoa(os.Getuid()) }

// NoteDaemon notes in the background which daemon the things are in, for the case
// that another one answers at its address later. That takes the daemon longer to
// tell than a container takes to start.
func (t *Things) NoteDaemon(ctx context.Context) {
	ctx, t.cancel = context.WithCancel(ctx)
	t.noting.Go(func() {
		if id, err := t.docker.ID(ctx); err == nil {
			t.claim.Note(note{Address: t.docker.Host(), Daemon: id}, false)
		}
	})
}

// Gone says that everything that was made is gone already.
func (t *Things) Gone() { t.made = nil }

// Close removes what was made, the latest first, and the folder. What couldn't be
// removed stays on record.
func (t *Things) Close(ctx context.Context) error {
	t.cancel()
	t.noting.Wait()
	var errs []error
	for _, remove := range slices.Backward(t.made) {
		errs = append(errs, RetryOnConflict(ctx, func() error { return remove(ctx) }))
	}
	err := errors.Join(errs...)
	if err != nil {
		t.claim.Leave()
		return err
	}
	t.claim.Release()
	return nil
}

// RetryOnConflict does something again, for half a minute, as long as Docker says
// that it conflicts with something else: a removal goes on in the daemon when the
// process that asked for it is killed.
func RetryOnConflict(ctx context.Context, do func() error) error {
	for end := time.Now().Add(30 * time.Second); ; {
		err := do()
		if !errors.Is(err, daemon.ErrConflict) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unborn is how long a daemon may take to make a container whose maker was killed
// while it asked for it.
const unborn = 5 * time.Second

// A Swept is what a sweep came upon.
type Swept struct {
	Removed []string // names of containers and volumes
	Left    []string // the same, each with why it couldn't be removed now
}

// Sweep removes what killed processes left in Docker, each in the daemon that it is
// in, with their folders. It never waits for a daemon unless patient is set: what
// can't be removed at once is another sweep's.
func Sweep(ctx context.Context, dir cache.Dir, docker *daemon.Client, patient bool) (Swept, error) {
	claims, err := dir.Abandoned()
	if err != nil || len(claims) == 0 {
		return Swept{}, err
	}
	daemons := daemons{ctx: ctx, known: map[string]*daemon.Client{docker.Host(): docker}, given: docker.Host()}
	defer daemons.close()
	var swept Swept
	var mu sync.Mutex
	var work errgroup.Group
	work.SetLimit(8)
	for _, c := range claims {
		work.Go(func() error {
			s, done, err := sweepClaim(ctx, c, &daemons, patient)
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
func sweepClaim(ctx context.Context, c *cache.Claim, daemons *daemons, patient bool) (swept Swept, done bool, err error) {
	done = true
	for _, o := range objects(c.Notes()) {
		docker, err := daemons.at(o.address)
		if err != nil {
			swept.Left = append(swept.Left, fmt.Sprintf("%s: the Docker at %s, where it is, doesn't answer", o, o.address))
			done = false
			continue
		}
		found, gone, err := o.remove(ctx, docker, claimOf(c), patient)
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
			names = append(names, o.String())
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
	for err == nil && id == "" && patient && o.mayCome() {
		if err = sleep(ctx, 100*time.Millisecond); err == nil {
			id, err = o.find(ctx, docker, claim)
		}
	}
	if err != nil {
		return false, false, err
	}
	if id == "" {
		if o.mayCome() {
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

// mayCome reports whether the daemon may yet make the object.
func (o object) mayCome() bool {
	return o.volume == "" && o.container.ID == "" && time.Since(o.container.At) < unborn
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
