package ci

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"dagger.io/dagger"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/launch"
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

// An engineRun is the project's image in an engine, and runs commands in it, as the
// image's user, in a copy of the checkout: what git ignores isn't there, and nothing that
// they write lasts but the files that they are told to write.
type engineRun struct {
	*staging
	way   Through
	image *dagger.Container
}

// openEngineRun builds the project's image in an engine, one that hands GPUs on if the
// way has any. Who calls it closes it.
func openEngineRun(ctx context.Context, p Project, way Through, report *progress.Reporter) (_ *engineRun, err error) {
	in, err := ReadInputs(p)
	if err != nil {
		return nil, err
	}
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	m := maker{project: p, inputs: in, cache: dir, entries: string(dir), gpus: way.engine, report: report}
	s, err := m.stage(ctx)
	if err != nil {
		return nil, way.explain(err)
	}
	image, err := s.build("").Sync(ctx)
	if err != nil {
		err = s.explain(err)
		return nil, errors.Join(err, s.close())
	}
	s.unstage()
	not := []string{".git", "artifacts", cmp.Or(p.Home, launch.DefaultHome)}
	checkout := s.Host().Directory(p.Root, dagger.HostDirectoryOpts{Exclude: not, Gitignore: true})
	if checkout, err = checkout.Sync(ctx); err != nil { // now, since later somebody may wait for the GPUs
		return nil, errors.Join(fmt.Errorf("copying the checkout into the engine: %w", err), s.close())
	}
	image = image.WithMountedDirectory(launch.Workspace, checkout).WithWorkdir(launch.Workspace)
	return &engineRun{s, way, image}, nil
}

// give gives GPUs to the commands that are run from now on.
func (e *engineRun) give(r gpu.Request, g gpu.Given) {
	e.image = e.image.ExperimentalWithGPU(strings.Split(r.String(), ",")).
		WithEnvVariable(envSubset, "all").
		WithEnvVariable(envUUIDs, strings.Join(g.UUIDs, ",")).
		WithEnvVariable(envDriver, g.Driver)
}

// run runs a command by a shell, and once it has ended writes its output to out, and what it
// wrote to the files, if those have names, to them. It returns the command's exit code, and an
// error if the command couldn't be run, its GPUs put into its container, for one: the
// connection is of no more use then. No result is ever a cached one.
func (e *engineRun) run(ctx context.Context, command string, f files, out io.Writer) (int, error) {
	image := e.image
	if f != (files{}) {
		inside := files{outcome + "/" + filepath.Base(f.junit), outcome + "/" + filepath.Base(f.losses)}
		// Whoever the image's user is.
		image = image.WithDirectory("/", e.Directory().WithNewDirectory(outcome, dagger.DirectoryWithNewDirectoryOpts{Permissions: 0o777}))
		for _, v := range inside.env() {
			name, path, _ := strings.Cut(v, "=")
			image = image.WithEnvVariable(name, path)
		}
	}
	ran, said, code, err := runOnce(ctx, image, command)
	if err == nil && ran != nil && f != (files{}) {
		_, err = ran.Directory(outcome).Export(ctx, filepath.Dir(f.junit))
	}
	if err != nil {
		return 0, e.way.explain(e.explainRun(command, err))
	}
	e.report.Close()
	if _, err := io.WriteString(out, said); err != nil {
		return 0, fmt.Errorf("passing on the command's output: %w", err)
	}
	return code, nil
}

// runOnce runs a command and returns its container, nil if a signal ended it, what it printed
// and its exit code. The engine remembers what commands printed and returned, also
// of those that had GPUs, over restarts, and would answer for a GPU that has died since.
// What it remembers it finds by a hash of all that a command depends on: its words, its
// files, and its environment. A random word in that, of more bits than can ever repeat, is
// thus a command that the engine hasn't run.
func runOnce(ctx context.Context, image *dagger.Container, command string) (ran *dagger.Container, said string, code int, err error) {
	// The engine reads the two outputs side by side, and doesn't know which line came first.
	ran, err = image.WithEnvVariable(envNonce, rand.Text()).
		WithExec([]string{"sh", "-c", "exec 2>&1; " + command}, dagger.ContainerWithExecOpts{Expect: dagger.ReturnTypeAny}).Sync(ctx)
	if killed := (*dagger.ExecError)(nil); errors.As(err, &killed) && killed.ExitCode > 128 && killed.ExitCode < 255 {
		// By a signal, which "any" doesn't cover. Both outputs lack the end of their last line.
		for _, output := range []string{killed.Stdout, killed.Stderr} {
			if output != "" {
				said += output + "\n"
			}
		}
		return nil, said, killed.ExitCode, nil
	}
	if err == nil {
		said, err = ran.CombinedOutput(ctx)
	}
	if err == nil {
		code, err = ran.ExitCode(ctx)
	}
	return ran, said, code, err
}

// explainRun turns the error of a command that couldn't be run into what a person can use.
func (e *engineRun) explainRun(command string, err error) error {
	if e.ctx.Err() != nil {
		return context.Cause(e.ctx)
	}
	if stopped := e.Stopped(); stopped != nil {
		return stopped
	}
	e.Client.Close() // the log is complete with the end of the session
	return fmt.Errorf("running %q in the engine: %w", command, engine.ExplainCommand(err, e.log.String()))
}

// explain adds to the error of an engine or a command that couldn't be started what it
// means for GPUs.
func (t Through) explain(err error) error {
	if why := gpu.Explain(err.Error(), t.daemon); why != nil && t.engine != nil {
		return fmt.Errorf("%w\n%w", why, err)
	}
	return err
}
