package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/signals"
)

// shellVariable is in the environment of every process of one shell, by which they are
// told from the container's others.
const shellVariable = "BERTH_SHELL"

// Shell opens another shell in a running launch of the person's, or runs a command
// there, with the launch's user, environment and working folder. It returns the exit
// code of that. Where ctx ends by a signal, as when the terminal is closed, the shell
// and what it started get that signal; Docker by itself would let them run on.
func Shell(ctx context.Context, d *daemon.Client, name, command string, s Streams) (code int, err error) {
	l, err := find(ctx, d, name, false, s)
	if err != nil {
		return ExitDaemon, err
	}
	if err := l.mine(); err != nil {
		return ExitDaemon, err
	}
	image, err := d.Image(ctx, l.status.Image)
	if err != nil && !errors.Is(err, daemon.ErrNotFound) {
		return ExitDaemon, err
	}
	var random [8]byte
	rand.Read(random[:])
	mark := shellVariable + "=" + hex.EncodeToString(random[:])
	rows, columns := s.size()
	t := Terminal{Present: s.terminal(), Rows: rows, Columns: columns, Type: os.Getenv("TERM")}
	id, session, err := d.StartShell(ctx, l.status.ID, shellSpec(image, command, mark, t, d.APIVersion()))
	if err != nil {
		return ExitDaemon, err
	}
	defer session.Close()

	output := func() error { return session.CopyStreams(s.Out, s.Err) }
	gone := make(chan struct{}, 1)
	if t.Present {
		output = func() error { return session.CopyTerminal(s.Out) }
		restore, err := s.makeRaw(func(rows, columns uint) { d.ResizeShell(ctx, id, rows, columns) })
		if err != nil {
			return ExitDaemon, err
		}
		defer restore()
	}
	go func() {
		_, err := io.Copy(session, s.In)
		if t.Present {
			gone <- struct{}{} // a terminal ends when it is closed
		} else if !errors.Is(err, io.ErrClosedPipe) {
			session.CloseWrite()
		}
	}()
	copied := make(chan error, 1)
	go func() { copied <- output() }()
	lasting := context.WithoutCancel(ctx)
	ending := "TERM"
	if t.Present {
		ending = "HUP" // a shell at a terminal ignores TERM
	}
	select {
	case <-gone:
		return exitSignal + int(unix.SIGHUP), endShell(lasting, d, l.status.ID, mark, ending)
	case <-ctx.Done():
		why := signals.Interrupt{Signal: unix.SIGTERM}
		errors.As(context.Cause(ctx), &why)
		err := endShell(lasting, d, l.status.ID, mark, signalName(why.Signal))
		return why.ExitCode(), err
	case err := <-copied:
		if err != nil {
			return ExitDaemon, errors.Join(fmt.Errorf("passing on the output: %w", err), endShell(lasting, d, l.status.ID, mark, ending))
		}
	}
	// The output may end a moment before the command.
	for p := (pause{}); ; p.wait() {
		running, code, err := d.ShellStatus(ctx, id)
		if err != nil {
			return ExitDaemon, err
		}
		if !running {
			return code, nil
		}
	}
}

// shellSpec decides what to run: the image's own shell, as far as its command names it.
func shellSpec(image daemon.Image, command, mark string, t Terminal, api string) daemon.Shell {
	shell := "sh"
	if len(image.Command) > 0 && slices.Contains(shells, path.Base(image.Command[0])) {
		shell = image.Command[0]
	}
	s := daemon.Shell{Command: []string{shell}, Env: []string{mark}, TTY: t.Present, ConsoleSize: [2]uint{t.Rows, t.Columns}}
	if command != "" {
		s.Command = []string{shell, "-c", command}
	}
	if t.Present && slices.Contains(terminals, t.Type) {
		s.Env = append(s.Env, "TERM="+t.Type)
	}
	if t.Present && t.Rows > 0 && t.Columns > 0 && !atLeast(api, 1, 42) {
		s.Command = append([]string{shell, "-c", fmt.Sprintf(sized, t.Rows, t.Columns), shell}, s.Command...)
	}
	return s
}

// signalMarked sends a signal ($2), once, to each process whose environment has the
// mark ($1). It looks until it finds no more: one that is just being started has no
// environment for a moment, or wasn't there when it began to look.
const signalMarked = `told=" "
new=yes
while [ "$new" ]; do
	new=
	for p in /proc/[0-9]*; do
		case $told in *" $p "*) continue ;; esac
		grep -qs "$1" "$p/environ" || continue
		told="$told$p "
		new=yes
		kill -s "$2" "${p#/proc/}" 2>/dev/null
	done
done
true`

// endTimeout is how long Docker may take to send the processes of a shell their signal: a
// second, if the machine isn't busy. Whoever waits for a Docker that hangs waits as long.
const endTimeout = 30 * time.Second

// endShell sends a signal to what a shell consists of.
func endShell(ctx context.Context, d *daemon.Client, container, mark, signal string) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	p, err := d.Exec(ctx, container, "sh", "-c", signalMarked, "sh", mark, signal)
	if errors.Is(err, daemon.ErrNotFound) || errors.Is(err, daemon.ErrConflict) {
		return nil // the launch has ended
	} else if err != nil {
		return err
	}
	defer p.Close()
	_, err = io.Copy(io.Discard, p)
	return err
}
