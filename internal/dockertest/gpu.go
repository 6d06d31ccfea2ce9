package dockertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest/smi"
)

// HookName is the name of NVIDIA's hook, by which dockerd calls it.
const HookName = "nvidia-container-runtime-hook"

// Toolkit makes what Berth takes for NVIDIA's Container Toolkit, and returns the folder
// of its programs: the hook that package hook plays, which a file "broken" there makes
// fail with its text, and which puts a libcuda.so.1 there into containers with GPUs; and
// names that nothing calls.
func Toolkit(t testing.TB) (bin string) {
	t.Helper()
	dir := t.TempDir()
	bin = filepath.Join(dir, "bin")
	c := exec.Command("go", "build", "-o", filepath.Join(bin, HookName), "./hook")
	c.Dir, c.Env = here(), append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "compiling the hook: %s", out)
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nvidia-container-cli"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lib"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lib", "libnvidia-container.so.1"), nil, 0o644))
	return bin
}

// SMI makes an nvidia-smi that lists two GPUs, and returns a PATH on which it is, and
// NVIDIA's hook isn't.
func SMI(t testing.TB) (path string) {
	t.Helper()
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "nvidia-smi"), []byte(smi.Script(smi.A, smi.B)), 0o755))
	return bin + ":" + PathWithout(HookName)
}

// CDI makes a specification of the two GPUs of SMI, as nvidia-ctk does, and returns its
// folder: containers get a device for each, and an nvidia-smi.
func CDI(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	type object = map[string]any
	var devices []object
	for name, uuids := range map[string][]string{"all": {smi.A, smi.B}, "0": {smi.A}, "1": {smi.B}, smi.A: {smi.A}, smi.B: {smi.B}} {
		program := filepath.Join(dir, "nvidia-smi-"+name)
		require.NoError(t, os.WriteFile(program, []byte(smi.Script(uuids...)), 0o755))
		var nodes []object
		for i := range uuids {
			nodes = append(nodes, object{"path": fmt.Sprintf("/dev/nvidia%d", i), "hostPath": "/dev/null"})
		}
		mount := object{"hostPath": program, "containerPath": "/usr/bin/nvidia-smi", "options": []string{"ro", "bind"}}
		devices = append(devices, object{"name": name, "containerEdits": object{"deviceNodes": nodes, "mounts": []object{mount}}})
	}
	spec, err := json.Marshal(object{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nvidia.json"), spec, 0o644))
	return dir
}

// PathWithout is the PATH without the folders that have a program.
func PathWithout(program string) string {
	var kept []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			kept = append(kept, dir)
		}
	}
	return strings.Join(kept, ":")
}
