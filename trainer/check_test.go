package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
)

// TestCheck runs bench/check.sh with stand-ins for the driver and for compute-sanitizer, of which one
// tool finds something.
func TestCheck(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the kernels for the host")
	}
	tests, bin := filepath.Join(t.TempDir(), "kernels.test"), t.TempDir()
	cudatest.Go(t, "trainer", "test", "-c", "-tags=cuda", "-o", tests, "./cuda/kernels")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "compute-sanitizer"), []byte(`#!/bin/sh
[ "$2" = --error-exitcode=1 ] || exit 2
if [ "$1" = --tool=racecheck ]; then
	echo "========= ERROR SUMMARY: 1 hazard" >&2
	exit 1
fi
shift 2
exec "$@"
`), 0o755))
	driver := cudatest.Runs(t)
	check := func(wrong string) (said string, code int) {
		c := exec.CommandContext(t.Context(), "bench/check.sh", tests, t.TempDir())
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LD_LIBRARY_PATH="+driver, "FAKE_CUDA="+wrong, "CHECK_BATCH=1", "CHECK_TIMES=1x")
		out, err := c.CombinedOutput()
		if err != nil {
			require.IsType(t, &exec.ExitError{}, err, "%s", out)
		}
		return string(out), c.ProcessState.ExitCode()
	}
	said, code := check("")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: 24 checks passed
memcheck: 24 checks passed
racecheck: FAILED: ========= ERROR SUMMARY: 1 hazard. See .*/racecheck.log
initcheck: 24 checks passed
synccheck: 24 checks passed
times: 1[0-9][0-9] launches, see .*/times.log
$`, said)
	said, code = check("old")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: FAILED: .*no CUDA: the driver is for CUDA 11.4`, said)
	said, code = check("coarse") // multiplies with fewer bits than tf32 has
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: FAILED: .*of which rounding explains`, said)
}
