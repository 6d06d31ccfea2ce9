package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berthdev/berth/docker/daemon"
)

// An engine is asked for an answer once in probeInterval, for which it gets
// probeTimeout; after the silence of maxSilence a person hears of it. A step that
// prints nothing for hours is no silence: the engine itself answers in
// milliseconds, whatever it runs.
const (
	probeInterval = time.Second
	probeTimeout  = 3 * time.Second
	maxSilence    = 7 * time.Second
)

// A watchdog knows how long an engine hasn't answered.
type watchdog struct {
	name string
	last time.Time // the last answer
	told bool
}

// note takes the result of a probe, and returns what a person should know of it,
// which is empty most of the time. state asks for the container's state.
func (w *watchdog) note(now time.Time, answered bool, state func() string) string {
	switch {
	case answered && w.told:
		w.last, w.told = now, false
		return fmt.Sprintf("The engine %s answers again", w.name)
	case answered:
		w.last = now
		return ""
	case w.told || now.Sub(w.last) < maxSilence:
		return ""
	}
	w.told = true
	advice := fmt.Sprintf("Its log (docker logs %s) may say why; docker restart %[1]s ends all builds on it. Ctrl-C ends this one", w.name)
	st := state()
	if st == "paused" {
		advice = fmt.Sprintf("docker unpause %s lets it go on. Ctrl-C ends this build", w.name)
	}
	return fmt.Sprintf("The engine %s hasn't answered for %.0f s (its container is %s). %s", w.name, now.Sub(w.last).Seconds(), st, advice)
}

// watch reports when the engine falls silent, until ctx ends.
func (p *provider) watch(ctx context.Context, b *bridge) {
	s := watchdog{name: p.name, last: time.Now()}
	for sleep(ctx, probeInterval) == nil {
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		answered, _ := answers(probe, b.connect)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if line := s.note(time.Now(), answered, func() string { return p.state(ctx, b.container) }); line != "" {
			p.Report.Printf("%s", line)
		}
	}
}

// state names the state of a container for a person.
func (p *provider) state(ctx context.Context, container string) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	switch c, err := p.docker.Inspect(ctx, container); {
	case errors.Is(err, daemon.ErrNotFound):
		return "gone"
	case err != nil:
		return fmt.Sprintf("unknown: %v", err)
	default:
		return c.State
	}
}

// stopped returns an error if the engine has stopped, or was restarted, since before.
// What runs over a connection that breaks fails sooner than Docker knows why, so it
// waits a little for an engine that doesn't answer.
func (p *provider) stopped(b *bridge, before daemon.Status) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	for {
		now, err := p.docker.Inspect(ctx, before.ID)
		switch {
		case errors.Is(err, daemon.ErrNotFound):
			return fmt.Errorf("the engine %s was removed during the build. Build again", p.name)
		case err != nil:
			return nil
		case now.State != "running" && now.State != "paused":
			return fmt.Errorf("the engine %s stopped (exit code %d) during the build. Build again; if nobody stopped it, its log says more:\n"+
				"\tdocker logs --tail 20 %[1]s", p.name, now.ExitCode)
		case now.Started != before.Started:
			return fmt.Errorf("the engine %s was restarted during the build. Build again", p.name)
		}
		if answered, _ := answers(ctx, b.connect); answered || sleep(ctx, 50*time.Millisecond) != nil {
			return nil
		}
	}
}
