//go:build cuda && cgo && linux && amd64

package device

import (
	"errors"
	"fmt"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
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

func openCUDA(spec Spec, cfg nn.Config) (Opened, error) {
	gpu, err := driver.Open(spec.Index)
	if err != nil {
		return Opened{}, unavailable(err)
	}
	network, err := cuda.New(gpu, cfg, kernels.Precision(spec.Precision))
	if err != nil {
		return Opened{}, err
	}
	return Opened{Backend: network, Name: fmt.Sprintf("cuda:%d (%s)", spec.Index, gpu.Name), Kernel: string(spec.Precision)}, nil
}
