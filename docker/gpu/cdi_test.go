package gpu

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const specification = `---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  deviceNodes: [{path: /dev/nvidiactl}]
  mounts: [{hostPath: /usr/lib/libcuda.so.550.54.14, containerPath: /usr/lib/libcuda.so.550.54.14}]
  hooks: [{hookName: createContainer, path: /usr/bin/nvidia-cdi-hook}]
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}, {path: /dev/dri/card1, hostPath: /dev/dri/card0}]
- name: all
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0}]
`

func TestReadSpecs(t *testing.T) {
	root := host(t, map[string]string{
		"etc/cdi/nvidia.yaml":  specification,
		"etc/cdi/vendor.yaml":  "kind: vendor.com/thing\ndevices: [{name: a}]\n",
		"etc/cdi/broken.json":  `{"kind"`,
		"etc/cdi/README":       "not a specification",
		"var/run/cdi/new.json": `{"kind": "nvidia.com/gpu", "devices": [{"name": "1"}]}`,
		"dev/nvidiactl":        "", "dev/nvidia0": "", "usr/bin/nvidia-cdi-hook": "",
	}, nil)
	got := ReadSpecs(root, CDIDirs)
	require.Len(t, got, 3)
	assert.Equal(t, "/etc/cdi/broken.json", got[0].Path)
	assert.NotEmpty(t, got[0].Err)
	assert.Equal(t, Spec{Path: "/etc/cdi/nvidia.yaml", Devices: []string{"0", "all"},
		Missing: []string{"/usr/lib/libcuda.so.550.54.14", "/dev/dri/card0"}}, got[1])
	assert.Equal(t, Spec{Path: "/var/run/cdi/new.json", Devices: []string{"1"}}, got[2])
	assert.Equal(t, []string{"0:0", "0:1"}, two.Unnamed(got), "its instances; 1 is in the other file")
	assert.Empty(t, ReadSpecs(filepath.Join(root, "nowhere"), CDIDirs))
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(specification))
	f.Add([]byte("kind: nvidia.com/gpu\ndevices: 3"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		devices, paths, err := parseSpec(text)
		if err != nil && (devices != nil || paths != nil) {
			t.Fatal("an error and a result")
		}
		for _, p := range paths {
			assert.True(t, filepath.IsAbs(p), p)
		}
	})
}

func TestDetails(t *testing.T) {
	root := host(t, nil, map[string]string{"nvidia-smi": `case $1 in
--query-gpu=uuid,mig.mode.current,compute_cap) printf 'GPU-a, Enabled, 8.0\nGPU-b, [N/A], 8.9\n' ;;
*) exit 6 ;;
esac
`})
	got, err := Details(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, []Detail{{"GPU-a", "8.0", true}, {"GPU-b", "8.9", false}}, got)

	root = host(t, nil, map[string]string{"nvidia-smi": `case $1 in
--query-gpu=uuid,mig.mode.current) echo 'GPU-a, Disabled' ;;
*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
esac
`})
	got, err = Details(t.Context(), root)
	require.NoError(t, err)
	assert.Equal(t, []Detail{{"GPU-a", "", false}}, got, "an older driver")

	root = host(t, nil, nil)
	got, err = Details(t.Context(), root)
	require.NoError(t, err)
	assert.Empty(t, got)
}

func FuzzParseDetails(f *testing.F) {
	f.Add("GPU-a, Enabled, 8.0\n")
	f.Add("GPU-a")
	f.Add(",,\nGPU-, , 1.x")
	f.Fuzz(func(t *testing.T, out string) {
		for _, d := range parseDetails(out) {
			assert.Regexp(t, `^GPU-`, d.UUID)
			assert.Regexp(t, `^(\d{1,2}\.\d{1,2})?$`, d.Capability)
		}
	})
}

func TestToolkitVersionAndNodes(t *testing.T) {
	root := host(t, map[string]string{"dev/nvidia0": "", "dev/nvidiactl": "", "dev/null": ""},
		map[string]string{"nvidia-ctk": "echo 'NVIDIA Container Toolkit CLI version 1.17.8'; echo 'commit: " +
			"f202b80a9b9d0db00d9b1d73c0128c8962c55f4d'"})
	assert.Equal(t, "1.17.8", ToolkitVersion(t.Context(), root))
	assert.Equal(t, []string{"nvidia0", "nvidiactl"}, Nodes(root))
	require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("PATH"), "nvidia-ctk"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	assert.Empty(t, ToolkitVersion(t.Context(), root))
	assert.Empty(t, ToolkitVersion(t.Context(), host(t, nil, nil)))
}
