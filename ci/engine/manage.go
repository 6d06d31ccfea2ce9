package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/advice"
)

// A State is what there is of the persistent engine.
type State struct {
	Name      string // of its container
	Container string // its state as Docker names it (running, exited, …), empty if there is none
	Image     string // the image's ID
	Current   bool   // made from what the checkout asks for
	Foreign   bool   `json:"-"` // the container isn't an engine of Berth's
	Users     int    // connections to it
	Volume    string // with its state, empty if there is none
	Size      int64  // bytes in the volume; 0 unless a current engine runs, which counts them
	Limit     int64  // bytes that the engine keeps between builds; 0 if that isn't known, for an engine out of date
}

// Status says what there is of the persistent engine. It changes nothing.
func Status(ctx context.Context, o Options) (State, error) {
	p, err := manager(ctx, o)
	if err != nil {
		return State{}, err
	}
	defer p.docker.Close()
	s, err := p.look(ctx)
	if err == nil && s.Volume != "" && s.Current && s.Container == "running" {
		s.Size, err = p.size(ctx)
	}
	return s, err
}

// Look is Status without the size, which takes a moment and a process in the engine, and
// without a cache folder.
func Look(ctx context.Context, docker *daemon.Client, o Options) (State, error) {
	p, err := newProvider(docker, o)
	if err != nil {
		return State{}, err
	}
	return p.look(ctx)
}

func (p *provider) look(ctx context.Context) (State, error) {
	s := State{Name: p.name}
	c, err := p.container(ctx)
	if err != nil {
		return State{}, err
	}
	if c != nil {
		s.Container, s.Image, s.Users, s.Foreign = c.State, c.Image, len(c.Execs), c.Labels[daemon.LabelRole] != role
		s.Current = c.Labels[daemon.LabelRole] == role && p.wantedInputs(c.Labels[daemon.LabelInputs])
	}
	if s.Current {
		s.Limit = p.limit
	}
	if _, err := p.docker.Volume(ctx, volumeOf(p.name)); errors.Is(err, daemon.ErrNotFound) {
		return s, nil
	} else if err != nil {
		return State{}, err
	}
	s.Volume = volumeOf(p.name)
	return s, nil
}

// size counts the bytes of the engine's state. (Docker could, but counts those of
// everything else that it has as well, which takes it minutes before version 23.)
func (p *provider) size(ctx context.Context) (int64, error) {
	du, err := p.docker.Exec(ctx, p.name, "du", "-skx", stateDir)
	if err != nil {
		return 0, err
	}
	defer du.Close()
	stop := context.AfterFunc(ctx, func() { du.Close() })
	defer stop()
	said, err := io.ReadAll(du)
	if err != nil {
		return 0, fmt.Errorf("counting the engine's state: %w", err)
	}
	number, _, _ := strings.Cut(string(said), "\t")
	kilobytes, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("counting the engine's state: du printed %q", said)
	}
	return kilobytes << 10, nil
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

// Start starts the persistent engine. Its image is pulled or built first if
// need be.
func Start(ctx context.Context, o Options) error {
	o.Ephemeral = false
	e, err := Connect(ctx, o)
	if err != nil {
		return err
	}
	return e.Close()
}

// Stop stops the persistent engine, and the builds that use it. It keeps its
// state. Stop is a no-op if there is none.
func Stop(ctx context.Context, o Options) error {
	p, err := manager(ctx, o)
	if err != nil {
		return err
	}
	defer p.docker.Close()
	c, err := p.container(ctx)
	if err != nil || c == nil {
		return err
	}
	if err := p.mayRemove(ctx, c); err != nil {
		return err
	}
	// It writes its database and takes its network apart: seconds.
	return p.docker.Stop(ctx, c.ID, 30)
}

// Logs writes the log of the persistent engine: tail lines or "all", and what
// comes until ctx ends if follow is set.
func Logs(ctx context.Context, o Options, w io.Writer, tail string, follow bool) error {
	p, err := manager(ctx, o)
	if err != nil {
		return err
	}
	defer p.docker.Close()
	c, err := p.container(ctx)
	if err != nil {
		return err
	}
	if c == nil || c.Labels[daemon.LabelRole] != role {
		starts := "engine:start"
		if p.GPU {
			starts = "smoke -g=all -through=dagger"
		}
		return advice.With(fmt.Errorf("there is no engine %s", p.name), "Start one with\n\t%s %s", advice.Berth, starts)
	}
	frames, err := p.docker.Logs(ctx, c.ID, tail, follow)
	if err != nil {
		return err
	}
	defer frames.Close()
	return daemon.Demultiplex(w, w, frames)
}

// Prune removes the persistent engines, the one that hands GPUs on too, with their state, what killed processes left,
// the images that were built for engines, and the compiled programs. All of it can
// be made again. What this daemon has of other people's, or what other daemons
// have, stays, and stays on record: an engine of somebody else's is an error, after all
// else is removed.
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
	_, err = owned.Sweep(ctx, p.Cache, p.docker, true)
	for _, o.GPU = range []bool{false, true} {
		each, eerr := newProvider(p.docker, o)
		if eerr == nil {
			eerr = each.removeEngine(ctx)
		}
		err = errors.Join(err, eerr)
	}
	return errors.Join(err,
		owned.RemoveImages(ctx, p.Cache, p.docker, role, repository, ""),
		debian.RemoveAptImages(ctx, p.Cache, p.docker),
		p.removePrograms(),
	)
}

// removeEngine removes the engine with its socket and its state, in every version of it.
func (p *provider) removeEngine(ctx context.Context) error {
	c, err := p.container(ctx)
	if err != nil {
		return err
	}
	if c != nil {
		if err := p.mayRemove(ctx, c); err != nil {
			return err
		}
		if err := p.remove(ctx, c.ID); err != nil {
			return err
		}
	}
	id, err := p.docker.ID(ctx)
	if err != nil {
		return err
	}
	volumes, err := owned.Recorded(p.Cache, owned.KindVolume, id)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.For == p.name {
			if err := p.removeVolume(ctx, v.ID); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(p.socketFolder())
}

// removePrograms removes the compiled programs. The sockets of engines of other names
// lie in the same folder, and stay.
func (p *provider) removePrograms() error {
	entries, err := os.ReadDir(p.Cache.Path("engine"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	sockets := filepath.Dir(p.socketFolder())
	for _, e := range entries {
		if path := p.Cache.Path("engine", e.Name()); path != sockets {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}
