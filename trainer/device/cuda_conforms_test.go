//go:build cuda && cgo && linux && amd64

package device_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/device/devicetest"
	"github.com/berthdev/berth/trainer/nn"
)

// TestCUDAConforms runs in a process of its own, which finds a stand-in for the driver that
// runs the kernels.
func TestCUDAConforms(t *testing.T) {
	const role = "BERTH_TEST_CONFORMS"
	if os.Getenv(role) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestCUDAConforms$", "-test.parallel=1") // the stand-in runs one kernel at a time
		c.Env = append(os.Environ(), role+"=1", "LD_LIBRARY_PATH="+cudatest.Runs(t))
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	for precision, s := range map[device.Precision]devicetest.Subject{
		device.FP32: {Step: 1e-4, Training: 2e-3, Scale: 2, Many: 300},
		device.TF32: {Step: 0.2, Training: 0.2, Scale: 2, Many: 300},
	} {
		s.Open = func(t testing.TB, cfg nn.Config) device.Backend {
			spec, err := device.Parse("cuda:1", string(precision))
			require.NoError(t, err)
			opened, err := device.Open(spec, cfg)
			require.NoError(t, err)
			t.Cleanup(opened.Close)
			return opened.Backend
		}
		t.Run(string(precision), func(t *testing.T) { devicetest.Run(t, s) })
	}
}
