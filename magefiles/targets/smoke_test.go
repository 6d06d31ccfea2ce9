package targets

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dagger.io/dagger"
	"github.com/magefile/mage/mg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
)

// smoke runs the target.
func smoke(t *testing.T, gpus, through string) (string, error) {
	t.Helper()
	return printed(t, func() error { return Smoke(t.Context(), &gpus, nil, &through) })
}

// gpuDocker is a Docker that passes GPUs on, in which the engine's image is, and a cache
// of its own that has Dagger's command line.
func gpuDocker(t *testing.T) (toolkit string) {
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
	_, toolkit = dockertest.GPUDocker(t)
	second := dockertest.Connect(t)
	r, w := io.Pipe()
	save.Stdout = w
	go func() { w.CloseWithError(save.Run()) }()
	require.NoError(t, second.Load(t.Context(), r))
	dockertest.Cache(t)
	t.Setenv("PATH", toolkit+":"+dockertest.SMI(t))
	return toolkit
}

// TestSmokeOnGPUs has no GPU, but everything between one and a command: a Docker that
// calls NVIDIA's hook, an engine that does, and a hook that shows what it was asked for.
func TestSmokeOnGPUs(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Docker and two engines")
	}
	files := dockertest.ShellProject(t)
	toolkit := gpuDocker(t)
	in(t, ci.Project{Name: dockertest.Process + "-gpu", Inputs: []input.Input{}, Smoke: []string{
		`nvidia-smi; test "$(nvidia-smi) $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES" = "GPUs: all all all"`,
	}}, files)
	for name := range files {
		require.NoError(t, os.Chmod(name, 0o755))
	}

	out, err := smoke(t, "all", "docker")
	require.NoError(t, err, out)
	assert.Regexp(t, `^nvidia-smi; .*: ok \(`, out)
	out, err = smoke(t, "all", "auto")
	require.NoError(t, err, out)
	assert.Regexp(t, `^GPUs: all\nnvidia-smi; .*: ok \(`, out, "through Dagger")
	assert.Contains(t, execute(t, "cat", "/usr/bin/nvidia-smi"), "GPUs: all", "the engine has all")
	out, err = smoke(t, "GPU-bbbb", "auto")
	assert.ErrorContains(t, err, "1 of 1 smoke commands failed")
	assert.Regexp(t, `^GPUs: GPU-bbbb0000-1111-2222-3333-444444444444\nnvidia-smi; .*: exit code 1 \(`, out)
	asNamed(t, func() {
		out, err = smoke(t, "all", "dagger")
		require.NoError(t, err, out)
	})

	assert.Equal(t, "GPUs: all\n", withoutNonce(t))
	breakHookInEngine(t)
	assert.Equal(t, "GPUs: all\n", withoutNonce(t), "nothing was run: this is what the nonce is for")
	out, err = smoke(t, "all", "dagger")
	assert.Empty(t, out)
	assert.ErrorContains(t, err, "no GPU for a container: the driver is installed, but its kernel module isn't loaded.\n"+
		"\tsudo modprobe nvidia")
	assert.ErrorContains(t, err, driverGone)
	assert.Equal(t, ci.ExitPrerequisite, mg.ExitStatus(err))

	out, err = printed(t, func() error { return Engine{}.Status(t.Context(), nil) })
	require.NoError(t, err)
	assert.Regexp(t, `(?s)^engine +(\S+)\nstate +running\n.*\n\nengine +\S+-gpu\nstate +running\n`, out)

	require.NoError(t, os.Remove(filepath.Join(toolkit, dockertest.HookName)))
	_, err = smoke(t, "all", "dagger")
	assert.ErrorContains(t, err, "no GPU for a container: the NVIDIA Container Toolkit isn't installed")
	assert.Equal(t, ci.ExitPrerequisite, mg.ExitStatus(err))
	_, err = smoke(t, "all", "auto")
	assert.Equal(t, ci.ExitPrerequisite, mg.ExitStatus(err))

	_, err = printed(t, func() error { return Engine{}.Prune(t.Context()) })
	require.NoError(t, err)
	docker := dockertest.Connect(t)
	volumes, err := docker.Volumes(t.Context())
	require.NoError(t, err)
	assert.Empty(t, volumes)
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

// withoutNonce is what nvidia-smi prints in a step of the engine's like any other.
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
			ExperimentalWithAllGPUs().WithExec([]string{"nvidia-smi"}).Stdout(t.Context())
		require.NoError(t, err)
	})
	return said
}

// execute runs a command in the container of the engine that hands GPUs on.
func execute(t *testing.T, command ...string) string {
	t.Helper()
	p, err := dockertest.Connect(t).Exec(t.Context(), os.Getenv("BERTH_ENGINE")+"-gpu", command...)
	require.NoError(t, err)
	defer p.Close()
	said, err := io.ReadAll(p)
	require.NoError(t, err)
	return string(said)
}

// breakHookInEngine makes NVIDIA's hook fail in the engine that runs, as it does when the
// driver is gone.
func breakHookInEngine(t *testing.T) {
	t.Helper()
	require.Empty(t, execute(t, "sh", "-c", `echo "$1" > /usr/bin/broken`, "sh", driverGone))
}

const driverGone = "nvidia-container-cli: initialization error: nvml error: driver not loaded"
