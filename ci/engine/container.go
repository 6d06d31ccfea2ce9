package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// mayRemove returns an error unless a container is this provider's to remove: the
// ephemeral engine, or one on record.
func (p *provider) mayRemove(ctx context.Context, c *daemon.Status) error {
	if p.Ephemeral {
		return nil
	}
	if c.Labels[daemon.LabelRole] != role {
		return p.notOurs()
	}
	id, err := p.docker.ID(ctx)
	if err != nil {
		return err
	}
	ours, err := owned.Owns(p.Cache, owned.KindContainer, id, c.ID)
	if err == nil && !ours {
		err = p.notRecorded("container " + p.name)
	}
	return err
}

// remove removes the engine's container, also while somebody else does, and the
// record of it.
func (p *provider) remove(ctx context.Context, id string) error {
	if err := owned.RetryOnConflict(ctx, func() error { return p.docker.Remove(ctx, id) }); err != nil {
		return err
	}
	daemonID, err := p.docker.ID(ctx)
	if err != nil {
		return err
	}
	return owned.Forget(p.Cache, owned.Persistent{Kind: owned.KindContainer, Daemon: daemonID, ID: id})
}

// removeVolume removes a volume with the engine's state, if it is on record.
func (p *provider) removeVolume(ctx context.Context, name string) error {
	remove := func() error {
		return owned.RetryOnConflict(ctx, func() error { return p.docker.RemoveVolume(ctx, name) })
	}
	if p.Ephemeral {
		return remove()
	}
	id, err := p.docker.ID(ctx)
	if err != nil {
		return err
	}
	v, err := p.docker.Volume(ctx, name)
	if err == nil {
		ours, err := owned.OwnsVolume(p.Cache, id, v)
		if err != nil {
			return err
		}
		if !ours {
			return p.notRecorded("volume " + name)
		}
		if err := remove(); err != nil {
			return err
		}
	} else if !errors.Is(err, daemon.ErrNotFound) {
		return err
	}
	return owned.Forget(p.Cache, owned.Persistent{Kind: owned.KindVolume, Daemon: id, ID: name})
}

// How often another process, with which this one has no lock in common, may be in
// the way, and how long this one waits each time.
const (
	maxConflicts  = 100
	conflictPause = 100 * time.Millisecond
)

// inTransit reports whether whoever made a container is about to start or to remove
// it, if that process lives.
func inTransit(state string) bool {
	return state == "created" || state == "removing" || state == "dead"
}

// run makes the engine's container run and returns its ID.
func (p *provider) run(ctx context.Context) (string, error) {
	waiting := false
	for conflicts := 0; ; {
		c, err := p.container(ctx)
		if err != nil {
			return "", err
		}
		switch decide(c, p.wanted) {
		case use:
			return c.ID, nil
		case start:
			foreign := p.mayRemove(ctx, c)
			if foreign != nil && inTransit(c.State) && conflicts < maxConflicts {
				conflicts++
				err = sleep(ctx, conflictPause)
				break
			}
			if err = p.docker.Start(ctx, c.ID); err == nil {
				return c.ID, nil
			}
			if foreign != nil {
				return "", fmt.Errorf("%w\n%w", err, foreign)
			}
			// Perhaps its volume or its image is gone.
			err = p.remove(ctx, c.ID)
		case resume:
			if err = p.docker.Unpause(ctx, c.ID); err == nil {
				return c.ID, nil
			}
		case replace:
			if err = p.mayRemove(ctx, c); err != nil {
				if inTransit(c.State) && conflicts < maxConflicts {
					conflicts++
					err = sleep(ctx, conflictPause)
				}
				break
			}
			// Its replacement comes first: it may not be available.
			if _, _, err = p.findImage(ctx); err == nil {
				err = p.remove(ctx, c.ID)
			}
		case wait:
			if err = p.mayRemove(ctx, c); err != nil {
				break
			}
			if !waiting {
				waiting = true
				p.Report.Printf("The engine %s is out of date, but another build uses it: waiting for its end. "+
					"(Another name in %s gives another engine.)", p.name, envName)
			}
			err = sleep(ctx, time.Second)
		case refuse:
			err = p.notOurs()
		case create:
			var id string
			if id, err = p.create(ctx); err == nil {
				return id, nil
			}
		}
		if (errors.Is(err, daemon.ErrConflict) || errors.Is(err, daemon.ErrNotFound)) && conflicts < maxConflicts {
			// Somebody else, with another cache folder, has made or removed it meanwhile.
			conflicts++
			err = sleep(ctx, conflictPause)
		}
		if err != nil {
			return "", err
		}
	}
}

