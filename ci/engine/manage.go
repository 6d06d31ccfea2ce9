package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// A State is what there is of the persistent engine.
type State struct {
	Name      string // of its container
	Container string // its state as Docker names it (running, exited, …), empty if there is none
	Image     string // the image's ID
	Current   bool   // made from what the checkout asks for
	Users     int    // connections to it
	Volume    string // with its state, empty if there is none
	Size      int64  // bytes in the volume
	Limit     int64  // bytes that the engine keeps between builds; 0 if that isn't known, for an engine out of date
}

// Status says what there is of the persistent engine. It changes nothing.
func Status(ctx context.Context, o Options) (State, error) {
	p, err := manager(ctx, o)
	if err != nil {
		return State{}, err
	}
	defer p.docker.Close()
	s := State{Name: p.name}
	c, err := p.container(ctx)
	if err != nil {
		return State{}, err
	}
	if c != nil {
		s.Container, s.Image, s.Users = c.State, c.Image, len(c.Execs)
		s.Current = c.Labels[daemon.LabelRole] == role && p.wanted(c.Labels[daemon.LabelInputs])
	}
	if s.Current {
		s.Limit = p.limit
	}
	volumes, err := p.volumes(ctx)
	if err != nil || !slices.Contains(volumes, volumeOf(p.name)) {
		return s, err
	}
	s.Volume = volumeOf(p.name)
	s.Size, err = p.docker.VolumeSize(ctx, s.Volume)
	return s, err
}

// manager returns a provider of the persistent engine, whose daemon the caller closes.
func manager(ctx context.Context, o Options) (*provider, error) {
	o.Ephemeral = false
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := newProvider(docker, o)
	if err != nil {
		docker.Close()
		return nil, err
	}
	return p, nil
}

// Start makes the persistent engine run, whatever that takes.
func Start(ctx context.Context, o Options) error {
	o.Ephemeral = false
	e, err := Connect(ctx, o)
	if err != nil {
		return err
	}
	return e.Close()
}

// Stop stops the persistent engine, and the builds that use it. It keeps its
// state. That there is none is no error.
func Stop(ctx context.Context, o Options) error {
	p, err := manager(ctx, o)
	if err != nil {
		return err
	}
	defer p.docker.Close()
	c, err := p.ours(ctx)
	if err != nil || c == nil {
		return err
	}
	// It writes its database and takes its network apart: seconds.
	return p.docker.Stop(ctx, c.ID, 30)
}

// ours is container, but an error if it isn't an engine of Berth's.
func (p *provider) ours(ctx context.Context) (*daemon.Status, error) {
	c, err := p.container(ctx)
	if err == nil && c != nil && c.Labels[daemon.LabelRole] != role {
		return nil, p.notOurs()
	}
	return c, err
}

// Logs writes the log of the persistent engine: tail lines or "all", and what
// comes until ctx ends if follow is set.
func Logs(ctx context.Context, o Options, w io.Writer, tail string, follow bool) error {
	p, err := manager(ctx, o)
	if err != nil {
		return err
	}
	defer p.docker.Close()
	c, err := p.ours(ctx)
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("there is no engine %s. Start one with\n\tgo tool mage engine:start", p.name)
	}
	frames, err := p.docker.Logs(ctx, c.ID, tail, follow)
	if err != nil {
		return err
	}
	defer frames.Close()
	return daemon.Demultiplex(w, frames)
}

// Prune removes the persistent engine with its state, what killed processes
// left of others, the images that engines of Berth's ran from, and the compiled
// programs. All of it can be made again.
func Prune(ctx context.Context, o Options) error {
	p, err := manager(ctx, o)
	if err != nil {
		return err
	}
	defer p.docker.Close()
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.sweep(ctx); err != nil {
		return err
	}
	if err := p.forget(ctx); err != nil {
		return err
	}
	images, err := p.docker.Images(ctx, daemon.LabelRole+"="+role)
	if err != nil {
		return err
	}
	for _, i := range images {
		if err := p.removeImage(ctx, i); err != nil {
			return err
		}
	}
	return p.removePrograms()
}

