package kernels_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// perCycle is how many FLOP a multiprocessor of a GPU does in a cycle at most: its tensor cores
// in a kernel whose name ends in _tf32, else its float32 units. 0: not known. By NVIDIA's table
// of arithmetic instructions (CUDA C++ Programming Guide) and the architectures' white papers,
// dense products for tf32: GeForces do half of what other GPUs of their architecture do.
func perCycle(gpu, capability, kernel string) float64 {
	units := map[string][2]float64{"8.0": {128, 1024}, "8.6": {256, 512}, "8.9": {256, 512}, "9.0": {256, 2048}}[capability]
	if !strings.HasSuffix(kernel, "_tf32") {
		return units[0]
	}
	if strings.Contains(gpu, "GeForce") {
		return units[1] / 2
	}
	return units[1]
}

// TestPerCycle gives the peaks of data sheets and white papers, in TFLOP/s.
func TestPerCycle(t *testing.T) {
	for _, c := range []struct {
		gpu, capability string
		multiprocessors float64
		gigahertz       [2]float64 // when it does fp32, tf32
		fp32, tf32      float64
	}{
		{"NVIDIA A100-SXM4-80GB", "8.0", 108, [2]float64{1.41, 1.41}, 19.5, 156},
		{"NVIDIA A10", "8.6", 72, [2]float64{1.695, 1.695}, 31.2, 62.5},
		{"NVIDIA GeForce RTX 3090", "8.6", 82, [2]float64{1.695, 1.695}, 35.6, 35.6},
		{"NVIDIA L40S", "8.9", 142, [2]float64{2.52, 2.52}, 91.6, 183},
		{"NVIDIA GeForce RTX 4090", "8.9", 128, [2]float64{2.52, 2.52}, 82.6, 82.6},
		{"NVIDIA H200", "9.0", 132, [2]float64{1.98, 1.83}, 66.9, 495},
	} {
		cycles := func(gigahertz float64) float64 { return c.multiprocessors * gigahertz / 1e3 }
		assert.InEpsilon(t, c.fp32, cycles(c.gigahertz[0])*perCycle(c.gpu, c.capability, "conv_forward_fp32"), 0.01, c.gpu)
		assert.InEpsilon(t, c.fp32, cycles(c.gigahertz[0])*perCycle(c.gpu, c.capability, "adam"), 0.01, c.gpu)
		assert.InEpsilon(t, c.tf32, cycles(c.gigahertz[1])*perCycle(c.gpu, c.capability, "conv_forward_tf32"), 0.01, c.gpu)
	}
	assert.Zero(t, perCycle("NVIDIA GeForce RTX 5090", "12.0", "adam"))
}
