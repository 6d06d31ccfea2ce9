package ci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"dagger.io/dagger"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// What a command in an engine finds in its environment, besides the image's own.
const (
	envNonce  = "BERTH_SMOKE_NONCE"  // new in each run
	envUUIDs  = "BERTH_SMOKE_GPUS"   // the UUIDs of the GPUs that it was given, separated by commas
	envDriver = "BERTH_SMOKE_DRIVER" // the version of NVIDIA's driver
	envSubset = "NVIDIA_DRIVER_CAPABILITIES"
)

// EngineSmoke is Smoke with commands that run in an engine; their output goes to out.
func EngineSmoke(ctx context.Context, p Project, t Through, out io.Writer, say func(Verdict), report *progress.Reporter) (err error) {
	run, close, err := EngineRunner(ctx, p, t, report)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, close()) }()
	return Smoke(p.Smoke, func(command string) (int, error) { return run(ctx, command, out) }, func(v Verdict) {
		report.Close()
		say(v)
	})
}

// EngineRunner builds the project's image in an engine, one that hands GPUs on if t has
// any, and returns a function that runs a command in the image by a shell, as the
// image's user, and writes its output to out once it has ended. The function returns the
// command's exit code, and an error if the command couldn't be run, its GPUs put into
// its container, for one: the connection is of no more use then. No result is ever a
// cached one. close ends the connection.
func EngineRunner(ctx context.Context, p Project, t Through, report *progress.Reporter) (
	run func(ctx context.Context, command string, out io.Writer) (code int, err error), close func() error, err error,
) {
	in, err := ReadInputs(p)
	if err != nil {
		return nil, nil, err
	}
	dir, err := cache.Open()
	if err != nil {
		return nil, nil, err
	}
	m := maker{project: p, inputs: in, cache: dir, entries: string(dir), gpus: t.engine, report: report}
	s, err := m.stage(ctx)
	if err != nil {
		return nil, nil, t.explain(err)
	}
	image, err := s.build("").Sync(ctx)
	if err != nil {
		err = s.explain(err)
		return nil, nil, errors.Join(err, s.close())
	}
	s.unstage()
	if !t.GPUs.None() {
		image = image.ExperimentalWithGPU(strings.Split(t.GPUs.String(), ",")).
			WithEnvVariable(envSubset, "all").
			WithEnvVariable(envUUIDs, strings.Join(t.machine.UUIDs(t.GPUs), ",")).
			WithEnvVariable(envDriver, t.machine.Driver)
	}
	return func(ctx context.Context, command string, out io.Writer) (int, error) {
		said, code, err := runOnce(ctx, image, command)
		if err != nil {
			return 0, t.explain(s.explainRun(command, err))
		}
		report.Close()
		if _, err := io.WriteString(out, said); err != nil {
			return 0, fmt.Errorf("passing on the command's output: %w", err)
		}
		return code, nil
	}, s.close, nil
}

// runOnce runs a command and returns what it printed and its exit code. The engine remembers what commands printed and returned, also
// of those that had GPUs, over restarts, and would answer for a GPU that has died since.
// What it remembers it finds by a hash of all that a command depends on: its words, its
// files, and its environment. A random word in that, of more bits than can ever repeat, is
// thus a command that the engine hasn't run.
func runOnce(ctx context.Context, image *dagger.Container, command string) (said string, code int, err error) {
	ran, err := image.WithEnvVariable(envNonce, rand.Text()).
		WithExec([]string{"sh", "-c", command}, dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeAny}).Sync(ctx)
	if killed := (*dagger.ExecError)(nil); errors.As(err, &killed) && killed.ExitCode > 128 && killed.ExitCode < 255 {
		// By a signal, which "any" doesn't cover. Both outputs lack the end of their last line.
		for _, output := range []string{killed.Stdout, killed.Stderr} {
			if output != "" {
				said += output + "\n"
			}
		}
		return said, killed.ExitCode, nil
	}
	if err == nil {
		said, err = ran.CombinedOutput(ctx)
	}
	if err == nil {
		code, err = ran.ExitCode(ctx)
	}
	return said, code, err
}

// explainRun turns the error of a command that couldn't be run into what a person can use.
func (s *staging) explainRun(command string, err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if stopped := s.Stopped(); stopped != nil {
		return stopped
	}
	s.Client.Close() // the log is complete with the end of the session
	return fmt.Errorf("running %q in the engine: %w", command, engine.ExplainCommand(err, s.log.String()))
}

// explain adds to the error of an engine or a command that couldn't be started what it
// means for GPUs.
func (t Through) explain(err error) error {
	if why := gpu.Explain(err.Error(), t.daemon); why != nil && t.engine != nil {
		return fmt.Errorf("%w\n%w", why, err)
	}
	return err
}
