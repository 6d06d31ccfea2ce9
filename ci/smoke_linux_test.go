package ci

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dagger.io/dagger"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/docker/gpu/lease"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/dockertest/smi"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/trouble"
)

// gpuDocker is a Docker that passes GPUs on, in which the engine's image is, and a cache
// of its own that has Dagger's command line.
func gpuDocker(t *testing.T, flags ...string) (toolkit string) {
	t.Helper()
	command := testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	docker := dockertest.Connect(t)
	t.Setenv("BERTH_ENGINE_SOURCE", "source")
	dir, err := cache.Open()
	require.NoError(t, err)
	o := engine.Options{Cache: dir, Report: progress.New(os.Stderr)}
	require.NoError(t, engine.Start(t.Context(), o))
	s, err := engine.Status(t.Context(), o)
	require.NoError(t, err)
	image, err := docker.Image(t.Context(), s.Image)
	require.NoError(t, err)
	programs, err := filepath.Glob(dir.Path("engine", "*", "dagger*"))
	require.NoError(t, err)
	require.NotEmpty(t, programs)
	t.Setenv("_EXPERIMENTAL_DAGGER_CLI_BIN", programs[0])

	save := exec.Command(command, append([]string{"save"}, image.Tags...)...)
	save.Env = append(os.Environ(), "DOCKER_HOST="+docker.Host())
	_, toolkit, _ = dockertest.RestartableDocker(t, flags...)
	second := dockertest.Connect(t)
	r, w := io.Pipe()
	save.Stdout = w
	go func() { w.CloseWithError(save.Run()) }()
	require.NoError(t, second.Load(t.Context(), r))
	dockertest.Cache(t)
	t.Setenv("PATH", toolkit+":"+dockertest.SMI(t))
	t.Setenv("BERTH_LEASES", t.TempDir())
	return toolkit
}

// smokeOn is what the smoke commands printed, and Berth of them.
func smokeOn(t *testing.T, p Project, gpus, through string) (said string, err error) {
	t.Helper()
	return smokeWith(t, p, SmokeOptions{GPUs: gpus, Through: through})
}

func smokeWith(t *testing.T, p Project, o SmokeOptions) (said string, err error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer out.Close()
	nothing, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer nothing.Close()
	o.For, o.Streams, o.Report = "a test", launch.Streams{In: nothing, Out: out, Err: out}, progress.New(out)
	failed := Smoke(t.Context(), p, o, func(v Verdict) { out.WriteString(v.String() + "\n") })
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return string(text), failed
}

// smokeStage is the pipeline's stage with these GPUs.
func smokeStage(t *testing.T, p Project, gpus, through string) stage.Result {
	t.Helper()
	report, err := Pipeline(t.Context(), p, PipelineOptions{Only: "smoke", GPUs: gpus, Through: through})
	require.Len(t, report.Stages, 1, "%v", err)
	return report.Stages[0]
}

