package ci

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/usage"
)

func TestChooseThrough(t *testing.T) {
	gpus := world{machine: gpu.Machine{
		SMI: true, Toolkit: true, Driver: "580.95.05", GPUs: []gpu.GPU{{UUID: "GPU-aaaa0000"}, {Index: 1, UUID: "GPU-bbbb0000"}},
	}}
	noToolkit := gpus
	noToolkit.machine.Toolkit = false
	noEngine := gpus
	noEngine.noEngine = errors.New("no engine\nfor a reason")
	named := world{machine: gpus.machine, named: "tcp://e:1"}
	cdi := gpus
	cdi.daemon.CDI = []string{"nvidia.com/gpu=all"}
	for name, c := range map[string]struct {
		asked ThroughOptions
		world world
		want  string // as a person is told, or the error
	}{
		"nothing asked, no GPU":     {ThroughOptions{}, world{}, "through Docker: no GPU is needed"},
		"nothing asked, GPUs":       {ThroughOptions{}, gpus, "through Dagger: its engine hands GPUs on (by hook)"},
		"auto":                      {ThroughOptions{Through: "auto", GPUs: "all"}, gpus, "through Dagger: its engine hands GPUs on (by hook)"},
		"by CDI":                    {ThroughOptions{GPUs: "1,0"}, cdi, "through Dagger: its engine hands GPUs on (by cdi)"},
		"no GPU wanted":             {ThroughOptions{GPUs: "none"}, gpus, "through Docker: no GPU is needed"},
		"docker":                    {ThroughOptions{Through: "docker", GPUs: "all"}, gpus, "through Docker: -through=docker says so"},
		"an image":                  {ThroughOptions{Image: "a:1", GPUs: "all"}, gpus, "through Docker: -t names an image that is there"},
		"no engine":                 {ThroughOptions{GPUs: "all"}, noEngine, "through Docker: no engine"},
		"no toolkit":                {ThroughOptions{GPUs: "all"}, noToolkit, "through Docker: the NVIDIA Container Toolkit isn't installed"},
		"dagger without a GPU":      {ThroughOptions{Through: "dagger"}, world{}, "through Dagger: -through=dagger says so. NO GPU, running on the CPU: there is no NVIDIA GPU in this machine"},
		"dagger, no GPU wanted":     {ThroughOptions{Through: "dagger", GPUs: "none"}, gpus, "through Dagger: -through=dagger says so"},
		"an engine of one's own":    {ThroughOptions{GPUs: "all"}, named, "through Docker: it isn't known whether the engine at tcp://e:1 hands GPUs on"},
		"dagger, of one's own":      {ThroughOptions{Through: "dagger", GPUs: "all"}, named, "through Dagger: -through=dagger says so"},
		"dagger, no engine":         {ThroughOptions{Through: "dagger"}, noEngine, "-through=dagger: no engine\nfor a reason"},
		"dagger, no toolkit":        {ThroughOptions{Through: "dagger", GPUs: "0"}, noToolkit, "-through=dagger: no GPU for a container: the NVIDIA"},
		"dagger, an image":          {ThroughOptions{Through: "dagger", Image: "a:1"}, gpus, "-through=dagger: usage: it tests the project's own image"},
		"Docker elsewhere":          {ThroughOptions{GPUs: "0"}, world{elsewhere: true}, "through Docker: Docker runs on another machine"},
		"a GPU that isn't there":    {ThroughOptions{GPUs: "7"}, gpus, "-g=7: usage: there is no GPU 7"},
		"something else altogether": {ThroughOptions{Through: "podman"}, gpus, `-through: usage: it may be auto, docker or dagger, not "podman"`},
	} {
		got, err := Through{}, c.asked.check()
		if err == nil {
			got, err = chooseThrough(c.asked, c.world)
		}
		if err != nil {
			assert.True(t, strings.HasPrefix(err.Error(), c.want), "%s: %v", name, err)
			continue
		}
		assert.True(t, strings.HasPrefix(got.String(), "Smoke commands run "+c.want), "%s: %s", name, got)
		assert.NotContains(t, got.String(), "\n", name)
		assert.Equal(t, got.Dagger && !got.GPUs.None(), got.engine != nil, name)
	}
	_, err := ChooseThrough(t.Context(), ThroughOptions{Through: "podman", GPUs: "all"})
	assert.ErrorIs(t, err, usage.Err, "before anything is asked")

	got, err := chooseThrough(ThroughOptions{GPUs: "1"}, gpus)
	require.NoError(t, err)
	assert.Equal(t, gpu.Request{IDs: []string{"1"}}, got.GPUs)
	assert.Equal(t, []string{"GPU-bbbb0000"}, got.machine.UUIDs(got.GPUs))
	assert.Equal(t, &engine.GPUs{
		Devices: []daemon.DeviceRequest{{Count: -1, Capabilities: []string{"gpu"}}}, // all, whichever this command gets
		Env:     []string{"NVIDIA_DRIVER_CAPABILITIES=all"}, Driver: "580.95.05",
	}, got.engine)
}

// shellProject is a project whose image has a shell and no more.
func shellProject(t *testing.T) Project {
	t.Helper()
	root := t.TempDir()
	files := dockertest.ShellProject(t)
	files["magefiles/.keep"], files["here"], files[".gitignore"], files["ignored"] = "", "", "ignored\n", ""
	for name, data := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(data), 0o755))
	}
	p, err := Project{Name: dockertest.Process + "-gpu", Inputs: []input.Input{}}.At(root)
	require.NoError(t, err)
	return p
}

// TestEngineRun runs commands without a GPU, in the usual engine. (TestSmokeOnGPUs has the
// others.)
func TestEngineRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts an engine")
	}
	dockertest.Connect(t)
	e, err := openEngineRun(t.Context(), shellProject(t), Through{Dagger: true}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.close()) }()
	for command, want := range map[string]struct {
		out  string
		code int
	}{
		"echo out; echo err >&2": {"out\nerr\n", 0},
		"echo no; exit 3":        {"no\n", 3},
		"no-such-command":        {"sh: 1: no-such-command: not found\n", 127},
		"echo dying; kill -9 $$": {"dying\n", 137},
		"exit 130":               {"", 130},
		"true":                   {"", 0},
		"pwd; test -e ignored || echo *; echo >written; test -s written": {"/my_workspace\ndocker here magefiles root\n", 0},
	} {
		var out bytes.Buffer
		code, err := e.run(t.Context(), command, files{}, &out)
		require.NoError(t, err, command)
		assert.Equal(t, want.code, code, command)
		assert.Equal(t, want.out, out.String(), command)
	}
	seen := map[string]bool{}
	for range 3 {
		var out bytes.Buffer
		_, err := e.run(t.Context(), "read uuid </proc/sys/kernel/random/uuid; echo $uuid", files{}, &out)
		require.NoError(t, err)
		seen[out.String()] = true
	}
	assert.Len(t, seen, 3, "each is run")

	at := t.TempDir()
	f := files{junit: filepath.Join(at, "junit.xml"), losses: filepath.Join(at, "losses")}
	code, err := e.run(t.Context(), "echo 1 2.5 >$BERTH_LOSSES; exit 4", f, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, 4, code)
	losses, err := os.ReadFile(f.losses)
	require.NoError(t, err)
	assert.Equal(t, "1 2.5\n", string(losses))
	assert.NoFileExists(t, f.junit)
}
