//go:build cuda && cgo && linux && amd64

package kernels_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// TestOnGPU compares each kernel with float64 through the driver: on a GPU or, where there is
// none, in a process of its own that finds a stand-in for the driver, which has the kernels as
// compiled for the host. trainer/bench/check.sh runs it where there is a GPU.
func TestOnGPU(t *testing.T) {
	const role = "BERTH_TEST_ON_GPU"
	gpu, err := driver.Open(0)
	if errors.Is(err, driver.ErrUnavailable) && os.Getenv(role) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestOnGPU$", "-test.v")
		c.Env = append(os.Environ(), role+"=1", "LD_LIBRARY_PATH="+cudatest.Runs(t))
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestOnGPU/adam", "%s", out)
		return
	}
	require.NoError(t, err)
	defer gpu.Close()
	t.Log(gpu)
	kernels.CheckOn(t, gpu)
}
