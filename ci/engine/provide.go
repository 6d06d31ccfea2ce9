package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dagger.io/dagger"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
)

// A provider makes an engine run in Docker.
type provider struct {
	*builder
	docker   *daemon.Client
	way      string // $BERTH_ENGINE_SOURCE
	name     string
	things   *owned.Things // that an ephemeral engine is made of
	patience time.Duration // how long an engine may take from its start to an answer
	limit    int64         // bytes of its state
}

func newProvider(docker *daemon.Client, o Options) (*provider, error) {
	way := os.Getenv(envSource)
	if way != "" && way != "image" && way != "source" {
		return nil, fmt.Errorf("%w: %s=%q means nothing. It may be image (the official one), source (built here) or unset (whichever is nearest)", ErrUnavailable, envSource, way)
	}
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	p := &provider{builder: b, docker: docker, way: way, name: o.name(), patience: time.Minute, limit: stateLimit}
	if o.Ephemeral {
		p.name = randomName(p.name)
	}
	return p, nil
}

// officialInputs is the label with the inputs' hash on containers of the official
// image: of its name, and of what a change of the arguments needs a new container for.
func officialInputs() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", official, int64(stateLimit)))
	return hex.EncodeToString(sum[:])
}

// wanted reports whether an engine made from these inputs will do.
func (p *provider) wanted(inputs string) bool {
	return p.way != "image" && inputs == p.inputs || p.way != "source" && inputs == officialInputs()
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
	if p.things, err = owned.Claim(p.Cache, p.docker, role); err != nil {
		return nil, err
	}
	p.things.NoteDaemon(ctx)
	done := func() error { return p.things.Close(context.WithoutCancel(ctx)) }
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

// errNoAnswer says that it is the engine that fails, not the way to it.
var errNoAnswer = errors.New("it doesn't answer")

// ensureRunning starts the engine and connects to it. An engine that doesn't answer is
// made anew, the second time without its state.
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
		p.Report.Printf("The engine is made anew, after an error: %v", err)
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
	return owned.Forget(p.Cache, owned.Lasting{Kind: owned.KindContainer, Daemon: daemonID, ID: id})
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
	return owned.Forget(p.Cache, owned.Lasting{Kind: owned.KindVolume, Daemon: id, ID: name})
}

// How often another process, with which this one has no lock in common, may be in
// the way, and how long this one waits each time.
const (
	maxRivals  = 100
	rivalPause = 100 * time.Millisecond
)

