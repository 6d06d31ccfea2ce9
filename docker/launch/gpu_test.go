package launch

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
