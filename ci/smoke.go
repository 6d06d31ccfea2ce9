package ci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/gpu/lease"
	people "github.com/berthdev/berth/docker/identity" // this package has another identity
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
)

// SmokeOptions says how to run the smoke commands.
type SmokeOptions struct {
	Through string // "auto" (the default), "docker" or "dagger"
	Image   string // the tag of the image to test; the project's own if empty
	GPUs    string // this, and the next two, as in launch.Options
	Share   bool
	Wait    *time.Duration

	For     string             // what others read the lease of the GPUs is for
	Streams launch.Streams     // of the commands
	Report  *progress.Reporter // may be nil
}

// A Verdict is how a smoke command ended.
type Verdict struct {
	Command string
	Failure string // what went wrong; "" if nothing did
	Took    time.Duration
}

// String is the verdict in a line for a person.
func (v Verdict) String() string {
	how := "ok"
	if v.Failure != "" {
		how = v.Failure
	}
	return fmt.Sprintf("%s: %s (%.1f s)", v.Command, how, v.Took.Seconds())
}

// Smoke runs the project's smoke commands in its image, one after the other, and says
// each verdict; with GPUs under a lease, and after a check that the container has those
// that it was given. Its error says how many failed. What couldn't be run, what a person
// ended, and a container with other GPUs end it at once.
func Smoke(ctx context.Context, p Project, o SmokeOptions, say func(Verdict)) (err error) {
	s, err := openSmoke(ctx, p, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	o.Report.Printf("%s", s.way)
	check, note, err := s.checkGPUs(ctx)
	if err != nil {
		return err
	}
	if check != nil {
		o.Report.Printf("%s", note)
		say(Verdict{check.Name, check.Failure, time.Duration(check.Seconds * float64(time.Second))})
		if check.Failure != "" {
			return errOtherGPUs
		}
	}
	failures := 0
	for _, command := range p.Smoke {
		v, start := Verdict{Command: command}, time.Now()
		code, err := s.run(ctx, command, files{}, o.Streams)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if code != 0 {
			v.Failure = fmt.Sprintf("exit code %d", code)
			failures++
		}
		v.Took = time.Since(start)
		say(v)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d smoke commands failed", failures, len(p.Smoke))
	}
	return nil
}

// checkName is the row of checkGPUs in a report.
const checkName = "GPUs in the container"

var errOtherGPUs = errors.New("the container's GPUs aren't as they should be: the smoke commands weren't run")

// A smoke is the place of a project's smoke commands: an image, GPUs under one lease, and
// the way to run a command with both.
type smoke struct {
	project Project
	options SmokeOptions
	way     Through
	given   gpu.Given // nothing without a GPU

	held   *lease.Lease
	docker *daemon.Client // may be nil where way is Dagger
	launch launch.Options // where it is Docker
	engine *engineRun     // where it is Dagger
}

// openSmoke chooses the way, builds the image, and then leases the GPUs, for all of the
// commands. Who calls it closes the place.
func openSmoke(ctx context.Context, p Project, o SmokeOptions) (_ *smoke, err error) {
	if o.Share && gpu.Auto(o.GPUs) {
		return nil, errSharedAuto
	}
	s := &smoke{project: p, options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.way, err = ChooseThrough(ctx, ThroughOptions{Through: o.Through, GPUs: o.GPUs, Image: o.Image}); err != nil {
		return nil, err
	}
	if s.way.Dagger {
		err = s.openEngine(ctx)
	} else {
		err = s.openDocker(ctx)
	}
	o.Report.Close()
	return s, err
}

func (s *smoke) openDocker(ctx context.Context) (err error) {
	if s.docker, err = daemon.Connect(ctx); err != nil {
		return err
	}
	o := s.options
	s.launch = launch.Options{Image: o.Image, GPUs: o.GPUs, Share: o.Share, Wait: o.Wait, GUI: "off"}
	plan, held, err := Lease(ctx, s.docker, s.project, s.launch, o.For, o.Streams, o.Report)
	if err != nil {
		return err
	}
	s.held = held
	o.Report.Close()
	for _, note := range plan.Notes {
		fmt.Fprintln(o.Streams.Err, note)
	}
	s.way.GPUs = plan.GPU
	if held != nil {
		s.launch.GPUs, s.launch.Share = plan.GPU.String(), true
	}
	if plan.GPU.None() || !strings.HasPrefix(s.docker.Host(), "unix://") {
		return nil
	}
	machine, err := gpu.Probe(ctx, "/")
	s.given = gpu.Given{UUIDs: machine.UUIDs(plan.GPU), Driver: machine.Driver}
	return err
}

func (s *smoke) openEngine(ctx context.Context) (err error) {
	if s.engine, err = openEngineRun(ctx, s.project, s.way, s.options.Report); err != nil {
		return err
	}
	if s.way.GPUs.None() {
		return nil
	}
	// An engine may do without Docker. Where that is, its launches may have GPUs, too.
	if s.docker, err = daemon.Connect(ctx); err != nil {
		s.docker = nil
	}
	r := reservation{docker: s.docker, machine: s.way.machine, selection: s.options.GPUs, report: s.options.Report}
	if !s.options.Share {
		holder := lease.Holder{Name: s.options.For, User: people.Name(ctx, os.Getuid())}
		if s.held, err = r.acquire(ctx, s.way.GPUs, holder, s.options.Wait); err != nil {
			return err
		}
	}
	if gpu.Auto(s.options.GPUs) {
		s.way.GPUs = gpu.Request{IDs: s.held.UUIDs()}
	}
	for _, note := range r.notes {
		s.options.Report.Printf("%s", note)
	}
	s.given = gpu.Given{UUIDs: r.machine.UUIDs(s.way.GPUs), Driver: r.machine.Driver}
	s.engine.give(s.way.GPUs, s.given)
	return nil
}

// close ends the lease, and with it what the place holds.
func (s *smoke) close() (err error) {
	if s.engine != nil {
		err = s.engine.close()
	}
	s.held.Close()
	if s.docker != nil {
		s.docker.Close()
	}
	return err
}

// run runs a command by a shell and returns its exit code. It fails where the command
// couldn't be run, or a person ended it.
func (s *smoke) run(ctx context.Context, command string, f files, to launch.Streams) (int, error) {
	if s.engine != nil {
		return s.engine.run(ctx, command, f, to.Out)
	}
	// An earlier launch at a terminal has taken over the signals of this process permanently.
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	// It would end the process, and leave the container.
	ctx, stopQuit := signal.NotifyContext(ctx, syscall.SIGQUIT)
	defer stopQuit()
	o := s.launch
	o.Command, o.Env = command, containerEnv(s.project.Root, f)
	plan, err := Plan(ctx, s.docker, s.project, o, false, to, s.options.Report)
	if err != nil {
		return 0, signals.Explain(ctx, err)
	}
	plan.Notes = nil // they were said once
	if !plan.Container.TTY {
		code, err := launch.RunWithin(ctx, s.docker, plan, to)
		if ctx.Err() != nil { // that ended the command, whatever its code is
			err = context.Cause(ctx)
		}
		return code, signals.Explain(ctx, err)
	}
	code, err := launch.Run(ctx, s.docker, plan, to)
	if s := signalOf(code); err == nil && s != 0 {
		return 0, signals.Interrupt{Signal: s}
	}
	return code, signals.Explain(ctx, err)
}

// signalOf returns the signal by which a person, with Ctrl-C for one, or their
// terminal, by closing, ended a command at that terminal which has that exit code; 0 if none
// did. Ctrl-C goes to the command alone there, so nothing else tells.
func signalOf(code int) syscall.Signal {
	switch s := syscall.Signal(code - 128); s {
	case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		return s
	}
	return 0
}

// checkGPUs checks, in a container like those of the commands, that it has the GPUs that
// it was given, and no others, and notes in a line for a person what it has. Without a GPU
// it does nothing.
func (s *smoke) checkGPUs(ctx context.Context) (check *stage.Check, note string, err error) {
	if s.way.GPUs.None() {
		return nil, "", nil
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, "", err
	}
	defer nothing.Close()
	out, err := os.CreateTemp("", "berth-gpus-")
	if err != nil {
		return nil, "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	start := time.Now()
	code, err := s.run(ctx, gpu.SeenCommand, files{}, launch.Streams{In: nothing, Out: out, Err: out})
	if err != nil {
		return nil, "", fmt.Errorf("looking for GPUs in the container: %w", err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil {
		return nil, "", err
	}
	check = &stage.Check{Name: checkName, Seconds: time.Since(start).Seconds()}
	seen := gpu.ParseSeen(string(said))
	if wrong := seen.Check(s.given); wrong != nil {
		check.Failure = wrong.Error()
	}
	if code != 0 {
		check.Failure = strings.TrimPrefix(fmt.Sprintf("%s\nnvidia-smi ended with exit code %d there, and said:\n%s", check.Failure, code,
			strings.TrimSpace(string(said))), "\n")
	}
	return check, fmt.Sprintf("The container sees %s", seen), nil
}
