package cuda_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/device/devicetest"
	"github.com/berthdev/berth/trainer/nn"
)

// backend is a network on a device that holds a data set, as package device has it where
// there is a driver.
type backend struct{ *cuda.Network }

func (b backend) Load(set *data.Set, batch int, seed uint64) (device.Resident, error) {
	return b.Network.Load(set, batch, seed)
}

// TestPTXConforms runs the PTX that ships. With tf32, one value in some thousand falls on
// the other side of a ReLU, in each of eight layers: that moves a gradient by some 10 %. All
// cases are with package device's TestCUDAConforms, where the kernels are fast.
func TestPTXConforms(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	cuda.Whole(t)
	for precision, c := range map[kernels.Precision]struct {
		devicetest.Subject
		cases []string // those that take some seconds
	}{
		kernels.FP32: {devicetest.Subject{Step: 1e-4, Training: 2e-3, Scale: 1, Many: 2}, []string{devicetest.Begins, devicetest.Steps, devicetest.Epochs}},
		kernels.TF32: {devicetest.Subject{Step: 0.2, Training: 0.2, Scale: 1, Many: 2}, []string{devicetest.Begins}},
	} {
		t.Run(string(precision), func(t *testing.T) {
			t.Parallel()
			c.Open = func(t testing.TB, cfg nn.Config) device.Backend {
				n, err := cuda.New([]cuda.Device{cuda.NewInterpreter(t)}, cfg, precision)
				require.NoError(t, err)
				return backend{n}
			}
			if testenv.Long() {
				c.cases = nil
			}
			devicetest.Run(t, c.Subject, c.cases...)
		})
	}
}
