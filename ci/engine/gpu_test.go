package engine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/dockertest"
)

func TestNames(t *testing.T) {
	t.Setenv(envName, "")
	assert.Equal(t, "berth-engine", Options{}.name())
	assert.Equal(t, "berth-engine-gpu", Options{GPU: true}.name())
	t.Setenv(envName, "mine")
	assert.Equal(t, "mine", Options{}.name())
	assert.Equal(t, "mine-gpu", Options{GPU: true}.name())
	assert.Equal(t, "theirs-gpu", Options{GPU: true, Name: "theirs"}.name())
	assert.Equal(t, "registry.dagger.io/engine:v0.19.10-gpu", Options{GPU: true}.official())
}

func TestContainersWithGPUs(t *testing.T) {
	mount := daemon.Mount{Type: "bind", Source: "/opt/hook", Target: "/usr/bin/hook", ReadOnly: true}
	g := &GPUs{
		Devices: []daemon.DeviceRequest{{Count: -1, Capabilities: []string{"gpu"}}}, Runtime: "nvidia",
		Env: []string{"NVIDIA_DRIVER_CAPABILITIES=all"}, toolkit: []daemon.Mount{mount},
	}
	usual := spec{name: "e", socket: "/s"}.containers()
	ways := spec{name: "e-gpu", socket: "/s", gpus: g}.containers()
	require.Len(t, ways, len(usual))
	for i, c := range ways {
		assert.Equal(t, g.Devices, c.Devices)
		assert.Equal(t, "nvidia", c.Runtime)
		assert.Equal(t, []string{"NVIDIA_DRIVER_CAPABILITIES=all", "_EXPERIMENTAL_DAGGER_GPU_SUPPORT=1"}, c.Env)
		assert.Equal(t, g.hash(), c.Labels[labelGPUs])
		assert.Equal(t, "e-gpu-v0.19.10", c.Mounts[0].Source, "its state is its own")
		assert.Contains(t, c.Mounts, mount)
		// Apart from that it is run as the usual one is.
		c.Mounts = slices.DeleteFunc(c.Mounts, func(m daemon.Mount) bool { return m == mount })
		c.Mounts[0].Source = "e-v0.19.10"
		c.Name, c.Devices, c.Runtime, c.Env, c.Labels = "e", nil, "", nil, usual[i].Labels
		assert.Equal(t, usual[i], c)
	}
	assert.Equal(t, []string{"NVIDIA_DRIVER_CAPABILITIES=all"}, g.Env)
}

func TestHashOfGPUs(t *testing.T) {
	assert.Empty(t, (*GPUs)(nil).hash())
	seen := map[string]bool{}
	for _, g := range []GPUs{{}, {Runtime: "nvidia"}, {Driver: "580.1"}, {Env: []string{"A=b"}},
		{Devices: []daemon.DeviceRequest{{Count: -1}}}, {toolkit: []daemon.Mount{{Source: "/a"}}}} {
		seen[g.hash()] = true
	}
	assert.Len(t, seen, 6)
	assert.False(t, seen[""])
}

func TestToolkitMounts(t *testing.T) {
	bind := func(source, target string) daemon.Mount {
		return daemon.Mount{Type: "bind", Source: source, Target: target, ReadOnly: true}
	}
	got, err := toolkit{
		hook: "/opt/bin/nvidia-container-runtime-hook", cli: "/usr/bin/nvidia-container-cli",
		libraries: []string{"/usr/lib64/libnvidia-container-go.so.1", "/usr/lib64/libnvidia-container.so.1"},
		settings:  []string{"/etc/nvidia-container-runtime/config.toml"},
	}.mounts()
	require.NoError(t, err)
	assert.Equal(t, []daemon.Mount{
		bind("/opt/bin/nvidia-container-runtime-hook", "/usr/bin/nvidia-container-runtime-hook"),
		bind("/usr/bin/nvidia-container-cli", "/usr/bin/nvidia-container-cli"),
		bind("/usr/lib64/libnvidia-container-go.so.1", "/usr/lib/libnvidia-container-go.so.1"),
		bind("/usr/lib64/libnvidia-container.so.1", "/usr/lib/libnvidia-container.so.1"),
		bind("/etc/nvidia-container-runtime/config.toml", "/etc/nvidia-container-runtime/config.toml"),
	}, got)

	_, err = toolkit{hook: "/usr/bin/nvidia-container-runtime-hook"}.mounts()
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.Equal(t, "no Dagger engine available: an engine that hands GPUs on needs NVIDIA's Container Toolkit, "+
		"of which this machine lacks nvidia-container-cli, libnvidia-container.so.1. "+
		"Install the package nvidia-container-toolkit from NVIDIA's repository", advice.Text(err, "berth"))
}

