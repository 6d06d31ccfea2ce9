// Package signals ends work on the signals that ask for it, and keeps to what
// whoever started the process wanted ignored: nohup ignores HUP, and the & of a
// shell without job control ignores INT.
package signals

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ignored holds the signals that were ignored when the process began. It is set
// before main runs, because the first signal.Notify of anybody, mage included,
// makes the process catch them and signal.Ignored forget. TERM and QUIT aren't
// asked for: Go's runtime catches them before any code of ours runs.
var ignored = slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGHUP}, func(s os.Signal) bool { return !signal.Ignored(s) })

// Ignored reports whether a signal was ignored when the process began.
func Ignored(s os.Signal) bool { return slices.Contains(ignored, s) }

// An Interrupt is the cause of the end of a context that a signal ended. It is a
// context.Canceled, too.
type Interrupt struct{ Signal syscall.Signal }

// Error names the signal unless it is that of Ctrl-C.
func (i Interrupt) Error() string {
	if i.Signal == syscall.SIGINT {
		return "interrupted"
	}
	return "interrupted by signal: " + i.Signal.String()
}

// Is makes every Interrupt a context.Canceled.
func (i Interrupt) Is(target error) bool { return target == context.Canceled }

// ExitCode is what a shell reports of a command that the signal ended.
func (i Interrupt) ExitCode() int { return 128 + int(i.Signal) }

// NotifyContext returns a context that INT, TERM and HUP end, with an Interrupt
// as the cause. Those that were ignored when the process began stay ignored.
func NotifyContext(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	caught := slices.DeleteFunc([]os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}, Ignored)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, caught...)
	go func() {
		select {
		case s := <-signals:
			cancel(Interrupt{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	if Ignored(syscall.SIGINT) {
		go ignoreAgain(ctx)
	}
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// ignoreAgain ignores INT once mage has asked for it, which it does for every
// target, in the moment after it started the target.
func ignoreAgain(ctx context.Context) {
	moment, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for signal.Ignored(syscall.SIGINT) {
		select {
		case <-moment.Done():
			return
		case <-tick.C:
		}
	}
	signal.Ignore(syscall.SIGINT)
}

// Explain puts before an error of work that ended with its context which signal
// ended that, unless the error begins so. mage ends contexts on INT by itself and
// doesn't say so.
func Explain(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	why := Interrupt{syscall.SIGINT}
	errors.As(context.Cause(ctx), &why)
	if strings.HasPrefix(err.Error(), why.Error()) && errors.As(err, new(Interrupt)) {
		return err
	}
	return fmt.Errorf("%w: %w", why, err)
}
