package launch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/dockertest/smi"
	"github.com/berthdev/berth/internal/testenv"
)

func TestGPUsArriveByTheHook(t *testing.T) {
	host, hooks := dockertest.SecondDocker(t)
	p := newPerson(t)
	p.options.Network = "none"
	p.env = append(p.env, "DOCKER_HOST="+host, "PATH="+hooks+":"+dockertest.SMI(t))
	for selection, want := range map[string]struct{ visible, uuids string }{
		"":         {"0", smi.A + "\n"},
		"0":        {"0", smi.A + "\n"},
		"all":      {"all", smi.A + "\n" + smi.B + "\n"},
		"1,0":      {"1,0", smi.A + "\n" + smi.B + "\n"},
		"GPU-bbbb": {smi.B, smi.B + "\n"},
	} {
		r := p.runWith(func(o *Options) {
			o.GPUs, o.Command = selection, smi.UUIDs+"; test -c /dev/nvidia0 && echo $NVIDIA_VISIBLE_DEVICES $NVIDIA_DRIVER_CAPABILITIES"
		}, "")
		assert.Equal(t, result{out: want.uuids + want.visible + " all\n"}, r, selection)
	}
	r := p.runWith(func(o *Options) { o.GPUs, o.Command = "none", "nvidia-smi || echo $NVIDIA_VISIBLE_DEVICES" }, "")
	assert.Equal(t, "void\n", r.out, "without a GPU nothing is called")

	require.NoError(t, os.WriteFile(filepath.Join(hooks, "broken"),
		[]byte("nvidia-container-cli: initialization error: nvml error: driver/library version mismatch"), 0o644))
	r = p.runWith(func(o *Options) { o.GPUs, o.Command = "0", "true" }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "no GPU for a container: the driver in the kernel and the driver's libraries have different versions, "+
		"as after an update\nDocker said: ")
	assert.Contains(t, r.err, "Restart the machine. Or, ")
	require.NoError(t, os.Remove(filepath.Join(hooks, "broken")))
}

// TestCUDAInALaunch has a program use the GPUs that a launch passes on: the trainer, with a
// stand-in for the driver's library, which the hook puts there as NVIDIA's does.
func TestCUDAInALaunch(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for a minute, and starts a Docker")
	}
	host, hooks := dockertest.SecondDocker(t)
	p := newPerson(t)
	p.options.Network = "none"
	p.env = append(p.env, "DOCKER_HOST="+host, "PATH="+hooks+":"+dockertest.SMI(t))
	library, err := os.ReadFile(filepath.Join(cudatest.Runs(t), "libcuda.so.1"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(hooks, "libcuda.so.1"), library, 0o755))
	trainer, err := os.ReadFile(cudatest.Trainer(t))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(p.options.Root, "trainer"), trainer, 0o755))
	launch := func(gpus, command string) result {
		return p.runWith(func(o *Options) { o.GPUs, o.Command = gpus, command }, "")
	}

	r := launch("0", "./trainer info && ./trainer bench --device=cuda --channels=1 --num-workers=1 --batch-size=2 --steps=1")
	assert.Zero(t, r.code, r.err)
	assert.Contains(t, r.out, "available: --device=auto takes cuda:0")
	assert.Regexp(t, `cuda:0 +Fake GPU 0, GPU-00010203-0405-0607-0809-0a0b0c0d0e0f, `, r.out)
	assert.Regexp(t, `cuda:0 \(Fake GPU 0\) +fp32 +1 +2 `, r.out, "kernels run")
	if testenv.Long() {
		r = launch("0", "./trainer smoke --device=cuda")
		assert.Zero(t, r.code, r.err)
		assert.Equal(t, 3, strings.Count(r.out, "ok  "), r.out)
	}
	r = launch("none", "./trainer smoke --device=cuda")
	assert.Equal(t, 3, r.code)
	assert.Contains(t, r.err, "libcuda.so.1: cannot open shared object file")
	r = launch("none", "./trainer info")
	assert.Zero(t, r.code, r.err)
	assert.Regexp(t, `cuda +device unavailable: no CUDA: libcuda.so.1: `, r.out)
}

func TestHookThatDockerDidNotFind(t *testing.T) {
	p := newPerson(t)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, dockertest.HookName), []byte("#!/bin/sh\n"), 0o755))
	p.env = append(p.env, "PATH="+bin+":"+dockertest.SMI(t))
	d := dockertest.Connect(t)
	info, err := d.Info(t.Context())
	require.NoError(t, err)
	if len(info.CDI) > 0 || slices.Contains(info.Runtimes, "nvidia") {
		testenv.Skip(t, testenv.NoGPU, "this Docker can pass GPUs on")
	}
	r := p.runWith(func(o *Options) { o.GPUs, o.Command = "0", "true" }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "no GPU for a container: Docker didn't find NVIDIA's hook when it started\nDocker said: ")
	assert.Contains(t, r.err, "\n\tgo tool mage doctor -row=hook-not-found\n")
}
