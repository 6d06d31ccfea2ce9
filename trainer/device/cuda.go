//go:build cuda && cgo && linux && amd64

package device

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// probeCUDA names the first missing link between this program and a GPU.
func probeCUDA() error { return unavailable(driver.Probe()) }

func unavailable(err error) error {
	if errors.Is(err, driver.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func listGPUs() (name string, all []GPU, err error) {
	name, infos, err := driver.Devices()
	for _, i := range infos {
		all = append(all, GPU{
			Name: i.Name, UUID: i.UUID, Memory: i.Memory, Err: i.Err,
			Capability: fmt.Sprintf("%d.%d", i.Major, i.Minor),
		})
	}
	return name, all, unavailable(err)
}

// timeoutVariable is how long a call of a GPU's driver may last.
const timeoutVariable = "BERTH_GPU_TIMEOUT"

// patience is how long to wait for a GPU.
func patience() (time.Duration, error) {
	text := cmp.Or(os.Getenv(timeoutVariable), "2m")
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s=%s is no time to wait for a GPU. Give one such as 90s or 10m", timeoutVariable, text)
	}
	return d, nil
}

func openCUDA(spec Spec, cfg nn.Config) (Opened, error) {
	limit, err := patience()
	if err != nil {
		return Opened{}, err
	}
	opened, err := driver.Open(spec.Index, limit)
	if err != nil {
		return Opened{}, unavailable(err)
	}
	network, err := cuda.New([]cuda.Device{opened}, cfg, kernels.Precision(spec.Precision))
	if err != nil {
		return Opened{}, err
	}
	return Opened{
		Backend: gpu{network}, Name: fmt.Sprintf("cuda:%d (%s)", spec.Index, opened.Name), Kernel: string(spec.Precision), Hung: opened.Hung(),
	}, nil
}

// gpu is a network on a GPU, as a [Loader].
type gpu struct{ *cuda.Network }

func (g gpu) Load(set *data.Set, batch int, seed uint64) (Resident, error) {
	return g.Network.Load(set, batch, seed)
}