// TestSmokeOnGPUs has no GPU, but everything between one and a command: a driver that lists
// two, a Docker that calls NVIDIA's hook, an engine that does, and a hook that puts devices
// and an nvidia-smi of what it was asked for into the container.
func TestSmokeOnGPUs(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Docker and two engines")
	}
	toolkit := gpuDocker(t)
	beside := func(name string) string { return filepath.Join(toolkit, name) }
	p := shellProject(t)
	p.Smoke = []string{
		"test -c /dev/nvidia0 && test -c /dev/nvidia1 && test -e here && " + smi.UUIDs,
		`echo 1 2.5 >${BERTH_LOSSES:-/dev/null}; echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES`,
	}
	const sees = smi.A + ", " + smi.B + ", driver " + smi.Driver + ", CUDA " + smi.CUDA
	for through, says := range map[string]string{
		"docker": "Smoke commands run through Docker: -through=docker says so\n",
		"auto":   "Smoke commands run through Dagger: its engine hands GPUs on (by hook)\n",
	} {
		out, err := smokeOn(t, p, "all", through)
		require.NoError(t, err, out)
		assert.Contains(t, out, says)
		assert.Contains(t, out, "The container sees "+sees+"\n"+checkName+": ok (")
		assert.Contains(t, out, ")\n"+smi.A+"\n"+smi.B+"\ntest -c ")
		assert.Contains(t, out, ")\nall all\necho 1")

		result := smokeStage(t, p, "all", through)
		require.Equal(t, stage.Passed, result.State, result.Why)
		require.Len(t, result.Checks, 3)
		assert.Equal(t, checkName, result.Checks[0].Name)
		assert.Equal(t, []stage.Curve{{Name: p.Smoke[1], Steps: []float64{1}, Losses: []float64{2.5}}}, result.Curves)
		require.Len(t, result.Notes, 1)
		assert.Contains(t, result.Notes[0], strings.TrimSpace(says)+". The container sees "+sees)
	}
	assert.Contains(t, inGPUEngine(t, "nvidia-smi", "--list-gpus"), smi.B, "the engine has all")
	out, err := smokeOn(t, p, "GPU-bbbb", "auto")
	assert.ErrorContains(t, err, "1 of 2 smoke commands failed")
	assert.Contains(t, out, "The container sees "+smi.B+", driver")
	assert.Contains(t, out, "exit code 1")
	out, err = smokeOn(t, p, "auto:2", "auto")
	require.NoError(t, err, out)
	assert.Contains(t, out, "Leased GPU 0, GPU 1\n")
	asNamed(t, func() {
		out, err = smokeOn(t, p, "all", "dagger")
		require.NoError(t, err, out)
	})

	// Somebody has a GPU.
	book, err := lease.Open()
	require.NoError(t, err)
	held, err := book.Acquire(t.Context(), lease.Request{Count: 1, Candidates: []string{smi.A}}, lease.Holder{Name: "x"}, nil)
	require.NoError(t, err)
	for _, through := range []string{"docker", "dagger"} {
		out, err = smokeWith(t, p, SmokeOptions{GPUs: "all", Through: through, Wait: new(time.Duration)})
		assert.ErrorIs(t, err, lease.ErrHeld, through)
		assert.NotContains(t, out, "test -c", through)
		out, _ = smokeOn(t, p, "auto", through)
		assert.Contains(t, out, "The container sees "+smi.B+", driver", through)
		out, err = smokeWith(t, p, SmokeOptions{GPUs: "all", Through: through, Share: true})
		require.NoError(t, err, out)
	}
	require.NoError(t, held.Close())

	// A container with other GPUs than those that it was given, or none.
	for visible, says := range map[string]string{
		"1":    "it doesn't see " + smi.A + ", which it was given; it sees " + smi.B + ", which it wasn't given",
		"void": "it doesn't see " + smi.A + ", which it was given\nnvidia-smi ended with exit code 6 there, and said:\nNo devices were found",
	} {
		require.NoError(t, os.WriteFile(beside("visible"), []byte(visible), 0o644))
		require.Empty(t, inGPUEngine(t, "sh", "-c", "echo -n "+visible+" >/usr/bin/visible"))
		for _, through := range []string{"docker", "dagger"} {
			out, err = smokeOn(t, p, "0", through)
			assert.ErrorIs(t, err, errOtherGPUs)
			assert.Contains(t, out, says, through)
			assert.NotContains(t, out, "test -c", through)
		}
		result := smokeStage(t, p, "0", "dagger")
		assert.Equal(t, stage.Failed, result.State)
		require.Len(t, result.Checks, 3)
		assert.Contains(t, result.Checks[0].Failure, says)
		assert.Equal(t, errOtherGPUs.Error(), result.Checks[1].Skipped)
		for _, name := range []string{"report.json", "junit.xml", "summary.md"} {
			text, err := os.ReadFile(p.Path("artifacts/ci/" + name))
			require.NoError(t, err)
			assert.Contains(t, string(text), checkName, name)
			assert.Contains(t, string(text), smi.A+", which it was given", name)
		}
	}
	require.NoError(t, os.Remove(beside("visible")))
	require.Empty(t, inGPUEngine(t, "rm", "/usr/bin/visible"))

	// The hook breaks in the engine that runs, right after a pass of the same commands.
	out, err = smokeOn(t, p, "all", "dagger")
	require.NoError(t, err, out)
	assert.Equal(t, smi.A+"\n"+smi.B+"\n", withoutNonce(t))
	require.Empty(t, inGPUEngine(t, "sh", "-c", `echo "$1" > /usr/bin/broken`, "sh", driverGone))
	assert.Equal(t, smi.A+"\n"+smi.B+"\n", withoutNonce(t), "nothing was run: this is what the nonce is for")
	out, err = smokeOn(t, p, "all", "dagger")
	assert.NotContains(t, out, "test -c", "the pass came from the cache")
	assert.ErrorContains(t, err, "no GPU for a container: the driver is installed, but its kernel module isn't loaded\n")
	assert.Same(t, trouble.ModuleNotLoaded, advice.Row(err))
	assert.ErrorContains(t, err, driverGone)
	assert.Equal(t, ExitPrerequisite, ExitCode(err))

	stdout, stderr, code := berth(t, p.Root, nil, "engine:status")
	require.Zero(t, code, stderr)
	assert.Regexp(t, `(?s)^engine +(\S+)\nstate +.*\n\nengine +\S+-gpu\nstate +running\n`, stdout)

	// The hook is removed: neither way passes, in either form.
	require.NoError(t, os.Remove(beside(dockertest.HookName)))
	for _, through := range []string{"docker", "dagger", "auto"} {
		_, err = smokeOn(t, p, "all", through)
		assert.ErrorContains(t, err, "no GPU for a container: the NVIDIA Container Toolkit isn't installed", through)
		assert.Equal(t, ExitPrerequisite, ExitCode(err), through)
		assert.Equal(t, stage.Failed, smokeStage(t, p, "all", through).State, through)
	}

	dir, err := cache.Open()
	require.NoError(t, err)
	require.NoError(t, engine.Prune(t.Context(), engine.Options{Cache: dir}))
	volumes, err := dockertest.Connect(t).Volumes(t.Context())
	require.NoError(t, err)
	assert.Empty(t, volumes)
}

