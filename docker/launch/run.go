package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/signals"
)

// The exit codes of docker run, besides the command's own.
const (
	ExitDaemon      = 125 // Docker, or Berth, failed
	ExitNotRunnable = 126 // the command can't be run
	ExitNotFound    = 127 // there is no such command
	exitSignal      = 128 // and the number of the signal that ended it
)

// killTimeout is how long a container may take to end after a signal, once the
// person's terminal or the reader of its output is gone.
const killTimeout = 3 * time.Second

// Run carries out a plan: it creates the container, connects the streams to it,
// and waits until it has ended and is gone. It returns the exit code that
// docker run would, and an error if that code is Docker's or Berth's rather than
// the command's own. When it returns, the terminal is as it was and nothing of
// the launch is left.
//
// It takes over the signals INT, TERM, HUP and QUIT of the process. Those that are
// ignored, as under nohup, stay so, unless the caller has asked for them. Without
// a terminal they go to the command, as with docker run; with one they mean that
// the person is gone, and end the container. So does the end of ctx. A last read of
// standard input may still be waiting when it returns.
func Run(ctx context.Context, d *daemon.Client, p Plan, s Streams) (code int, err error) {
	// TERM and QUIT are always among them: none at all would mean every signal.
	caught := slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}, signals.Ignored)
	// Others may have asked for these, to exit the process soon after the first:
	// from here on they are the command's.
	signal.Reset(caught...)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, caught...)
	defer signal.Stop(signals)
	// Until the container runs, a signal gives up; cleaning up goes on.
	starting, stop := signal.NotifyContext(ctx, caught...)
	defer stop()
	return run(ctx, starting, d, p, s, signals)
}

// RunWithin is Run for a caller with other work beside it: the process's signals stay those
// of the caller, and the end of ctx alone ends the container.
func RunWithin(ctx context.Context, d *daemon.Client, p Plan, s Streams) (code int, err error) {
	return run(ctx, ctx, d, p, s, nil)
}

// run is Run, with the signals that it is to act on, and a context that the first of them ends.
func run(ctx, starting context.Context, d *daemon.Client, p Plan, s Streams, signals <-chan os.Signal) (code int, err error) {
	// A closed pipe is an error of the write, not the end of this process.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	failed := func(err error) (int, error) {
		if starting.Err() != nil && ctx.Err() == nil {
			return exitSignal + int((<-signals).(syscall.Signal)), nil
		}
		return ExitDaemon, err
	}
	dir, err := p.prepare(starting, d, s)
	if err != nil {
		return failed(err)
	}
	scope, err := owned.Claim(dir, d, Role)
	if err != nil {
		return ExitDaemon, err
	}
	lasting := context.WithoutCancel(ctx)
	defer func() {
		if e := scope.Close(lasting); e != nil {
			err = errors.Join(err, e)
		}
	}()
	grant, err := p.Display.Open(starting, scope.Path())
	if err != nil {
		return failed(fmt.Errorf("-gui: %w. Without windows: -gui=off", err))
	}
	defer grant.Close() // the X server may be gone by now, and the cookie with it
	spec, err := p.realize(scope.Path(), grant)
	if err != nil {
		return ExitDaemon, err
	}

	l := launch{daemon: d, scope: scope, streams: s, tty: spec.TTY}
	if err := l.start(starting, lasting, spec, p.check); err != nil {
		if starting.Err() != nil {
			return failed(err)
		}
		return explainStart(lasting, d, p, err)
	}
	scope.NoteDaemon(lasting)
	defer l.session.Close()
	return l.supervise(ctx, signals)
}

// prepare says what the person should know, removes what killed launches left, and
// makes the home and the places of mounts.
func (p Plan) prepare(ctx context.Context, d *daemon.Client, s Streams) (cache.Dir, error) {
	for _, note := range p.Notes {
		fmt.Fprintln(s.Err, note)
	}
	dir, err := cache.Open()
	if err != nil {
		return "", err
	}
	if len(p.Abandoned) > 0 {
		// What can't be removed now stays on record: no reason not to go on.
		if _, err := owned.Sweep(ctx, dir, d, false); err != nil && ctx.Err() == nil {
			fmt.Fprintf(s.Err, "Removing what a killed launch left: %v\n", err)
		}
	}
	if err := p.Home.seed(ctx); err != nil {
		return "", err
	}
	return dir, makeMountPoints(p.Container.Mounts)
}

