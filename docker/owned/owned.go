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
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

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
