//go:build !(cuda && cgo && linux && amd64)

package device

import (
	"fmt"

	"github.com/berthdev/berth/trainer/nn"
)

// errNone names the link that is missing between this program and a GPU: the program itself.
var errNone = fmt.Errorf("%w: this trainer is built without CUDA", ErrUnavailable)

func listGPUs() (string, []GPU, error) { return "", nil, errNone }

func hungCUDA() <-chan error { return nil }

func openCUDA(Spec, nn.Config) (Opened, error) { return Opened{}, errNone }