// TestSmokeOnGPUsByCDI has a dockerd that knows the GPUs as CDI devices: Docker passes them
// on without a hook, to the engine as well, which needs the hook for what it runs.
func TestSmokeOnGPUsByCDI(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it compiles a dockerd: mage test -long")
	}
	t.Setenv("PATH", dockertest.NewDockerd(t)+":"+os.Getenv("PATH"))
	spec := dockertest.CDI(t)
	toolkit := gpuDocker(t, "--cdi-spec-dir="+spec)
	p := shellProject(t)
	p.Smoke = []string{"test -c /dev/nvidia0 && echo by ${NVIDIA_VISIBLE_DEVICES} && " + smi.UUIDs}
	for through, says := range map[string]string{
		"docker": "by void\n" + smi.A + "\n" + smi.B + "\n", // no hook had a part in it
		"auto":   "by all\n" + smi.A + "\n" + smi.B + "\n",
	} {
		out, err := smokeOn(t, p, "all", through)
		require.NoError(t, err, out)
		assert.Equal(t, through == "auto", strings.Contains(out, "through Dagger: its engine hands GPUs on (by cdi)"), out)
		assert.Contains(t, out, checkName+": ok (", through)
		assert.Contains(t, out, says, through)
	}
	assert.Contains(t, inGPUEngine(t, "nvidia-smi", "--list-gpus"), smi.B, "the engine has all")
	out, err := smokeOn(t, p, "GPU-bbbb", "docker")
	require.NoError(t, err, out)
	assert.Contains(t, out, "by void\n"+smi.B+"\n")

	out, err = smokeOn(t, p, "all", "dagger")
	require.NoError(t, err, out)
	require.Empty(t, inGPUEngine(t, "sh", "-c", `echo "$1" > /usr/bin/broken`, "sh", driverGone))
	_, err = smokeOn(t, p, "all", "dagger")
	assert.ErrorContains(t, err, driverGone, "the pass came from the cache")

	require.NoError(t, os.Remove(filepath.Join(toolkit, dockertest.HookName)))
	_, err = smokeOn(t, p, "all", "dagger")
	assert.ErrorContains(t, err, "lacks nvidia-container-runtime-hook")
	out, err = smokeOn(t, p, "all", "auto")
	require.NoError(t, err, out)
	assert.Contains(t, out, "Smoke commands run through Docker: ")
	require.NoError(t, os.Remove(filepath.Join(spec, "nvidia.json")))
	require.Eventually(t, func() bool {
		_, err = smokeOn(t, p, "all", "auto")
		return err != nil
	}, time.Minute, 100*time.Millisecond, "neither hook nor specification")
	assert.Equal(t, ExitPrerequisite, ExitCode(err))
}

// asNamed does something while the engine that hands GPUs on is named, as a user names
// their own.
func asNamed(t *testing.T, do func()) {
	t.Helper()
	dir, err := cache.Open()
	require.NoError(t, err)
	sockets, err := filepath.Glob(dir.Path("engine", "sockets", "*-gpu-*", "engine.sock"))
	require.NoError(t, err)
	require.Len(t, sockets, 1)
	t.Setenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "unix://"+sockets[0])
	defer os.Unsetenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST")
	do()
}

// withoutNonce is what UUIDs there are in a step of the engine's like any other.
func withoutNonce(t *testing.T) (said string) {
	t.Helper()
	dir, err := cache.Open()
	require.NoError(t, err)
	staged, err := filepath.Glob(dir.Path("contexts", "*", "docker"))
	require.NoError(t, err)
	require.Len(t, staged, 1)
	asNamed(t, func() {
		e, err := engine.Connect(t.Context(), engine.Options{Cache: dir})
		require.NoError(t, err)
		defer e.Close()
		said, err = e.Host().Directory(filepath.Dir(staged[0])).DockerBuild(dagger.DirectoryDockerBuildOpts{Dockerfile: "docker/Dockerfile"}).
			ExperimentalWithAllGPUs().WithExec([]string{"sh", "-c", smi.UUIDs}).Stdout(t.Context())
		require.NoError(t, err)
	})
	return said
}

// inGPUEngine is what a command printed in the container of the engine that hands GPUs on.
func inGPUEngine(t *testing.T, command ...string) string {
	t.Helper()
	p, err := dockertest.Connect(t).Exec(t.Context(), os.Getenv("BERTH_ENGINE")+"-gpu", command...)
	require.NoError(t, err)
	defer p.Close()
	said, err := io.ReadAll(p)
	require.NoError(t, err)
	return string(said)
}

// driverGone is what NVIDIA's hook says then.
const driverGone = "nvidia-container-cli: initialization error: nvml error: driver not loaded"
