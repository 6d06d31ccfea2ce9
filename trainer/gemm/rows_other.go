//go:build !amd64

package gemm

// There are no vector kernels here: simd is never true.

func moments(*float32, int, *Vec, *Vec, *Vec)               {}
func affineReLU(_, _ *float32, _ int, _, _ *Vec)            {}
func affine2(_, _, _ *float32, _ int, _, _, _ *Vec)         {}
func affine2ReLU(_, _, _ *float32, _ int, _, _, _ *Vec)     {}
func reluGrad(_, _, _, _ *float32, _ int, _ *ReLUGradArgs)  {}
func scaleGrad(_, _, _, _ *float32, _ int, _, _, _, _ *Vec) {}
func haar(_, _, _, _, _, _ *float32, _ int)                 {}
func haarInverse(_, _, _, _, _, _ *float32, _ int)          {}
func adam(_, _, _, _ *float32, _ int, _ *AdamArgs)          {}
func add(_, _ *float32, _ int)                              {}
