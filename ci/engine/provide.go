package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
)

// A provider makes an engine run in Docker.
type provider struct {
	*builder
	docker       *daemon.Client
	source       string // $BERTH_ENGINE_SOURCE
	name         string
	scope        *owned.Scope  // that an ephemeral engine is made of
	runTimeout   time.Duration // how long an engine that runs may take to answer, before anybody repairs it
	startTimeout time.Duration // how long an engine may take from its start to an answer
	limit        int64         // bytes of its state
}

func newProvider(docker *daemon.Client, o Options) (*provider, error) {
	source := os.Getenv(envSource)
	if source != "" && source != "image" && source != "source" {
		return nil, fmt.Errorf("%w: %s=%q isn't valid. It may be image (the official one), source (built here) or unset (whichever is nearest)",
			ErrUnavailable, envSource, source)
	}
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	p := &provider{builder: b, docker: docker, source: source, name: o.name(), limit: stateLimit,
		runTimeout: 20 * time.Second, startTimeout: time.Minute}
	if o.Ephemeral {
		p.name = randomName(p.name)
	}
	return p, nil
}

// officialInputs is the label with the inputs' hash on containers of the official
// image: of its name, and of what a change of the arguments needs a new container for.
func (o Options) officialInputs() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", o.official(), int64(stateLimit)))
	return hex.EncodeToString(sum[:])
}

// wanted reports whether an engine with these labels will do.
func (p *provider) wanted(labels map[string]string) bool {
	inputs := labels[daemon.LabelInputs]
	if !p.wantedInputs(inputs) {
		return false
	}
	gpus, err := p.gpus(inputs)
	return err == nil && labels[labelGPUs] == gpus.hash()
}

// wantedInputs reports whether an engine made from these inputs will do, however it
// gets its GPUs.
func (p *provider) wantedInputs(inputs string) bool {
	return p.source != "image" && inputs == p.inputs || p.source != "source" && inputs == p.officialInputs()
}

// connect connects to the engine. An engine that runs is taken as it is, at
// once; whatever else there is to do is done by one process at a time.
func (p *provider) connect(ctx context.Context) (*Engine, error) {
	if _, err := owned.Sweep(ctx, p.Cache, p.docker, false); err != nil {
		return nil, err
	}
	if !p.Ephemeral {
		if e, err := p.connectRunning(ctx); e != nil || err != nil {
			return e, err
		}
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !p.Ephemeral {
		return p.ensureRunning(ctx)
	}
	if p.scope, err = owned.Claim(p.Cache, p.docker, role); err != nil {
		return nil, err
	}
	p.scope.NoteDaemon(ctx)
	done := func() error { return p.scope.Close(context.WithoutCancel(ctx)) }
	e, err := p.ensureRunning(ctx)
	if err != nil {
		return nil, errors.Join(err, done())
	}
	release := e.release
	e.release = func() error { return errors.Join(release(), done()) }
	return e, nil
}

const engineLock = "engine"

// lock is held by whoever changes what engines there are.
func (p *provider) lock(ctx context.Context) (unlock func(), err error) {
	return p.Cache.Lock(ctx, engineLock, func() { p.Report.Printf("Waiting for another build to start the engine") })
}

// connectRunning connects to the engine if it runs and answers; else it returns nil.
func (p *provider) connectRunning(ctx context.Context) (*Engine, error) {
	c, err := p.container(ctx)
	if err != nil || decide(c, p.wanted) != use {
		return nil, err
	}
	cli, err := findCLI(ctx, p.cliPath())
	if err != nil || cli == "" {
		return nil, err
	}
	// One that is well answers before a person would read that.
	late := time.AfterFunc(2*time.Second, func() { p.Report.Update("Connecting to the engine %s", p.name) })
	defer late.Stop()
	e, err := p.dial(ctx, cli, c.ID, false)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, nil
	}
	return e, nil
}

// container returns the container that has the engine's name, nil if there is none.
func (p *provider) container(ctx context.Context) (*daemon.Status, error) {
	c, err := p.docker.Inspect(ctx, p.name)
	if errors.Is(err, daemon.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return &c, nil
}

// errNoAnswer marks a failure of the engine itself, not of the connection to
// it.
var errNoAnswer = errors.New("it doesn't answer")

// ensureRunning starts the engine and connects to it. An engine that doesn't answer is
// recreated, the second time without its state.
func (p *provider) ensureRunning(ctx context.Context) (*Engine, error) {
	cli, err := p.cli(ctx)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		id, err := p.run(ctx)
		if err != nil {
			return nil, err
		}
		p.Report.Update("Connecting to the engine %s", p.name)
		e, err := p.dial(ctx, cli, id, true)
		if err == nil {
			return e, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		err = fmt.Errorf("connecting to the engine %s: %w", p.name, err)
		if !errors.Is(err, errNoAnswer) {
			return nil, err
		}
		if log := p.logTail(ctx, id); log != "" {
			err = fmt.Errorf("%w\nIts log ends with:\n%s", err, log)
		}
		if try == 2 {
			return nil, err
		}
		if rerr := p.mayRemove(ctx, &daemon.Status{ID: id, Labels: map[string]string{daemon.LabelRole: role}}); rerr != nil {
			return nil, fmt.Errorf("%w\n%w", err, rerr)
		}
		p.Report.Printf("The engine is recreated after an error: %v", err)
		if err := p.remove(ctx, id); err != nil {
			return nil, err
		}
		if try == 1 {
			p.Report.Printf("Its state goes too: what was built before is built again")
			if err := p.removeVolume(ctx, volumeOf(p.name)); err != nil {
				return nil, err
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
