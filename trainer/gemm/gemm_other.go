//go:build !amd64

package gemm

// Kernels lists the kernels that this processor can run, best first.
func Kernels() []string { return []string{Go} }

func mulRows(a *mulArgs, n, _ int) { mulRowsGo(a, n) }

func outerTile(dw, src, grad []float32, off []int32, columns, n int) {
	outerTileGo(dw, src, grad, off, columns, n)
}
