// Package engine finds, starts or builds the Dagger engine, and hands out a
// client that is connected to it. An engine is a container in Docker with a
// volume for its state; it is made from the official image where that is available,
// else from source (the nested module in source) and locked Debian packages,
// which travel in this package. It is the one package that knows how Dagger is
// run; what is built with it is up to the callers.
package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"dagger.io/dagger"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Version is that of the engine, of its command line and of the SDK: the three
// must agree.
const Version = "v0.19.10"

// official is the engine's image as its makers publish it, and officialGPU the one
// with NVIDIA's Container Toolkit in it.
const (
	official    = "registry.dagger.io/engine:" + Version
	officialGPU = official + "-gpu"
)

// Environment variables. The first three are Dagger's own.
const (
	envRunnerHost  = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"
	envCLI         = "_EXPERIMENTAL_DAGGER_CLI_BIN"
	envSessionPort = "DAGGER_SESSION_PORT"
	envName        = "BERTH_ENGINE"
	envSource      = "BERTH_ENGINE_SOURCE"
)

// ErrUnavailable is in the chain of every error that says that this machine
// lacks what an engine needs. Such errors are instructions. (That Docker is
// missing is daemon.ErrUnavailable.)
var ErrUnavailable = errors.New("no Dagger engine available")

// Options says which engine is wanted.
type Options struct {
	Name      string             // of its container; $BERTH_ENGINE if empty, berth-engine without
	Ephemeral bool               // a separate engine with fresh state, removed by Close; Name is the beginning of its name
	Cache     cache.Dir          // for programs, locks and temporary files
	Report    *progress.Reporter // may be nil
	LogOutput io.Writer          // what Dagger says of its work; may be nil

	GPU  bool // an engine that hands GPUs on to commands, beside the usual one: its name and its state are its own
	GPUs GPUs // how its container gets them; Status, Stop, Logs and Prune don't ask

	sources fs.FS // another embedded, in tests
}

// name is that of the persistent engine's container.
func (o Options) name() string {
	name := cmp.Or(o.Name, os.Getenv(envName), "berth-engine")
	if o.GPU {
		name += "-gpu"
	}
	return name
}

// official is the engine's image as its makers publish it.
func (o Options) official() string {
	if o.GPU {
		return officialGPU
	}
	return official
}

// An Engine is a connection to a Dagger engine.
type Engine struct {
	*dagger.Client
	release func() error // undoes what Connect did besides connecting; may be nil
	stopped func() error // an error if the engine has stopped since; may be nil
}

// Stopped returns an error if the engine has stopped, or was restarted, since Connect:
// the errors of work that this interrupted only say that a connection broke.
func (e *Engine) Stopped() error {
	if e.stopped == nil {
		return nil
	}
	return e.stopped()
}

// Close disconnects. A persistent engine runs on; an ephemeral one is removed
// with its state.
func (e *Engine) Close() error {
	err := e.Client.Close()
	if e.release != nil {
		err = errors.Join(err, e.release())
	}
	return err
}

// Connect returns a connection to an engine: the one that the user named in
// _EXPERIMENTAL_DAGGER_RUNNER_HOST (untouched; never for an ephemeral one), else
// the one of that name in Docker, which is created or repaired as needed. The
// connection lives until Close, or until ctx ends. Several processes may call it
// at once; they share the engine.
func Connect(ctx context.Context, o Options) (*Engine, error) {
	if !o.Ephemeral && Named() != "" {
		return connectNamed(ctx, o)
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return nil, err
	}
	p, err := newProvider(docker, o)
	if err != nil {
		docker.Close()
		return nil, err
	}
	e, err := p.connect(ctx)
	if err != nil {
		docker.Close()
		return nil, err
	}
	release := e.release
	e.release = func() error { return errors.Join(release(), docker.Close()) }
	return e, nil
}

// connectNamed connects to an engine that the user runs.
func connectNamed(ctx context.Context, o Options) (*Engine, error) {
	if os.Getenv(envSessionPort) != "" { // a command line is at work already
		client, err := dagger.Connect(ctx)
		return &Engine{Client: client}, err
	}
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	cli, err := b.cli(ctx)
	if err != nil {
		return nil, err
	}
	client, err := openSession(ctx, cli, "", o.LogOutput)
	if err != nil {
		return nil, fmt.Errorf("connecting to the engine that %s names: %w\nUnset it, and Berth finds one itself", envRunnerHost, err)
	}
	return &Engine{Client: client}, nil
}

// randomName returns a name for an ephemeral engine.
func randomName(base string) string {
	random := make([]byte, 6)
	rand.Read(random)
	return base + "-" + hex.EncodeToString(random)
}
