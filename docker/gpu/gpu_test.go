package gpu

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
	"github.com/berthdev/berth/internal/usage"
)

const list = `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
  MIG 1g.5gb      Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
  MIG 3g.20gb     Device  1: (UUID: MIG-44444444-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA A100 (80 GB) (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
`

var two = Machine{
	SMI: true, Toolkit: true, Loaded: true, Driver: "580.95.05",
	GPUs: []GPU{
		{Index: 0, UUID: "GPU-11111111-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA A100-SXM4-40GB", MIG: []Instance{
			{Index: 0, UUID: "MIG-33333333-aaaa-bbbb-cccc-000000000000", Profile: "1g.5gb"},
			{Index: 1, UUID: "MIG-44444444-aaaa-bbbb-cccc-000000000000", Profile: "3g.20gb"},
		}},
		{Index: 1, UUID: "GPU-22222222-aaaa-bbbb-cccc-000000000000", Name: "NVIDIA A100 (80 GB)"},
	},
}

// host makes a file system with these files, and puts programs of that content
// alone on the PATH.
func host(t *testing.T, files, programs map[string]string) string {
	root, bin := t.TempDir(), t.TempDir()
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
	}
	for name, script := range programs {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script), 0o755))
	}
	t.Setenv("PATH", bin)
	return root
}

// smi is an nvidia-smi that knows two GPUs.
const smi = `case $1 in
--list-gpus) printf '%s' "` + list + `" ;;
*) exit 6 ;;
esac
`

const driverVersion = `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-AF03-09-1)
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04.2)
`

func TestParseDriver(t *testing.T) {
	for said, want := range map[string]string{
		driverVersion: "580.95.05",
		"NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\n": "470.256.02",
		"GCC version:  gcc version 12.3.0 (Ubuntu)\n":                                                "",
		"NVRM version: …": "",
		"":                "",
	} {
		assert.Equal(t, want, parseDriver(said), said)
	}
}

func FuzzParseDriver(f *testing.F) {
	f.Add(driverVersion)
	f.Add("NVRM version: 1.2 ")
	f.Fuzz(func(t *testing.T, said string) {
		if v := parseDriver(said); v != "" {
			assert.Contains(t, said, v)
			assert.Regexp(t, `^[0-9.]+$`, v)
		}
	})
}

func TestProbeReadsTheDriver(t *testing.T) {
	root := host(t, map[string]string{"proc/driver/nvidia/version": driverVersion},
		map[string]string{"nvidia-smi": smi, hook: "exit 0"})
	m, err := Probe(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, two, m)
	assert.NoError(t, m.Broken())
}

const (
	display = "0x030000\n"
	nvidia  = "0x10de\n"
)

func TestEachBrokenLinkHasItsText(t *testing.T) {
	card := map[string]string{"sys/bus/pci/devices/0000:01:00.0/vendor": nvidia, "sys/bus/pci/devices/0000:01:00.0/class": display}
	with := func(files map[string]string, more ...string) map[string]string {
		all := map[string]string{}
		for k, v := range files {
			all[k] = v
		}
		for _, name := range more {
			all[name] = ""
		}
		return all
	}
	says := func(text string) map[string]string {
		return map[string]string{"nvidia-smi": `echo "` + text + `"; exit 9`}
	}
	tests := []struct {
		name     string
		files    map[string]string
		programs map[string]string
		want     *trouble.Row
	}{
		{"no GPU", nil, nil, trouble.NoGPU},
		{"sound device of NVIDIA only",
			map[string]string{"sys/bus/pci/devices/0000:01:00.1/vendor": nvidia, "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n"}, nil,
			trouble.NoGPU},
		{"no driver", card, nil, trouble.NoDriver},
		{"nouveau", with(card, "sys/module/nouveau/version"), nil, trouble.Nouveau},
		{"nouveau beside an installed driver", with(card, "sys/module/nouveau/version"),
			says("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."), trouble.Nouveau},
		{"driver that isn't loaded", card, says("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
			trouble.ModuleNotLoaded},
		{"no nvidia-smi", with(card, "proc/driver/nvidia/version"), nil, trouble.NoSMI},
		{"mismatch", with(card, "proc/driver/nvidia/version"), says("Failed to initialize NVML: Driver/library version mismatch"),
			trouble.DriverMismatch},
		{"permission", with(card, "proc/driver/nvidia/version"), says("Failed to initialize NVML: Insufficient Permissions"), trouble.GPUPermission},
		{"no devices", with(card, "proc/driver/nvidia/version"), says("No devices were found"), trouble.NoDevices},
		{"lost", with(card, "proc/driver/nvidia/version"),
			says("Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.  Reboot the system to recover this GPU"), trouble.GPULost},
		{"unknown", with(card, "proc/driver/nvidia/version"), says("Something new"), trouble.SMIUnclear},
		{"Windows without a driver", map[string]string{"dev/dxg": ""}, nil, trouble.WSLNoDriver},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, err := Probe(t.Context(), host(t, test.files, test.programs))
			require.NoError(t, err)
			_, err = Resolve("0", m)
			assert.ErrorIs(t, err, ErrBroken)
			assert.Same(t, test.want, advice.Row(err))
			assert.ErrorContains(t, err, "-g=0: no GPU for a container: "+test.want.Wrong)
			if test.want == trouble.SMIUnclear {
				assert.ErrorContains(t, err, ". It said: Something new")
			}

			none, err := Resolve("", m)
			require.NoError(t, err, "without -g, a GPU is optional")
			assert.True(t, none.None())
		})
	}
}

