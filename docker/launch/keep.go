package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// stopTimeout is how long a lasting container may take to end after the signal that
// asks it to. Then it is killed.
const stopTimeout = 10 * time.Second

// KeepIfAsked makes this process a keeper, which ends when its launch has, if Detach
// started it as one; else it does nothing. Programs that call Detach call it before
// anything else.
func KeepIfAsked() {
	if os.Getenv(keeperVariable) == "" {
		return
	}
	os.Unsetenv(keeperVariable)
	// A keeper has nobody who could leave or press Ctrl-C.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := keep(ctx, os.Stdin, os.NewFile(answerFile, "answer")); err != nil {
		os.Exit(ExitDaemon) // what was wrong is answered, or on record for the next command
	}
	os.Exit(0)
}

// keep does what an order says, and answers when the container has started.
func keep(ctx context.Context, in io.Reader, out *os.File) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("reading what to keep: %w", err)
	}
	k := keeper{plan: o.plan()}
	for i := range o.Held {
		syscall.CloseOnExec(firstHeld + i)
		k.held = append(k.held, os.NewFile(uintptr(firstHeld+i), "held"))
	}
	syscall.CloseOnExec(answerFile)
	code, err := k.start(ctx)
	// If it fails, whoever asked is dead. They asked for this launch nevertheless.
	json.NewEncoder(out).Encode(answerOf(code, err))
	out.Close()
	if err != nil {
		return err
	}
	return k.finish(ctx)
}

// A keeper holds what a detached launch needs until its end.
type keeper struct {
	plan    Plan
	held    []*os.File
	daemon  *daemon.Client
	scope   *owned.Scope
	grant   *display.Grant
	id      string // of the container
	lasting owned.Lasting
}

// start creates and starts the container. If it can't, nothing is left of it, and the
// exit code is docker run's.
func (k *keeper) start(ctx context.Context) (code int, err error) {
	p := k.plan
	if k.daemon, err = daemon.Connect(ctx); err != nil {
		return ExitDaemon, err
	}
	dir, err := cache.Open()
	if err != nil {
		return ExitDaemon, err
	}
	if k.scope, err = owned.Claim(dir, k.daemon, Role); err != nil {
		return ExitDaemon, err
	}
	lasting := context.WithoutCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, k.scope.Close(lasting))
		}
	}()
	if k.grant, err = p.Display.Open(ctx, k.scope.Path()); err != nil {
		return ExitDaemon, fmt.Errorf("-gui: %w. Without windows: -gui=off", err)
	}
	defer func() {
		if err != nil {
			k.grant.Close()
		}
	}()
	spec, err := p.realize(k.scope.Path(), k.grant)
	if err != nil {
		return ExitDaemon, err
	}
	k.lasting = owned.Lasting{Name: spec.Name, Image: spec.Image, User: p.User, GPUs: spec.Labels[daemon.LabelGPUs], TTY: spec.TTY,
		Since: time.Now().Round(0)}
	if k.id, err = k.scope.LastingContainer(lasting, spec, k.lasting); err == nil {
		if err = p.check(); err == nil {
			err = k.daemon.Start(ctx, k.id)
		}
	}
	if err != nil {
		return explainStart(lasting, k.daemon, p, err)
	}
	k.scope.NoteDaemon(lasting)
	return 0, nil
}

// finish waits for the end of the container, which the end of ctx asks for, gives
// back what is held, and leaves the output and the exit code in the cache alone.
func (k *keeper) finish(ctx context.Context) error {
	lasting := context.WithoutCancel(ctx)
	context.AfterFunc(ctx, func() {
		for p := (pause{}); ; p.wait() {
			if err := stop(lasting, k.daemon, k.id, k.lasting.TTY); err == nil || errors.Is(err, daemon.ErrNotFound) {
				return
			}
		}
	})
	waitForEnd(lasting, k.daemon, k.id)
	for _, f := range k.held {
		f.Close()
	}
	k.grant.Close() // the X server may be gone by now, and the cookie with it
	for p := (pause{}); ; p.wait() {
		err := k.scope.Save(lasting, k.id, k.lasting)
		if err == nil {
			return k.scope.Close(lasting)
		}
		// A daemon that took the container along when it ended comes back, mostly.
		if !errors.Is(err, daemon.ErrUnavailable) || ctx.Err() != nil {
			k.scope.Leave() // to the next command
			return err
		}
	}
}

// stop asks a container to end by TERM and kills it after stopTimeout. A shell at a
// terminal ignores TERM, and ends by HUP, as when its terminal is closed.
func stop(ctx context.Context, d *daemon.Client, id string, tty bool) error {
	if tty {
		d.Kill(ctx, id, "HUP") // if it fails, so does what follows
	}
	return d.Stop(ctx, id, int(stopTimeout.Seconds()))
}

// waitForEnd returns when a container doesn't run any more, whatever becomes of the
// connection to the daemon meanwhile: with live-restore, containers outlive daemons.
func waitForEnd(ctx context.Context, d *daemon.Client, id string) {
	for p := (pause{}); ; p.wait() {
		if ended, err := d.WaitStopped(ctx, id); err == nil {
			ended()
		}
		// A daemon that ends answers whoever waits, so the answer proves nothing.
		s, err := d.Inspect(ctx, id)
		if errors.Is(err, daemon.ErrNotFound) || err == nil && s.Ended() {
			return
		}
	}
}

// A pause between attempts, short at first, never longer than a person would notice.
type pause struct{ last time.Duration }

func (p *pause) wait() {
	p.last = min(max(2*p.last, 10*time.Millisecond), 500*time.Millisecond)
	time.Sleep(p.last)
}
