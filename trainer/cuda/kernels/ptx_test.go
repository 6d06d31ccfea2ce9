package kernels

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

var update = flag.Bool("update", false, "write the PTX, by the clang that is installed")

// compile makes the PTX of a source.
func compile(clang, source string) ([]byte, error) {
	var out, errs bytes.Buffer
	c := exec.Command(clang, "-x", "cuda", "--cuda-device-only", "-S", "-O3", "-std=c++17", "-nocudainc", "-nocudalib",
		"--cuda-gpu-arch=sm_80", "--cuda-feature=+ptx78", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-o", "-", source)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", source, err, &errs)
	}
	return out.Bytes(), nil
}

// TestPTXIsThatOfTheSources compiles them, where the right clang is.
func TestPTXIsThatOfTheSources(t *testing.T) {
	clang := testenv.NeedsCommand(t, testenv.Clang, "clang++-19")
	version, err := exec.Command(clang, "--version").Output()
	require.NoError(t, err)
	if !strings.Contains(string(version), "clang version "+Clang+" ") {
		testenv.Skip(t, testenv.Clang, "the PTX is made by clang %s, this is %s", Clang, version)
	}
	sources, err := filepath.Glob("*.cu")
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	for _, source := range sources {
		file := strings.TrimSuffix(source, ".cu") + ".ptx"
		text, err := compile(clang, source)
		require.NoError(t, err)
		if *update {
			require.NoError(t, os.WriteFile(file, text, 0o644))
		}
		committed, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(committed), string(text), "%s isn't that of %s. Type: go test ./trainer/cuda/kernels -run=PTX -update", file, source)
	}
}

// TestPtxasTakesThePTX has NVIDIA's assembler compile it for several architectures, where
// it is installed. What it takes it keeps in registers.
func TestPtxasTakesThePTX(t *testing.T) {
	ptxas := testenv.NeedsCommand(t, testenv.Ptxas, "ptxas")
	for name := range PTX() {
		for _, arch := range []string{"sm_80", "sm_86", "sm_89", "sm_90"} {
			out, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", filepath.Join(t.TempDir(), "cubin"), name+".ptx").CombinedOutput()
			require.NoError(t, err, "%s for %s: %s", name, arch, out)
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "spill") {
					assert.Contains(t, line, "0 bytes spill stores, 0 bytes spill loads", "%s for %s", name, arch)
				}
			}
		}
	}
}

// TestEverySourceHasItsPTX, and the other way round; and each has its cost in a comment.
func TestEverySourceHasItsPTX(t *testing.T) {
	all := PTX()
	sources, err := filepath.Glob("*.cu")
	require.NoError(t, err)
	assert.Len(t, all, len(sources))
	for _, source := range sources {
		assert.Contains(t, all, strings.TrimSuffix(source, ".cu"))
		text, err := os.ReadFile(source)
		require.NoError(t, err)
		assert.Contains(t, string(text), "// Cost for each ", source)
		assert.Contains(t, string(text), "Bound by ", source)
	}
	tried := map[string]bool{}
	for _, c := range checks {
		tried[c.kernel] = true
	}
	for _, m := range parsed() {
		for _, k := range m.Kernels() {
			assert.True(t, tried[k], "no check runs %s", k)
		}
	}
}
