package cuda

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// TestDriver compiles what has the tag cuda, and runs its tests: they have a stand-in for the
// driver. One program serves machines with and without a GPU: it starts here, too.
func TestDriver(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for a minute")
	}
	testenv.NeedsCommand(t, testenv.Cgo, "gcc")
	abi, err := filepath.Abs("driver/abi")
	require.NoError(t, err)
	run := func(args ...string) string {
		c := exec.Command("go", args...)
		c.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -I"+abi, "CGO_LDFLAGS=-L"+abi)
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	run("vet", "-tags=cuda", "./driver", "../device")
	run("test", "-tags=cuda", "./driver", "../device")
	program := filepath.Join(t.TempDir(), "trainer")
	run("build", "-tags=cuda", "-o", program, "..")
	info := func(env ...string) string {
		c := exec.Command(program, "info")
		c.Env = append(os.Environ(), env...)
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	assert.Regexp(t, `cuda +(available|device unavailable: no CUDA: )`, info())
	fake := t.TempDir()
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-I"+abi, "-o", filepath.Join(fake, "libcuda.so.1"), "driver/testdata/libcuda.c").CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Regexp(t, `cuda +available`, info("LD_LIBRARY_PATH="+fake))
}