func (p *provider) notOurs() error {
	return advice.About(fmt.Errorf("%w: the container %s isn't an engine of Berth's", ErrUnavailable, p.name), trouble.ForeignEngine)
}

// notRecorded is the error about something that would have to go, but may be
// another person's.
func (p *provider) notRecorded(what string) error {
	return fmt.Errorf("%w: the %s isn't on record in %s: it belongs to another person or cache folder, and isn't Berth's to stop or remove."+
		" Use an engine of your own:\n\texport %s=berth-engine-%d", ErrUnavailable, what, p.Cache.Path("owned"), envName, os.Getuid())
}

// create makes the container, in the first way that the host allows, and starts it.
func (p *provider) create(ctx context.Context) (id string, err error) {
	image, inputs, err := p.findImage(ctx)
	if err != nil {
		return "", err
	}
	scope := p.scope
	if scope == nil {
		// What is made is on record before it exists, until it has a record of its own.
		if scope, err = owned.Claim(p.Cache, p.docker, role); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, scope.Close(context.WithoutCancel(ctx))) }()
	}
	s := spec{name: p.name, image: image, inputs: inputs, group: os.Getgid(), limit: p.limit}
	if s.gpus, err = p.gpus(inputs); err != nil {
		return "", err
	}
	if strings.HasPrefix(p.docker.Host(), "unix://") {
		s.socket = p.socketFolder()
		if err := os.MkdirAll(s.socket, 0o700); err != nil {
			return "", err
		}
	}
	if err := p.createVolume(ctx, scope, s); err != nil {
		return "", err
	}
	p.Report.Update("Starting the engine %s from %s", p.name, image)
	ways := s.containers()
	for i, way := range ways {
		id, err := scope.Container(ctx, way)
		if err != nil && noSuchFolder(err) && i < len(ways)-1 {
			continue // the daemon has another file system than this process
		} else if err != nil {
			return "", err
		}
		if err = p.docker.Start(ctx, id); err == nil {
			if p.Ephemeral {
				return id, nil
			}
			if err = p.record(ctx, owned.Persistent{Kind: owned.KindContainer, ID: id}); err == nil {
				scope.Release()
			}
			return id, err
		}
		if rerr := p.docker.Remove(context.WithoutCancel(ctx), id); rerr != nil {
			return "", errors.Join(err, rerr)
		}
		if !notPrivileged(err) {
			return "", err
		}
		if i == len(ways)-1 {
			return "", fmt.Errorf("%w: this host doesn't let a container have the rights that the engine needs. "+
				"Use a Docker that isn't nested in a container, or name an engine that runs elsewhere in %s: %w", ErrUnavailable, envRunnerHost, err)
		}
	}
	panic("an engine has no way to run")
}

// createVolume makes the volume with the engine's state, unless there is one:
// somebody else's is used, and never removed.
func (p *provider) createVolume(ctx context.Context, scope *owned.Scope, s spec) error {
	if _, err := p.docker.Volume(ctx, s.volume()); !errors.Is(err, daemon.ErrNotFound) {
		return err
	}
	if err := scope.Volume(ctx, s.volume(), s.labels()); err != nil || p.Ephemeral {
		return err
	}
	v, err := p.docker.Volume(ctx, s.volume())
	if err != nil {
		return err
	}
	// Another process may have been faster. Its volume stays if this one gives up.
	if scope.Made(v.Labels) {
		err = p.record(ctx, owned.Persistent{Kind: owned.KindVolume, ID: v.Name, Claim: v.Labels[daemon.LabelClaim]})
	}
	if err == nil {
		scope.Release()
	}
	return err
}

// record gives something that belongs to the persistent engine a record that lasts.
func (p *provider) record(ctx context.Context, l owned.Persistent) (err error) {
	if l.Daemon, err = p.docker.ID(ctx); err != nil {
		return err
	}
	l.For = p.name
	return owned.Record(p.Cache, l)
}
