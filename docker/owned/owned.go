// Package owned decides what of Docker's objects is Berth's to remove. The proof is
// always a record in Berth's cache folder that names the object by what nothing
// else can have: a container or image by its ID, a volume by its name and the claim
// that it was made under, a daemon by its own ID. Labels only find candidates, since
// images that are committed from a container, and containers of such images,
// inherit them. Where there is no record, nothing is removed.
//
// There are two kinds of records. What a process makes for itself and takes away at
// its end is noted in its claim (Scope, Sweep). A container that lasts (Lasting) is
// noted there as such: it isn't removed before it has ended and what it wrote is
// saved. What stays, such as images and the engine, has a record of its own
// (Persistent).
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

	Lasting *Lasting `json:"lasting,omitempty"` // nil if it ends with its maker
}

// A Scope owns what this process makes in a daemon for itself. All of it is removed
// by Close or, if the process is killed, by another one's Sweep.
type Scope struct {
	dir    cache.Dir
	docker *daemon.Client
	claim  *cache.Claim
	made   []func(context.Context) error // remove one each

	noting sync.WaitGroup
	cancel context.CancelFunc
}

// Claim makes a folder in the cache with the record of what is made in Docker.
func Claim(dir cache.Dir, docker *daemon.Client, prefix string) (*Scope, error) {
	claim, err := dir.Claim(prefix)
	if err != nil {
		return nil, err
	}
	return &Scope{dir: dir, docker: docker, claim: claim, cancel: func() {}}, nil
}

// Path is the folder that belongs to the scope, which nobody else can enter.
func (s *Scope) Path() string { return s.claim.Path() }

// Container creates a container, whose labels get the claim's and the owner's. It
// isn't given up half-way when ctx ends: nobody could say then whether there is one.
func (s *Scope) Container(ctx context.Context, spec daemon.Container) (id string, err error) {
	return s.container(ctx, spec, nil)
}

func (s *Scope) container(ctx context.Context, spec daemon.Container, l *Lasting) (id string, err error) {
	spec.Labels = s.labels(spec.Labels)
	if spec.Name == "" {
		spec.Name = "berth-" + claimOf(s.claim)
	}
	// An auto-removed container doesn't outlive a crash of the machine.
	lasting := !spec.AutoRemove
	about := container{Name: spec.Name, At: time.Now(), Lasting: l}
	if err := s.claim.Note(note{Address: s.docker.Host(), Container: &about}, lasting); err != nil {
		return "", err
	}
	if id, err = s.docker.Create(context.WithoutCancel(ctx), spec); err != nil {
		return "", err
	}
	s.made = append(s.made, func(ctx context.Context) error { return s.docker.Remove(ctx, id) })
	about.ID = id
	return id, s.claim.Note(note{Address: s.docker.Host(), Container: &about}, lasting)
}

// Volume creates a volume under a name that nothing else can have had.
func (s *Scope) Volume(ctx context.Context, name string, labels map[string]string) error {
	if err := s.claim.Note(note{Address: s.docker.Host(), Volume: name}, true); err != nil {
		return err
	}
	s.made = append(s.made, func(ctx context.Context) error { return s.docker.RemoveVolume(ctx, name) })
	return s.docker.CreateVolume(context.WithoutCancel(ctx), name, s.labels(labels))
}

func (s *Scope) labels(labels map[string]string) map[string]string {
	all := map[string]string{daemon.LabelOwner: Owner(), daemon.LabelClaim: claimOf(s.claim)}
	for k, v := range labels {
		all[k] = v
	}
	return all
}

// Made reports whether a volume's labels are those of one that was made under this
// claim.
func (s *Scope) Made(labels map[string]string) bool {
	return labels[daemon.LabelClaim] == claimOf(s.claim)
}

func claimOf(c *cache.Claim) string { return filepath.Base(c.Path()) }

// Owner is the value of daemon.LabelOwner on what this person makes.
func Owner() string { return strconv.Itoa(os.Getuid()) }

// NoteDaemon notes in the background which daemon the scope is in, for the case
// that another one answers at its address later. That takes the daemon longer to
// tell than a container takes to start.
func (s *Scope) NoteDaemon(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.noting.Go(func() {
		if id, err := s.docker.ID(ctx); err == nil {
			s.claim.Note(note{Address: s.docker.Host(), Daemon: id}, false)
		}
	})
}

// Release gives up what was made: it is gone already, or has a record of its own.
func (s *Scope) Release() { s.made = nil }

// Close removes what was made, the latest first, and the folder. What couldn't be
// removed stays on record.
func (s *Scope) Close(ctx context.Context) error {
	s.cancel()
	s.noting.Wait()
	var errs []error
	for _, remove := range slices.Backward(s.made) {
		errs = append(errs, RetryOnConflict(ctx, func() error { return remove(ctx) }))
	}
	err := errors.Join(errs...)
	if err != nil {
		s.claim.Leave()
		return err
	}
	s.claim.Release()
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