// run makes the engine's container run and returns its ID.
func (p *provider) run(ctx context.Context) (string, error) {
	waiting := false
	for rivals := 0; ; {
		c, err := p.container(ctx)
		if err != nil {
			return "", err
		}
		switch decide(c, p.wanted) {
		case use:
			return c.ID, nil
		case start:
			foreign := p.mayRemove(ctx, c)
			if foreign != nil && c.State == "created" && rivals < maxRivals {
				// Whoever makes it is about to start it, or to try another way.
				rivals++
				err = sleep(ctx, rivalPause)
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
				break
			}
			// What takes its place comes first: it may not be to be had.
			if _, _, err = p.findImage(ctx); err == nil {
				err = p.remove(ctx, c.ID)
			}
		case wait:
			if err = p.mayRemove(ctx, c); err != nil {
				break
			}
			if !waiting {
				waiting = true
				p.Report.Printf("The engine %s is out of date, but another build uses it: waiting for its end. (Another name in %s gives another engine.)", p.name, envName)
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
		if (errors.Is(err, daemon.ErrConflict) || errors.Is(err, daemon.ErrNotFound)) && rivals < maxRivals {
			// Somebody else, with another cache folder, has made or removed it meanwhile.
			rivals++
			err = sleep(ctx, rivalPause)
		}
		if err != nil {
			return "", err
		}
	}
}

func (p *provider) notOurs() error {
	return fmt.Errorf("%w: the container %s isn't an engine of Berth's. Name another one in %s, or remove it", ErrUnavailable, p.name, envName)
}

// notRecorded is the error about something that would have to go, but may be
// another person's.
func (p *provider) notRecorded(what string) error {
	return fmt.Errorf("%w: the %s isn't on record in %s: it belongs to another person or cache folder, and isn't Berth's to stop or remove."+
		" Use an engine of your own:\n\texport %s=berth-engine-%d", ErrUnavailable, what, p.Cache.Path("owned"), envName, os.Getuid())
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// create makes the container, in the first way that the host allows, and starts it.
func (p *provider) create(ctx context.Context) (id string, err error) {
	image, inputs, err := p.findImage(ctx)
	if err != nil {
		return "", err
	}
	things := p.things
	if things == nil {
		// What is made is on record before it exists, until it has a lasting record.
		if things, err = owned.Claim(p.Cache, p.docker, role); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, things.Close(context.WithoutCancel(ctx))) }()
	}
	s := spec{name: p.name, image: image, inputs: inputs, group: os.Getgid(), limit: p.limit}
	if strings.HasPrefix(p.docker.Host(), "unix://") {
		s.socket = p.socketFolder()
		if err := os.MkdirAll(s.socket, 0o700); err != nil {
			return "", err
		}
	}
	if err := p.createVolume(ctx, things, s); err != nil {
		return "", err
	}
	p.Report.Update("Starting the engine %s from %s", p.name, image)
	ways := s.containers()
	for i, way := range ways {
		id, err := things.Container(ctx, way)
		if err != nil && noSuchFolder(err) {
			continue // the daemon has another file system than this process
		} else if err != nil {
			return "", err
		}
		if err = p.docker.Start(ctx, id); err == nil {
			if p.Ephemeral {
				return id, nil
			}
			if err = p.record(ctx, owned.Lasting{Kind: owned.KindContainer, ID: id}); err == nil {
				things.Gone()
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
			return "", fmt.Errorf("%w: this host doesn't let a container have the rights that the engine needs. Use a Docker that isn't nested in a container, or name an engine that runs elsewhere in %s: %w", ErrUnavailable, envRunnerHost, err)
		}
	}
	panic("an engine has no way to run")
}

// createVolume makes the volume with the engine's state, unless there is one:
// somebody else's is used, and never removed.
func (p *provider) createVolume(ctx context.Context, things *owned.Things, s spec) error {
	if _, err := p.docker.Volume(ctx, s.volume()); !errors.Is(err, daemon.ErrNotFound) {
		return err
	}
	if err := things.Volume(ctx, s.volume(), s.labels()); err != nil || p.Ephemeral {
		return err
	}
	v, err := p.docker.Volume(ctx, s.volume())
	if err != nil {
		return err
	}
	// Another process may have been faster. Its volume stays if this one gives up.
	if things.Made(v.Labels) {
		err = p.record(ctx, owned.Lasting{Kind: owned.KindVolume, ID: v.Name, Claim: v.Labels[daemon.LabelClaim]})
	}
	if err == nil {
		things.Gone()
	}
	return err
}

// record gives something that belongs to the persistent engine a record that lasts.
func (p *provider) record(ctx context.Context, l owned.Lasting) (err error) {
	if l.Daemon, err = p.docker.ID(ctx); err != nil {
		return err
	}
	l.For = p.name
	return owned.Record(p.Cache, l)
}

// findImage returns the engine's image, which is pulled or built if need be, and
// the hash of its inputs.
func (p *provider) findImage(ctx context.Context) (image, inputs string, err error) {
	hasOfficial, err := p.has(ctx, official, nil)
	if err != nil {
		return "", "", err
	}
	hasBuilt, err := p.has(ctx, p.tag(), map[string]string{daemon.LabelInputs: p.inputs})
	if err != nil {
		return "", "", err
	}
	from := chooseSource(p.way, hasOfficial, hasBuilt)
	if from == pull {
		switch err := p.pull(ctx, official); {
		case err == nil:
			from = present
		case ctx.Err() != nil:
			return "", "", context.Cause(ctx)
		case p.way == "image":
			return "", "", fmt.Errorf("%w: the official image can't be had: %w. Load it with\n\tdocker load\nfrom a machine that has it, or unset %s to build an engine from source", ErrUnavailable, err, envSource)
		default:
			p.Report.Printf("The official engine can't be had (%v): building it from source, which takes minutes, once", err)
			from = fromScratch
		}
	}
	switch from {
	case present:
		return official, officialInputs(), nil
	case fromScratch:
		err = p.image(ctx, p.docker)
	}
	return p.tag(), p.inputs, err
}

// has reports whether Docker has an image with these labels.
func (p *provider) has(ctx context.Context, ref string, labels map[string]string) (bool, error) {
	i, err := p.docker.Image(ctx, ref)
	if errors.Is(err, daemon.ErrNotFound) {
		return false, nil
	}
	for k, v := range labels {
		if i.Labels[k] != v {
			return false, err
		}
	}
	return err == nil, err
}

// How long a registry may take for its first word, and between two.
const (
	firstWord = 5 * time.Second
	nextWord  = 60 * time.Second
)

// pull fetches an image, but gives up soon where no registry answers.
func (p *provider) pull(ctx context.Context, ref string) error {
	p.Report.Update("Asking for the official engine %s", ref)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(firstWord, func() { cancel(errors.New("its registry doesn't answer")) })
	defer silence.Stop()
	err := p.docker.Pull(ctx, ref, func(line string) {
		silence.Reset(nextWord)
		p.Report.Update("Pulling %s: %s", ref, line)
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// dial connects to the engine in a container that runs. One that was just
// started gets time to open its socket.
func (p *provider) dial(ctx context.Context, cli, container string, started bool) (*Engine, error) {
	b, err := openBridge(p.docker, p.Cache, filepath.Join(p.socketFolder(), socketName), container)
	if err != nil {
		return nil, err
	}
	before, err := p.docker.Inspect(ctx, container)
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	// The context that the client is given is that of the whole connection.
	life, end := context.WithCancelCause(ctx)
	opening, opened := context.WithTimeout(ctx, p.patience)
	var work sync.WaitGroup
	work.Go(func() {
		for opening.Err() == nil {
			c, err := p.docker.Inspect(opening, container)
			if opening.Err() == nil && (err != nil || c.State != "running") {
				end(fmt.Errorf("%w: its container has stopped (%s, exit code %d)", errNoAnswer, c.State, c.ExitCode))
				b.Close()
				return
			}
			sleep(opening, 200*time.Millisecond)
		}
		if errors.Is(opening.Err(), context.DeadlineExceeded) {
			end(fmt.Errorf("%w within %s", errNoAnswer, p.patience))
			b.Close()
		}
	})
	var client *dagger.Client
	if started {
		if err = awaitAnswer(life, p.docker, container); err != nil {
			err = fmt.Errorf("%w: %w", errNoAnswer, err)
		}
	}
	if err == nil {
		client, err = openSession(life, cli, b.host(), p.LogOutput)
	}
	opened()
	work.Wait()
	if cause := context.Cause(life); cause != nil {
		err = cause
	}
	if err != nil {
		end(nil)
		b.Close()
		if client != nil {
			client.Close()
		}
		return nil, err
	}
	work.Go(func() { p.watch(life, b) })
	release := func() error {
		end(nil)
		work.Wait()
		return b.Close()
	}
	return &Engine{Client: client, release: release, stopped: func() error { return p.stopped(b, before) }}, nil
}

// logTail returns the last lines of a container's log, empty if it has none.
func (p *provider) logTail(ctx context.Context, id string) string {
	frames, err := p.docker.Logs(ctx, id, "15", false)
	if err != nil {
		return "" // the container is gone
	}
	defer frames.Close()
	var out bytes.Buffer
	daemon.Demultiplex(&out, frames)
	return strings.TrimSpace(out.String())
}