func TestEachRefusalOfTheDaemonIsExplained(t *testing.T) {
	docker := daemon.Info{RootDir: "/var/lib/docker"}
	const noDriver = `could not select device driver "" with capabilities: [[gpu]]`
	tests := []struct {
		refusal string
		info    daemon.Info
		want    *trouble.Row
	}{
		{noDriver, docker, trouble.NoHook},
		{noDriver, daemon.Info{Security: []string{"name=rootless"}}, trouble.RootlessHook},
		{noDriver, daemon.Info{RootDir: "/var/snap/docker/common/var-lib-docker"}, trouble.SnapHook},
		{`could not select device driver "cdi" with capabilities: []`, docker, trouble.CDIOff},
		{"CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=3", docker, trouble.StaleCDI},
		{"unknown or invalid runtime name: nvidia", docker, trouble.NoRuntime},
		{"error running hook #0: error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: nvml error: " +
			"driver/library version mismatch", docker, trouble.DriverMismatch},
		{"nvidia-container-cli: initialization error: driver error: driver not loaded", docker, trouble.ModuleNotLoaded},
		{"nvidia-container-cli: initialization error: WSL environment detected but no adapters were found", docker, trouble.NoAdapter},
		{"nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: " +
			"no such file or directory", docker, trouble.NoLibrary},
		{"nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver", docker,
			trouble.DriverTooOldForImage},
		{"nvidia-container-cli: device error: 7: unknown device", docker, trouble.UnknownDevice},
		{"nvidia-container-cli: mount error: failed to add device rules: unable to generate new device filter program: " +
			"bpf_prog_query(BPF_CGROUP_DEVICE) failed: operation not permitted", docker, trouble.NoCgroups},
		{"nvidia-container-cli: something new", docker, trouble.ToolkitRefused},
	}
	for _, test := range tests {
		err := Explain(test.refusal, test.info)
		assert.EqualError(t, err, "no GPU for a container: "+test.want.Wrong, test.refusal)
		assert.Same(t, test.want, advice.Row(err), test.refusal)
	}
	assert.NoError(t, Explain("no space left on device", docker))
}

func TestResolve(t *testing.T) {
	tests := []struct{ selection, want, err string }{
		{"", "0", ""},
		{"0", "0", ""},
		{"all", "all", ""},
		{"none", "void", ""},
		{"void", "void", ""},
		{"1,0", "1,0", ""},
		{"1, 0", "1,0", ""},
		{"0:1", "0:1", ""},
		{"GPU-22222222-aaaa-bbbb-cccc-000000000000", "GPU-22222222-aaaa-bbbb-cccc-000000000000", ""},
		{"GPU-2222", "GPU-22222222-aaaa-bbbb-cccc-000000000000", ""},
		{"22222222", "GPU-22222222-aaaa-bbbb-cccc-000000000000", ""},
		{"MIG-4", "MIG-44444444-aaaa-bbbb-cccc-000000000000", ""},
		{"1,MIG-33333333-aaaa-bbbb-cccc-000000000000", "1,MIG-33333333-aaaa-bbbb-cccc-000000000000", ""},
		{"2", "", "-g=2: usage: there is no GPU 2. This machine has\n" + two.List()},
		{"0:7", "", "-g=0:7: usage: there is no MIG instance 0:7. This machine has\n" + two.List()},
		{"GPU-", "", "-g=GPU-: usage: \"GPU-\" is neither all, none, an index, nor the beginning of a UUID. This machine has\n" + two.List()},
		{"1,1", "", "-g=1,1: usage: 1 names a GPU that is in the list already"},
		{"1,GPU-2222", "", "-g=1,GPU-2222: usage: GPU-2222 names a GPU that is in the list already"},
		{"0,", "", "-g=0,: usage: \"\" is neither all, none, an index, nor the beginning of a UUID. This machine has\n" + two.List()},
	}
	for _, test := range tests {
		r, err := Resolve(test.selection, two)
		if test.err != "" {
			assert.EqualError(t, err, test.err)
			assert.ErrorIs(t, err, usage.Err)
			continue
		}
		if assert.NoError(t, err, test.selection) {
			assert.Equal(t, test.want, r.String())
		}
	}
	twins := Machine{GPUs: []GPU{{UUID: "GPU-1234a"}, {Index: 1, UUID: "GPU-1234b"}}}
	_, err := Resolve("GPU-1234", twins)
	assert.ErrorContains(t, err, "GPU-1234 is the beginning of GPU-1234a and GPU-1234b. Type more of it")
}