// realize returns the container to create, with the plan's files written to the
// launch's folder.
func (p Plan) realize(folder string, g *display.Grant) (daemon.Container, error) {
	c := p.Container
	c.Labels = maps.Clone(c.Labels)
	c.Labels[daemon.LabelRole], c.Labels[daemon.LabelUser] = Role, p.User
	if !p.GPU.None() {
		c.Labels[daemon.LabelGPUs] = p.GPU.String()
	}
	c.Mounts = slices.Clone(c.Mounts)
	files := p.Files
	if p.Display.Kind == display.X11 {
		files = append(slices.Clone(files), File{Name: "Xauthority", Target: xauthority, Content: string(g.Xauthority), Mode: 0o600})
	}
	for _, f := range files {
		path := filepath.Join(folder, f.Name)
		if err := os.WriteFile(path, []byte(f.Content), f.Mode); err != nil {
			return daemon.Container{}, err
		}
		if err := os.Chmod(path, f.Mode); err != nil { // whatever the umask
			return daemon.Container{}, err
		}
		c.Mounts = append(c.Mounts, daemon.Mount{Type: "bind", Source: path, Target: f.Target, ReadOnly: true})
	}
	if p.Display.Kind != display.Off {
		c.Mounts = append(c.Mounts, daemon.Mount{Type: "bind", Source: g.Socket, Target: p.Socket, ReadOnly: true})
	}
	for _, v := range p.Env {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	return c, nil
}

// check refuses mounts that a container has turned into symbolic links since the
// plan was made. Docker follows the paths itself, moments later: against a container that
// makes a link just in between, this is no defence (docs/run.md says so).
func (p Plan) check() error {
	for _, m := range p.Container.Mounts {
		if err := unlinked(p.Home.Checkout, m.Source); err != nil {
			return err
		}
	}
	return nil
}

// A launch is a container and the streams that it is connected to.
type launch struct {
	daemon  *daemon.Client
	scope   *owned.Scope
	streams Streams
	tty     bool
	id      string // "" before it is created
	session *daemon.Session
	ended   func() (int, error) // waits for its exit code and its removal
}

// start creates the container, waits for its end, connects to it, has a last check
// made and starts it: in this order no exit code and no output is lost.
func (l *launch) start(ctx, lasting context.Context, spec daemon.Container, check func() error) (err error) {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if l.id, err = l.scope.Container(lasting, spec); err != nil {
		return err
	}
	if l.ended, err = l.daemon.Wait(lasting, l.id); err != nil {
		return err
	}
	if l.session, err = l.daemon.Attach(ctx, l.id); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	return l.daemon.Start(ctx, l.id)
}

// supervise copies the streams, and passes on signals and the size of the terminal
// until the container is gone. It returns the exit code.
func (l *launch) supervise(ctx context.Context, signals <-chan os.Signal) (int, error) {
	lasting := context.WithoutCancel(ctx)
	if l.tty {
		restore, err := l.streams.makeRaw(func(rows, columns uint) {
			// It fails when the container has just ended: nobody looks any more.
			l.daemon.Resize(lasting, l.id, rows, columns)
		})
		if err != nil {
			return ExitDaemon, err
		}
		defer restore()
	}

	// The person is gone: what to tell the container.
	gone := make(chan syscall.Signal, 1)
	go func() {
		_, err := io.Copy(l.session, l.streams.In)
		if l.tty {
			// A terminal ends when it is closed.
			gone <- syscall.SIGHUP
		} else if !errors.Is(err, io.ErrClosedPipe) {
			l.session.CloseWrite()
		}
	}()
	copied := make(chan error, 1)
	go func() {
		copy := func() error { return l.session.CopyStreams(l.streams.Out, l.streams.Err) }
		if l.tty {
			copy = func() error { return l.session.CopyTerminal(l.streams.Out) }
		}
		err := copy()
		copied <- err
		if err != nil {
			// The daemon holds the container while it waits for a reader, and can't even
			// kill it then.
			l.session.Discard()
		}
	}()
	type result struct {
		code int
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		code, err := l.ended()
		ended <- result{code, err}
	}()

	var why syscall.Signal // that the container is being ended, 0 if it isn't
	var kill <-chan time.Time
	end := func(s syscall.Signal) {
		if why == 0 {
			why = s
			kill = time.After(killTimeout)
			l.daemon.Kill(lasting, l.id, signalName(s))
		}
	}
	cancelled := ctx.Done()
	var failure error // why output can't be passed on, unless its reader just left
	for {
		select {
		case r := <-ended:
			if r.err != nil {
				return ExitDaemon, r.err
			}
			l.scope.Release()
			if copied != nil && why == 0 {
				select {
				case err := <-copied:
					failure = l.outputError(err)
				// While nobody reads the last of the output:
				case s := <-signals:
					return exitSignal + int(s.(syscall.Signal)), nil
				case <-ctx.Done():
					return exitSignal + int(syscall.SIGTERM), nil
				}
			}
			if failure != nil {
				return ExitDaemon, failure
			}
			if why != 0 {
				return exitSignal + int(why), nil
			}
			return r.code, nil
		case err := <-copied:
			copied = nil
			if failure = l.outputError(err); failure != nil {
				end(syscall.SIGTERM)
			} else if errors.Is(err, syscall.EPIPE) {
				end(syscall.SIGPIPE)
			} else if err != nil {
				end(syscall.SIGHUP)
			}
		case s := <-signals:
			if l.tty {
				end(s.(syscall.Signal))
			} else {
				l.daemon.Kill(lasting, l.id, signalName(s.(syscall.Signal)))
			}
		case s := <-gone:
			end(s)
		case <-cancelled:
			cancelled = nil
			end(syscall.SIGTERM)
		case <-kill:
			kill = nil
			l.daemon.Kill(lasting, l.id, "KILL")
		}
	}
}

// outputError returns what to report about the end of the output. A reader that leaves
// and a terminal that is closed are ends like others, a full disk isn't: the
// command would go on, and nobody would ever see what it found.
func (l *launch) outputError(err error) error {
	if err == nil || l.tty || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("passing on the command's output: %w. The container was ended. "+
		"If a disk is full, make room or send the output elsewhere", err)
}

// signalName returns the name that the daemon knows a signal by: "TERM".
func signalName(s syscall.Signal) string {
	return strings.TrimPrefix(unix.SignalName(s), "SIG")
}