func TestFindToolkit(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"usr/bin/nvidia-container-runtime-hook", "usr/bin/nvidia-container-cli", "sbin/ldconfig.real",
		"usr/lib/x86_64-linux-gnu/libnvidia-container.so.1", "usr/lib/x86_64-linux-gnu/libnvidia-container-go.so.1",
		"usr/lib/x86_64-linux-gnu/libnvidia-container.so.1.17.8", "usr/lib64/libnvidia-container.so.1",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o755))
	}
	bin := dockertest.Toolkit(t)
	at := func(name string) string { return filepath.Join(root, name) }
	t.Setenv("PATH", t.TempDir())
	assert.Equal(t, toolkit{
		hook: at("usr/bin/nvidia-container-runtime-hook"), cli: at("usr/bin/nvidia-container-cli"),
		libraries: []string{at("usr/lib/x86_64-linux-gnu/libnvidia-container-go.so.1"), at("usr/lib/x86_64-linux-gnu/libnvidia-container.so.1")},
		settings:  []string{at("sbin/ldconfig.real")},
	}, findToolkit(root))
	assert.Equal(t, toolkit{}, findToolkit(t.TempDir()))

	t.Setenv("PATH", bin)
	assert.Equal(t, toolkit{
		hook: filepath.Join(bin, hookName), cli: filepath.Join(bin, cliOfGPU),
		libraries: []string{filepath.Join(bin, "../lib/libnvidia-container.so.1")},
	}, findToolkit(t.TempDir()), "what is on the PATH may lie anywhere")
}

// TestEngineThatHandsGPUsOn has a toolkit, and no GPU: commands get what the hook puts
// into their container.
func TestEngineThatHandsGPUsOn(t *testing.T) {
	p := testProvider(t)
	usual, err := p.connect(t.Context())
	require.NoError(t, err)
	defer usual.Close()
	_, err = usual.Container().ExperimentalWithAllGPUs().WithExec([]string{"x"}).Sync(t.Context())
	assert.ErrorContains(t, err, "GPU support is not enabled", "the usual engine refuses")

	o := p.Options
	t.Setenv("PATH", dockertest.PathWithout(hookName))
	require.ErrorContains(t, HandsOnGPUs(t.Context(), p.docker, o), "lacks nvidia-container-runtime-hook, nvidia-container-cli")
	bin := dockertest.Toolkit(t)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	require.NoError(t, HandsOnGPUs(t.Context(), p.docker, o))

	o.GPU, o.Name = true, newName(t, p.docker)
	p, err = newProvider(p.docker, o)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.removeEngine(t.Context())) }()
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
	before, err := p.docker.Inspect(t.Context(), o.name())
	require.NoError(t, err)
	s, err := Status(t.Context(), Options{Name: o.Name, Cache: o.Cache, GPU: true})
	require.NoError(t, err)
	assert.True(t, s.Current, "however it gets them")
	assert.Equal(t, o.Name+"-gpu-v0.19.10", s.Volume)

	p.GPUs.Driver = "580.1"
	e, err = p.connect(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	after, err := p.docker.Inspect(t.Context(), o.name())
	require.NoError(t, err)
	assert.NotEqual(t, before.ID, after.ID, "the new driver's libraries come with a new container")

	require.NoError(t, os.Remove(filepath.Join(bin, hookName)))
	_, err = p.connect(t.Context())
	assert.ErrorContains(t, err, "lacks nvidia-container-runtime-hook", "an engine that runs doesn't outlive the toolkit")
}
