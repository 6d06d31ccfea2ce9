package ci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/usage"
)

// ThroughOptions says what a person asked for of how smoke commands are run.
type ThroughOptions struct {
	Through string // "auto" (the default), "docker" or "dagger"
	GPUs    string // as launch.Options has them
	Image   string // the tag of the image to test; the project's own if empty
}

// A Through is how smoke commands are run: in a container of Docker's, as mage run
// does, or by Dagger in its engine.
type Through struct {
	Dagger bool
	Why    string // in a line, for a person
	GPUs   gpu.Request

	machine gpu.Machine
	daemon  daemon.Info
	engine  *engine.GPUs // nil for the usual engine
}

// String is what a person is told.
func (t Through) String() string {
	name := "Docker"
	if t.Dagger {
		name = "Dagger"
	}
	return fmt.Sprintf("Smoke commands run through %s: %s", name, t.Why)
}

// check refuses what makes no sense on any machine.
func (o ThroughOptions) check() error {
	if !slices.Contains([]string{"", "auto", "docker", "dagger"}, o.Through) {
		return fmt.Errorf("-through: %w: it may be auto, docker or dagger, not %q", usage.Err, o.Through)
	}
	if o.Through == "dagger" && o.Image != "" {
		return fmt.Errorf("-through=dagger: %w: it tests the project's own image, as it builds it. "+
			"Leave -t out, or type -through=docker", usage.Err)
	}
	return nil
}

// ChooseThrough looks at the machine as far as the choice depends on it, and chooses.
func ChooseThrough(ctx context.Context, o ThroughOptions) (Through, error) {
	if err := o.check(); err != nil {
		return Through{}, err
	}
	w := world{}
	if o.Through != "docker" && o.Image == "" && o.GPUs != "none" && (o.GPUs != "" || o.Through == "dagger" || gpu.Installed("/")) {
		var err error
		if w, err = lookAtWorld(ctx); err != nil {
			return Through{}, err
		}
	}
	return chooseThrough(o, w)
}

// A world is what the choice depends on besides what was asked for.
type world struct {
	machine gpu.Machine
	named   string // the engine that the user named, "" if none: then the rest isn't known

	daemon    daemon.Info
	elsewhere bool  // the daemon runs on another machine
	noEngine  error // why no engine hands GPUs on; nil if one does
}

func lookAtWorld(ctx context.Context) (w world, err error) {
	w.named = engine.Named()
	if w.machine, err = gpu.Probe(ctx, "/"); err != nil || w.named != "" {
		return w, err
	}
	dir, err := cache.Open()
	if err != nil {
		return world{}, err
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return world{}, err
	}
	defer docker.Close()
	w.elsewhere = !strings.HasPrefix(docker.Host(), "unix://")
	if w.daemon, err = docker.Info(ctx); err != nil {
		return world{}, err
	}
	w.noEngine = engine.HandsOnGPUs(ctx, docker, engine.Options{Cache: dir})
	return w, ctx.Err()
}

// chooseThrough takes Dagger for GPUs, if it has an engine that hands them on, and else
// Docker, unless a person insists. With Dagger, what can't be had is an error.
func chooseThrough(o ThroughOptions, w world) (Through, error) {
	if o.Through == "docker" {
		return Through{Why: "-through=docker says so"}, nil
	}
	if o.Image != "" {
		return Through{Why: "-t names an image that is there"}, nil
	}
	insists := o.Through == "dagger"
	if w.elsewhere && !insists { // whose GPUs these are
		return Through{Why: "Docker runs on another machine"}, nil
	}
	request, err := gpu.Resolve(o.GPUs, w.machine)
	if err != nil {
		return Through{}, err
	}
	if request.None() {
		if !insists {
			return Through{Why: "no GPU is needed"}, nil
		}
		t := Through{Dagger: true, Why: insisted}
		if why := w.machine.Broken(); why != nil && o.GPUs == "" {
			t.Why += ". NO GPU, running on the CPU: " + oneLine(why)
		}
		return t, nil
	}
	if w.named != "" && insists {
		return Through{Dagger: true, Why: insisted, GPUs: request, machine: w.machine, engine: &engine.GPUs{}}, nil
	} else if w.named != "" {
		return Through{Why: fmt.Sprintf("it isn't known whether the engine at %s hands GPUs on (-through=dagger tries)", w.named)}, nil
	}
	// The engine gets all of them: it lasts, and other commands want others.
	inject, err := gpu.Inject(gpu.Request{All: true}, w.machine, w.daemon, !w.elsewhere)
	if err == nil {
		err = w.noEngine
	}
	if err != nil && insists {
		return Through{}, fmt.Errorf("-through=dagger: %w", err)
	} else if err != nil {
		return Through{Why: oneLine(err)}, nil
	}
	return Through{
		Dagger: true, Why: fmt.Sprintf("its engine hands GPUs on (by %s)", inject.Method),
		GPUs: request, machine: w.machine, daemon: w.daemon,
		engine: &engine.GPUs{Devices: inject.Devices, Runtime: inject.Runtime, Env: inject.Env, Driver: w.machine.Driver},
	}, nil
}

const insisted = "-through=dagger says so"

// oneLine is what an error says, without what to do about it.
func oneLine(err error) string {
	if fault := (*gpu.Fault)(nil); errors.As(err, &fault) {
		return fault.Link
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
