// Package gemm multiplies float32 matrices on the CPU: the products that the
// forward pass, the input gradient and the weight gradient of a convolution
// or a linear layer need, and the elementwise passes between them.
//
// # Layout
//
// A matrix is stored in planes: a plane holds [Lanes] = 16 columns (channels)
// of every row (pixel), one row after the other, 64 bytes a row. A matrix of
// C columns has ceil(C/16) planes; unused columns of the last plane are zero.
// A row is then one cache line, a channel is always in the same lane of a
// vector register, and no operation sums across lanes.
//
// # No im2col
//
// A convolution reads, for every output pixel and filter tap, one shifted
// input pixel. A [Gather] lists where, and the micro-kernels read the input
// through that list, so the patch matrix is never built (Dukhan, "The
// Indirect Convolution Algorithm", 2019). Circular padding, a linear layer
// over flattened pixels and a plain product are only different lists.
//
// # Same bits everywhere
//
// Each output element is one chain of fused multiply-adds (one rounding
// each, IEEE 754-2008) in the fixed order plane, tap, column; for [Outer] in
// the order of rows. Blocking and tile shapes never change that order. All
// other operations are single correctly rounded ones in a documented order.
// So the kernels "avx512", "avx2" and "go" give the same bits, as do all
// widths of tiles. The one exception is the payload of a NaN.
//
// The package holds Go assembly and can thus not use cgo. It knows nothing
// of networks, and starts no goroutines: callers split the rows.
package gemm

import (
	"fmt"
	"unsafe"
)

// Lanes is the number of columns in a plane.
const Lanes = 16

// The names of the kernels, best first.
const (
	AVX512 = "avx512" // 8x32 tiles for [Mul], 16x16 for [Outer]
	AVX2   = "avx2"   // 6x16 tiles, with FMA3
	Go     = "go"     // portable, with the fused multiply-add emulated exactly
)

// kernel is the kernel in use.
var kernel = best()

func best() string { return Kernels()[0] }

// Kernel names the kernel in use: [AVX512], [AVX2] or [Go].
func Kernel() string { return kernel }

// Select makes all products use the named kernel. It is meant for tests and
// self-checks: it must not run beside products. It returns an error, and
// changes nothing, if this processor lacks the kernel.
func Select(name string) error {
	for _, k := range Kernels() {
		if k == name {
			kernel = name
			return nil
		}
	}
	return fmt.Errorf("select kernel %q: this processor has %q; choose one of them", name, Kernels())
}

// Planes is a matrix of float32 in planes of [Lanes] columns.
type Planes struct {
	Data   []float32
	Stride int // from one plane to the next, in float32
}

// NewPlanes returns zeroed planes of the given number of rows, aligned to
// cache lines.
func NewPlanes(planes, rows int) Planes {
	return Planes{Data: Aligned(planes * rows * Lanes), Stride: rows * Lanes}
}

// Plane returns the n rows of plane p from row on.
func (m Planes) Plane(p, row, n int) []float32 {
	return m.Data[p*m.Stride+row*Lanes:][: n*Lanes : n*Lanes]
}

// From returns the matrix without the rows before row.
func (m Planes) From(row int) Planes {
	return Planes{Data: m.Data[row*Lanes:], Stride: m.Stride}
}

// Aligned returns n zeros at an address divisible by 64.
func Aligned(n int) []float32 {
	const line = 64 / 4
	s := make([]float32, n+line)
	skip := 0
	if r := int(uintptr(unsafe.Pointer(&s[0])) % 64); r != 0 {
		skip = (64 - r) / 4
	}
	return s[skip : skip+n : skip+n]
}

// A Gather says which input row each tap of each output row reads. It
// repeats: after [Gather.Period] output rows, and as many input rows as those
// cover, the list starts again.
type Gather struct {
	taps, period, input int
	off                 []int32 // byte offset of the input row, [taps][period]
}

// NewGather builds a list of taps for period output rows, which cover input
// rows: from(tap, row) is the input row, 0 <= from < input.
func NewGather(taps, period, input int, from func(tap, row int) int) *Gather {
	g := &Gather{taps: taps, period: period, input: input, off: make([]int32, taps*period)}
	for t := range taps {
		for r := range period {
			i := from(t, r)
			if i < 0 || i >= input {
				panic(fmt.Sprintf("gemm: gather: tap %d of row %d reads row %d of %d", t, r, i, input))
			}
			g.off[t*period+r] = int32(i * Lanes * 4)
		}
	}
	return g
}

// Taps is the number of input rows that an output row reads.
func (g *Gather) Taps() int { return g.taps }

// Period is the number of output rows after which the list repeats.
func (g *Gather) Period() int { return g.period }

// TileSize is the number of weights that connect one input plane to one
// output plane through one tap: [Lanes] x [Lanes], input column first.
const TileSize = Lanes * Lanes

// cachedWeights is the most weights of one output plane that a pass over the
// rows should use: 18 KiB, so that they stay in the first-level cache.
const cachedWeights = 18 * TileSize

// A Product is one call of [Product.Mul]:
//
//	dst[r*DstStep][o] (+)= sum over p, t, k of src[Gather(t, r)][p][k] * w[o][p][t][k]
//
// for 0 <= r < Rows, with p the input planes, t the taps, k < Columns and o
// the columns of the DstPlanes output planes.
type Product struct {
	Dst       Planes
	DstPlanes int
	DstStep   int // rows of Dst from one output row to the next
	Src       Planes
	SrcPlanes int
	Columns   int       // columns used of each input plane: 4, 8, 12 or 16
	Weights   []float32 // [DstPlanes][SrcPlanes][taps][16][16]
	Gather    *Gather
	Rows      int
	Add       bool // keep what is in Dst, and continue its chain
}

