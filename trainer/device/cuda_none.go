//go:build !(cuda && cgo && linux && amd64)

package device

import (
	"fmt"

	"github.com/berthdev/berth/trainer/nn"
)

// probeCUDA names the first missing link between this program and a GPU: here it
// is the program itself.
func probeCUDA() error {
	return fmt.Errorf("%w: this trainer is built without CUDA", ErrUnavailable)
}

func listGPUs() (string, []GPU, error) { return "", nil, probeCUDA() }

func hungCUDA() <-chan error { return nil }

func openCUDA(Spec, nn.Config) (Opened, error) { return Opened{}, probeCUDA() }
