package dockertest

import (
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
// fail with its text, and names that nothing calls.
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
