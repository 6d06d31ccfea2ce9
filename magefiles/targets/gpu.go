package targets

import (
	"context"

	"github.com/magefile/mage/mg"
)

// GPU is the GPUs of this machine, and who uses them.
type GPU mg.Namespace

// Status says of each GPU who has leased it, for what and since when, or that
// somebody uses it without a lease; and who waits.
func (GPU) Status(
	ctx context.Context,
	json *bool, // print it as JSON
) error {
	return commands().GPUStatus(ctx, GPUStatusFlags{JSON: deref(json)})
}

// GPUStatusFlags are those of GPU.Status.
type GPUStatusFlags struct{ JSON bool }
