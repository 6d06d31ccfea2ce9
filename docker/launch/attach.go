package launch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/term"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/usage"
)

// detachKeys are Docker's own: Ctrl-P Ctrl-Q.
var detachKeys = []byte{'P' - '@', 'Q' - '@'}

// Attach connects the person's streams to a detached launch of theirs until it ends or
// they leave: by Ctrl-P Ctrl-Q at a terminal, by a signal, by closing the terminal. The
// launch never notices. A launch with a command has no input: it shows what is
// written from now on. The exit code is that of the launch if it has ended, 0 if the
// person left, and 128 and its number if a signal took them.
func Attach(ctx context.Context, d *daemon.Client, name string, s Streams) (code int, err error) {
	l, err := find(ctx, d, name, false, s)
	if err != nil {
		return ExitDaemon, err
	}
	if err := l.mine(); err != nil {
		return ExitDaemon, err
	}
	if !l.Lasting {
		return ExitDaemon, advice.With(fmt.Errorf("-n: %w: %s runs at the terminal that it was started at, and ends with it", usage.Err, l.Name),
			"Open another shell in it with\n\t%s shell -n=%s", advice.Berth, l.Name)
	}
	status, err := d.Inspect(ctx, l.status.ID)
	if err != nil {
		return ExitDaemon, err
	}
	if status.TTY && !s.terminal() {
		return ExitDaemon, fmt.Errorf("%w: %s has a terminal, so attaching to it takes one, for input and for output", usage.Err, l.Name)
	}
	ended, err := d.WaitStopped(ctx, status.ID)
	if err != nil {
		return ExitDaemon, err
	}
	session, err := d.Attach(ctx, status.ID)
	if err != nil {
		return ExitDaemon, err
	}
	defer session.Close()

	left := make(chan struct{}, 1)
	output := func() error { return session.CopyStreams(s.Out, s.Err) }
	if status.TTY {
		fmt.Fprintf(s.Err, "This is %s. Ctrl-P Ctrl-Q leaves it, and it goes on.\n", l.Name)
		output = func() error { return session.CopyTerminal(s.Out) }
		// Another size and back, so that what is on the screen is drawn again.
		if rows, columns := s.size(); rows > 0 {
			d.Resize(ctx, status.ID, rows+1, columns)
		}
		restore, err := s.makeRaw(func(rows, columns uint) { d.Resize(ctx, status.ID, rows, columns) })
		if err != nil {
			return ExitDaemon, err
		}
		defer restore()
		go func() {
			io.Copy(session, term.NewEscapeProxy(s.In, detachKeys))
			left <- struct{}{} // the keys, or the end of the terminal
		}()
	}
	copied := make(chan error, 1)
	go func() { copied <- output() }()
	select {
	case <-left:
	case <-ctx.Done():
		code, _ = interrupted(ctx)
	case err := <-copied:
		if code, e := ended(); e == nil {
			return code, nil
		} else if ctx.Err() == nil {
			return ExitDaemon, fmt.Errorf("the connection to %s broke; it may go on. Attach again: %w", l.Name, errors.Join(err, e))
		}
		code, _ = interrupted(ctx)
	}
	fmt.Fprintf(s.Err, "\r\nLeft %s, which goes on.\r\n", l.Name)
	return code, nil
}