// removePrograms removes the compiled programs and this engine's socket. Beside
// them lie the sockets of engines of other names, which run on.
func (p *provider) removePrograms() error {
	entries, err := os.ReadDir(p.Cache.Path("engine"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	sockets := filepath.Dir(socketFolder(p.Cache, p.docker.Host(), p.name))
	for _, e := range entries {
		if path := p.Cache.Path("engine", e.Name()); path != sockets {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return errors.Join(err, os.RemoveAll(socketFolder(p.Cache, p.docker.Host(), p.name)))
}

// forget removes the engine with its state.
func (p *provider) forget(ctx context.Context) error {
	c, err := p.ours(ctx)
	if err != nil {
		return err
	}
	if c != nil {
		if err := p.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	volumes, err := p.volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if err := retryOnConflict(ctx, func() error { return p.docker.RemoveVolume(ctx, v) }); err != nil {
			return err
		}
	}
	return nil
}

// removeImage removes an image of ours unless another engine uses it.
func (p *provider) removeImage(ctx context.Context, id string) error {
	i, err := p.docker.Image(ctx, id)
	for _, tag := range i.Tags {
		err = errors.Join(err, p.docker.RemoveImage(ctx, tag))
	}
	if errors.Is(err, daemon.ErrConflict) || errors.Is(err, daemon.ErrNotFound) {
		return nil
	}
	return err
}

// volumes lists the volumes with the engine's state, in every version.
func (p *provider) volumes(ctx context.Context) ([]string, error) {
	all, err := p.docker.Volumes(ctx, daemon.LabelRole+"="+role)
	return slices.DeleteFunc(all, func(v string) bool { return !isVolumeOf(v, p.name) }), err
}

// claim marks an ephemeral engine as this process's, until done, which removes it.
func (p *provider) claim(ctx context.Context) (done func() error, err error) {
	unlock, err := p.Cache.Lock(ctx, lockName(p.launch), nil)
	if err != nil {
		return nil, err
	}
	return func() error {
		defer unlock()
		// Also when ctx has ended.
		return discard(context.Background(), p.docker, p.Cache, p.name)
	}, nil
}

func lockName(launch string) string { return "ephemeral-" + launch }

// discard removes an ephemeral engine, its state and the file of its lock.
func discard(ctx context.Context, docker *daemon.Client, dir cache.Dir, name string) error {
	err := errors.Join(
		retryOnConflict(ctx, func() error { return docker.Remove(ctx, name) }),
		retryOnConflict(ctx, func() error { return docker.RemoveVolume(ctx, volumeOf(name)) }),
		os.RemoveAll(socketFolder(dir, docker.Host(), name)),
	)
	if err != nil {
		return err
	}
	if err := os.Remove(dir.Path("locks", lockName(name))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweep removes the ephemeral engines whose processes are dead. Those of another
// cache folder are not ours to judge: their locks lie there. The caller holds
// the lock under which they are claimed.
func (p *provider) sweep(ctx context.Context) error {
	names, err := ephemerals(p.Cache)
	if err != nil {
		return err
	}
	for _, name := range names {
		lock := flock.New(p.Cache.Path("locks", lockName(name)))
		if held, err := lock.TryLock(); err != nil || !held {
			continue // its process lives
		}
		err := discard(ctx, p.docker, p.Cache, name)
		lock.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepUp sweeps if there is something to sweep, unless another process is at
// work on engines: that one has swept.
func (p *provider) sweepUp(ctx context.Context) error {
	names, err := ephemerals(p.Cache)
	if err != nil || len(names) == 0 {
		return err
	}
	now, cancel := context.WithCancel(ctx)
	cancel()
	unlock, err := p.Cache.Lock(now, engineLock, nil)
	if err != nil {
		return ctx.Err()
	}
	defer unlock()
	return p.sweep(ctx)
}

// ephemerals lists the ephemeral engines of this cache folder by their locks,
// which exist as long as anything else of them.
func ephemerals(dir cache.Dir) ([]string, error) {
	locks, err := os.ReadDir(dir.Path("locks"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, l := range locks {
		if name, ok := strings.CutPrefix(l.Name(), lockName("")); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
