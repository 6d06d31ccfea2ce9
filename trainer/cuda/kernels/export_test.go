package kernels

import "testing"

// CheckOn runs all checks on a GPU.
func CheckOn(t *testing.T, gpu device) {
	onGPU = gpu
	defer func() { onGPU = nil }()
	for _, c := range checks {
		t.Run(c.kernel, func(t *testing.T) { c.check(t) })
	}
}