func TestResolveElsewhere(t *testing.T) {
	const one = "MIG-33333333-aaaa-bbbb-cccc-000000000000"
	for selection, want := range map[string]string{"": "void", "none": "void", "all": "all", "7, 0:1": "7,0:1", one: one} {
		r, err := ResolveElsewhere(selection)
		require.NoError(t, err, selection)
		assert.Equal(t, want, r.String())
	}
	for _, selection := range []string{"auto", "auto:2", "GPU-2222", "1,1", "0,", "x"} {
		_, err := ResolveElsewhere(selection)
		assert.ErrorIs(t, err, usage.Err, selection)
	}
}

// infoOf reads an answer of a daemon through the client.
func infoOf(t *testing.T, name string) daemon.Info {
	answer, err := os.ReadFile(filepath.Join("testdata/docker", name+".json"))
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if strings.HasSuffix(r.URL.Path, "/info") {
			w.Write(answer)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	d, err := daemon.Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	info, err := d.Info(t.Context())
	require.NoError(t, err)
	return info
}

func TestInjectionFollowsTheDaemon(t *testing.T) {
	all := "NVIDIA_DRIVER_CAPABILITIES=all"
	gpus := func(count int, ids ...string) []daemon.DeviceRequest {
		return []daemon.DeviceRequest{{Count: count, IDs: ids, Capabilities: []string{"gpu"}}}
	}
	cdi := func(ids ...string) Injection {
		return Injection{Method: CDI, Devices: []daemon.DeviceRequest{{Driver: "cdi", IDs: ids}},
			Env: []string{"NVIDIA_VISIBLE_DEVICES=void", all}}
	}
	runtime := func(ids string) Injection {
		return Injection{Method: Runtime, Runtime: "nvidia", Env: []string{"NVIDIA_VISIBLE_DEVICES=" + ids, all}}
	}
	tests := []struct {
		docker, selection string
		want              Injection
		err               string
	}{
		{"20.10", "0", Injection{Method: Hook, Devices: gpus(0, "0"), Env: []string{all}}, ""},
		{"20.10", "all", Injection{Method: Hook, Devices: gpus(-1), Env: []string{all}}, ""},
		{"20.10", "none", Injection{Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}}, ""},
		{"25-cdi-directories-only", "1,0", runtime("1,0"), ""},
		{"28-cdi", "1", cdi("nvidia.com/gpu=1"), ""},
		{"28-cdi", "GPU-2222", cdi("nvidia.com/gpu=1"), ""},
		{"28-cdi", "all", cdi("nvidia.com/gpu=all"), ""},
		{"28-cdi", "0:1", Injection{Method: Hook, Devices: gpus(0, "0:1"), Env: []string{all}}, ""},
		{"29-cdi-uuids", "1,0:0",
			cdi("nvidia.com/gpu=GPU-22222222-aaaa-bbbb-cccc-000000000000", "nvidia.com/gpu=MIG-33333333-aaaa-bbbb-cccc-000000000000"), ""},
		{"29-stale-cdi", "0,1", runtime("0,1"), ""},
		{"rootless", "0", Injection{Method: Hook, Devices: gpus(0, "0"), Env: []string{all}}, ""},
		{"podman", "0", Injection{},
			"no GPU for a container: " + trouble.PodmanNoCDI.Wrong},
	}
	for _, test := range tests {
		t.Run(test.docker+" "+test.selection, func(t *testing.T) {
			r, err := Resolve(test.selection, two)
			require.NoError(t, err)
			got, err := Inject(r, two, infoOf(t, test.docker), true)
			if test.err != "" {
				assert.EqualError(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestInjectionWithoutToolkit(t *testing.T) {
	bare := two
	bare.Toolkit = false
	info := infoOf(t, "20.10")
	_, err := Inject(Request{All: true}, bare, info, true)
	assert.EqualError(t, err, "no GPU for a container: the NVIDIA Container Toolkit isn't installed, so Docker can't pass GPUs on")
	assert.Same(t, trouble.NoToolkit, advice.Row(err))
	got, err := Inject(Request{All: true}, bare, info, false)
	require.NoError(t, err, "what a machine elsewhere has installed can't be seen from here")
	assert.Equal(t, Hook, got.Method)
}

func FuzzParseList(f *testing.F) {
	f.Add(list)
	f.Add("  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU x")
	f.Add("No devices were found")
	f.Fuzz(func(t *testing.T, out string) {
		for _, g := range parseList(out) {
			if !strings.Contains(out, g.UUID) || !strings.HasPrefix(g.UUID, "GPU-") {
				t.Fatalf("%+v isn't in %q", g, out)
			}
		}
	})
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"", "0", "all", "none", "1,0", "0:1", "GPU-2222", "MIG-", "0,,1", "１", "auto", "auto:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, selection string) {
		r, err := Resolve(selection, two)
		if err != nil {
			return
		}
		again, err := Resolve(r.String(), two)
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q resolves to %q, and that to %q (%v)", selection, r, again, err)
		}
	})
}