// Mul computes the product with the kernel in use. It does not allocate.
func (p *Product) Mul() {
	p.check()
	g := p.Gather
	size := p.SrcPlanes * g.taps * TileSize
	group := max(1, cachedWeights/(g.taps*TileSize))
	wide := 1
	if kernel == AVX512 {
		wide = 2
	}
	var a mulArgs
	a.dstRow = uintptr(p.DstStep * Lanes * 4)
	a.dstPlane = uintptr(p.Dst.Stride * 4)
	a.srcPlane = uintptr(p.Src.Stride * 4)
	a.offTap = uintptr(g.period * 4)
	a.taps = uintptr(g.taps)
	a.columns = uintptr(p.Columns * 4)
	a.wSkip = uintptr((Lanes - p.Columns) * Lanes * 4)
	a.wPlane = uintptr(size * 4)
	for p0 := 0; p0 < p.SrcPlanes; p0 += group {
		a.planes = uintptr(min(group, p.SrcPlanes-p0))
		if p0 > 0 || p.Add {
			a.add = 1
		}
		step := 1
		for o := 0; o < p.DstPlanes; o += step {
			step = min(wide, p.DstPlanes-o)
			a.w = unsafe.Pointer(&p.Weights[o*size+p0*g.taps*TileSize])
			in := 0
			for r := 0; r < p.Rows; r += g.period {
				a.dst = unsafe.Pointer(&p.Dst.Data[o*p.Dst.Stride+r*p.DstStep*Lanes])
				a.src = unsafe.Pointer(&p.Src.Data[p0*p.Src.Stride+in*Lanes])
				a.off = unsafe.Pointer(&g.off[0])
				mulRows(&a, min(g.period, p.Rows-r), step)
				in += g.input
			}
		}
	}
}

// check panics where the kernels, which trust their arguments, would read or
// write outside the slices.
func (p *Product) check() {
	g := p.Gather
	if p.Rows <= 0 || p.SrcPlanes <= 0 || p.DstPlanes <= 0 || p.DstStep <= 0 {
		panic("gemm: product: sizes must be positive")
	}
	if p.Columns <= 0 || p.Columns > Lanes || p.Columns%4 != 0 {
		panic(fmt.Sprintf("gemm: product: %d columns of a plane of 16", p.Columns))
	}
	_ = p.Weights[p.DstPlanes*p.SrcPlanes*g.taps*TileSize-1]
	_ = p.Dst.Data[(p.DstPlanes-1)*p.Dst.Stride+(p.Rows-1)*p.DstStep*Lanes+Lanes-1]
	_ = p.Src.Data[(p.SrcPlanes-1)*p.Src.Stride+g.reach(p.Rows)*Lanes-1]
}

// reach is the number of input rows that the first rows output rows may read.
func (g *Gather) reach(rows int) int {
	full := (rows - 1) / g.period * g.input
	last := rows - (rows-1)/g.period*g.period
	// Rows of the last period may read anywhere in what those rows cover.
	return full + (last*g.input+g.period-1)/g.period
}

// Outer adds to dw the products of one input plane with one gradient plane:
//
//	dw[t][k][j] += sum over r of src[Gather(t, r)][k] * grad[r][j]
//
// for 0 <= r < rows, each sum one chain in the order of r that starts from
// what dw holds; k < columns, of which only multiples of 4 are possible.
// Rows k >= columns of dw may get any sum of products with src's columns
// beyond, which callers keep zero. dw is [taps][16][16].
func Outer(dw, src, grad []float32, columns int, g *Gather, rows int) {
	if columns <= 0 || columns > Lanes || columns%4 != 0 || rows <= 0 {
		panic(fmt.Sprintf("gemm: outer: %d columns, %d rows", columns, rows))
	}
	_ = dw[g.taps*TileSize-1]
	_ = src[g.reach(rows)*Lanes-1]
	_ = grad[rows*Lanes-1]
	in := 0
	for r := 0; r < rows; r += g.period {
		n := min(g.period, rows-r)
		for r1 := 0; r1 < n; r1 += outerRows {
			for t := range g.taps {
				outerTile(dw[t*TileSize:][:TileSize], src[in*Lanes:], grad[(r+r1)*Lanes:],
					g.off[t*g.period+r1:], columns, min(outerRows, n-r1))
			}
		}
		in += g.input
	}
}

// outerRows is how many rows Outer takes at a time: the rows of both planes
// then stay in the first-level cache over all taps.
const outerRows = 64

// mulArgs are the arguments of the Mul kernels, for one block of rows.
// Distances are in bytes.
type mulArgs struct {
	dst      unsafe.Pointer
	dstRow   uintptr // to the next output row
	dstPlane uintptr // to the next output plane (wide tiles)
	src      unsafe.Pointer
	srcPlane uintptr
	off      unsafe.Pointer // *int32, the list's row of tap 0
	offTap   uintptr        // to the list's next tap
	w        unsafe.Pointer
	wPlane   uintptr // to the weights of the next output plane (wide tiles)
	wSkip    uintptr // over the weights of unused columns, after each tap
	planes   uintptr // input planes
	taps     uintptr
	columns  uintptr // columns used of each input plane, times 4
	add      uintptr // 1: start from dst
	tiles    uintptr // tiles to compute; counted down
}
