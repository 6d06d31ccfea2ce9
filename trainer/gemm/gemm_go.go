package gemm

import (
	"math"
	"unsafe"
)

// fma32 returns a*b+c, rounded once to float32: what a fused multiply-add
// instruction returns, on any processor.
//
// The product of two float32 is exact in float64. The sum is rounded to 53
// bits there, and again to 24 or fewer by the conversion. The second rounding
// goes wrong only if the first one landed on a point halfway between two
// float32 values; such points have their low 28 bits zero. Then the sum's
// error (Knuth's TwoSum, exact) says whether to step off that point, which is
// rounding to odd: Boldo and Melquiond, "Emulation of FMA and correctly
// rounded sums", 2008.
func fma32(a, b, c float32) float32 {
	p, z := float64(a)*float64(b), float64(c)
	s := p + z
	u := math.Float64bits(s)
	if u&(1<<28-1) != 0 {
		return float32(s)
	}
	return fmaHalfway(p, z, s, u)
}

func fmaHalfway(p, z, s float64, u uint64) float32 {
	// The conversions forbid the compiler to fuse these operations.
	b := float64(s - p)
	err := float64(p-float64(s-b)) + float64(z-b)
	if err == 0 || math.IsNaN(err) || math.IsInf(s, 0) {
		return float32(s)
	}
	// s is even and inexact: move it to the odd neighbour on the error's side.
	if (err > 0) == (s > 0) {
		u++
	} else {
		u--
	}
	return float32(math.Float64frombits(u))
}

// floats returns the n float32 at p plus off bytes.
func floats(p unsafe.Pointer, off, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(p, off)), n)
}

// mulRowsGo is the portable kernel of Mul: n rows of one output plane.
func mulRowsGo(a *mulArgs, n int) {
	taps, period := int(a.taps), int(a.offTap)/4
	off := unsafe.Slice((*int32)(a.off), taps*period)
	columns := int(a.columns) / 4
	for r := range n {
		dst := (*[Lanes]float32)(unsafe.Add(a.dst, r*int(a.dstRow)))
		var sum [Lanes]float32
		if a.add != 0 {
			sum = *dst
		}
		w := 0
		for p := range int(a.planes) {
			for t := range taps {
				src := floats(a.src, p*int(a.srcPlane)+int(off[t*period+r]), columns)
				for k, x := range src {
					row := (*[Lanes]float32)(unsafe.Add(a.w, (w+k*Lanes)*4))
					for j := range sum {
						sum[j] = fma32(x, row[j], sum[j])
					}
				}
				w += TileSize
			}
		}
		*dst = sum
	}
}

// outerTileGo is the portable kernel of Outer: one tap, n rows.
func outerTileGo(dw, src, grad []float32, off []int32, columns, n int) {
	for r := range n {
		x := src[int(off[r])/4:][:columns]
		g := (*[Lanes]float32)(grad[r*Lanes:])
		for k, v := range x {
			row := (*[Lanes]float32)(dw[k*Lanes:])
			for j := range row {
				row[j] = fma32(v, g[j], row[j])
			}
		}
	}
}
