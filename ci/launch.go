package ci

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// Plan plans a launch. Unless the options name an image it is the project's own,
// which is built first if build is set. Nothing is leased: which GPUs are idle is as of
// now, and what a launch would wait for is among the plan's notes.
func Plan(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (launch.Plan, error) {
	host, o, err := look(ctx, docker, p, o, build, s, report)
	if err != nil {
		return launch.Plan{}, err
	}
	o, notes, err := preview(ctx, docker, host, o)
	if err != nil {
		return launch.Plan{}, err
	}
	plan, err := launch.NewPlan(host, o)
	plan.Notes = append(plan.Notes, notes...)
	return plan, err
}

// look returns all that a plan depends on, with the image built if it should be.
func look(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (launch.Host, launch.Options, error) {
	build = build && o.Image == ""
	o.Project, o.Root, o.Home, o.Skeleton = p.Name, p.Root, p.Home, p.Skeleton
	o.Image = cmp.Or(o.Image, p.Tag())
	host, err := probe(ctx, docker, p, o, build, s, report)
	if err != nil {
		return launch.Host{}, o, err
	}
	o.Digest, err = Digest(ctx, docker, host.Image)
	return host, o, err
}

// probe reads the host, and meanwhile builds the image if it should. Mostly
// nothing has changed: then neither waits for the other.
func probe(
	ctx context.Context, docker *daemon.Client, p Project, o launch.Options, build bool, s launch.Streams, report *progress.Reporter,
) (host launch.Host, err error) {
	if !build {
		return launch.Probe(ctx, docker, o, s)
	}
	var unknown error
	var work sync.WaitGroup
	work.Go(func() { host, unknown = launch.Probe(ctx, docker, o, s) })
	result, err := Build(ctx, p, BuildOptions{Report: report})
	work.Wait()
	if err != nil {
		return launch.Host{}, err
	}
	if unknown != nil || !result.Cached || host.Image.ID != result.ID {
		return launch.Probe(ctx, docker, o, s) // before, there was another image, or none
	}
	return host, nil
}

// A Verdict is how a smoke command ended.
type Verdict struct {
	Command string
	Code    int // exit code
	Took    time.Duration
}

// String is the verdict in a line for a person.
func (v Verdict) String() string {
	how := "ok"
	if v.Code != 0 {
		how = fmt.Sprintf("exit code %d", v.Code)
	}
	return fmt.Sprintf("%s: %s (%.1f s)", v.Command, how, v.Took.Seconds())
}

// Smoke runs commands, one after the other, by a function that returns their exit
// codes, and says each verdict. Its error says how many failed. A command that
// couldn't be run, and one that a person ended, end it at once.
func Smoke(commands []string, run func(command string) (code int, err error), say func(Verdict)) error {
	failures := 0
	for _, command := range commands {
		start := time.Now()
		code, err := run(command)
		if err != nil {
			return err
		}
		if s := signalOf(code); s != 0 {
			return fmt.Errorf("%s: %w", command, signals.Interrupt{Signal: s})
		}
		say(Verdict{command, code, time.Since(start)})
		if code != 0 {
			failures++
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d smoke commands failed", failures, len(commands))
	}
	return nil
}

// signalOf returns the signal by which a person, with Ctrl-C for one, or their
// terminal, by closing, ended a command that has that exit code; 0 if none did.
// With a terminal, Ctrl-C goes to the command alone, so nothing else tells.
func signalOf(code int) syscall.Signal {
	switch s := syscall.Signal(code - 128); s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		return s
	}
	return 0
}
