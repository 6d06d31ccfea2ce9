package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dagger.io/dagger"

	"github.com/berthdev/berth/docker/daemon"
)

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
	timeout := p.runTimeout
	if started {
		timeout = p.startTimeout
	}
	// The context that the client is given is that of the whole connection.
	life, end := context.WithCancelCause(ctx)
	opening, opened := context.WithTimeout(ctx, timeout)
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
			end(fmt.Errorf("%w within %s", errNoAnswer, timeout))
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
	daemon.Demultiplex(&out, &out, frames)
	return strings.TrimSpace(out.String())
}
