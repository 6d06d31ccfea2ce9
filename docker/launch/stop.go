package launch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// saveTimeout is how long it may take until what an ended launch wrote is saved, while no
// process that lives is about to.
var saveTimeout = time.Minute

// Stop ends a launch of the person's by TERM (and HUP where it has a terminal, as when
// that is closed) and, ten seconds later, by KILL. With all it ends all of their
// lasting ones. It returns those that have ended, with their exit codes, once what they
// wrote is saved. What isn't theirs by a record is refused.
func Stop(ctx context.Context, d *daemon.Client, name string, all bool, s Streams) ([]Launch, error) {
	var chosen []Launch
	if all {
		found, err := look(ctx, d, s)
		if err != nil {
			return nil, err
		}
		chosen = slices.DeleteFunc(found, func(l Launch) bool { return l.ended != nil || l.status.Ended() || !l.Lasting })
	} else {
		l, err := find(ctx, d, name, false, s)
		if err == nil {
			err = l.mine()
		}
		if err != nil {
			return nil, err
		}
		chosen = []Launch{l}
	}
	var stopped []Launch
	var errs []error
	for _, l := range chosen {
		l, err := l.stop(ctx, d)
		if err == nil {
			stopped = append(stopped, l)
		}
		errs = append(errs, err)
	}
	return stopped, errors.Join(errs...)
}

// stop ends a launch and returns it with its exit code.
func (l Launch) stop(ctx context.Context, d *daemon.Client) (Launch, error) {
	ended, err := d.WaitStopped(ctx, l.status.ID)
	if err == nil {
		var s daemon.Status
		if s, err = d.Inspect(ctx, l.status.ID); err == nil {
			err = stop(ctx, d, s.ID, s.TTY)
		}
	}
	if err != nil && !errors.Is(err, daemon.ErrNotFound) {
		return l, err
	}
	if !l.Lasting {
		if err != nil {
			return l, err // it has ended, and is gone
		}
		code, err := ended()
		l.State, l.Code = "exited", &code
		return l, err
	}
	return l.saved(ctx, d)
}

// saved waits until an ended launch is in the cache: its keeper puts it there, however
// long that takes, or, if that was killed, this does.
func (l Launch) saved(ctx context.Context, d *daemon.Client) (Launch, error) {
	dir, err := cache.Open()
	if err != nil {
		return l, err
	}
	var waited time.Duration // for nobody
	for p := (pause{}); ; p.wait() {
		if saved, err := l.inCache(ctx, d); err != nil || saved.ended != nil {
			return saved, err
		}
		if ctx.Err() != nil {
			return l, context.Cause(ctx)
		}
		kept, err := owned.Kept(dir, l.status.ID)
		if err != nil {
			return l, err
		}
		if kept {
			continue
		}
		if waited += p.last; waited >= saveTimeout {
			return l, fmt.Errorf("%s has ended, but what it wrote couldn't be saved within %s. The next command tries again", l.Name, saveTimeout)
		}
	}
}

// Stopped is what became of a launch that was stopped, in a line.
func (l Launch) Stopped() string { return fmt.Sprintf("stopped %s: %s", l.Name, l.how()) }
