package peak

import (
	"math"
	"time"
)

//go:noescape
func fma256(n int)

//go:noescape
func fma512(n int)

// GFLOPS runs independent fused multiply-adds on registers, of 16 lanes if
// wide and 8 otherwise, and returns the best rate of several runs in 10^9
// operations a second (an addition and a multiplication each count). The
// processor must have AVX-512F or FMA3, respectively.
func GFLOPS(wide bool) float64 {
	const n = 1 << 20
	run, flops := fma256, 12*8*2.0
	if wide {
		run, flops = fma512, 24*16*2.0
	}
	best := math.Inf(1)
	for range 20 {
		start := time.Now()
		run(n)
		best = min(best, time.Since(start).Seconds())
	}
	return n * flops / best / 1e9
}
