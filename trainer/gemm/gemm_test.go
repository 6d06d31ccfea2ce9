package gemm

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// eachKernel runs f under every kernel of this processor.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	before := Kernel()
	defer func() { require.NoError(t, Select(before)) }()
	for _, k := range Kernels() {
		require.NoError(t, Select(k))
		t.Run(k, f)
	}
}

func TestSelectRefusesUnknownKernels(t *testing.T) {
	before := Kernel()
	err := Select("sse")
	require.Error(t, err)
	assert.Contains(t, err.Error(), `"sse"`)
	assert.Equal(t, before, Kernel())
}

func TestAligned(t *testing.T) {
	for n := range 50 {
		s := Aligned(n + 1)
		assert.Len(t, s, n+1)
		assert.Zero(t, addr(s)%64)
	}
}

// exactFMA rounds a*b+c once, by arithmetic of unlimited precision.
func exactFMA(a, b, c float32) float32 {
	p := new(big.Float).SetPrec(2000).Mul(big.NewFloat(float64(a)), big.NewFloat(float64(b)))
	if p.Sign() == 0 || c == 0 {
		// big.Float has no rule for the sign of a sum of zeros; float64 does,
		// and is exact here.
		return float32(float64(a)*float64(b) + float64(c))
	}
	f, _ := p.Add(p, big.NewFloat(float64(c))).Float32()
	return f
}

func TestFMA32RoundsOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	n := 50_000
	doubled := 0
	for range n {
		// Few significant bits and near exponents make sums that fall close
		// to a point halfway between two float32 values.
		f := func() float32 {
			m := rng.Uint32N(1 << 24)
			m &= ^uint32(0) << rng.Uint32N(24)
			v := math.Ldexp(float64(m), int(rng.IntN(60))-30-24-120*rng.IntN(2)*rng.IntN(2))
			if rng.IntN(2) == 0 {
				v = -v
			}
			return float32(v)
		}
		a, b, c := f(), f(), f()
		if rng.IntN(2) == 0 {
			// A tiny product on top of the halfway point of c's neighbourhood.
			c = float32(math.Ldexp(1+float64(rng.Uint32N(1<<23))/(1<<23), rng.IntN(20)))
			h := math.Ldexp(1, math.Ilogb(float64(c))-24)
			a = float32(h * (1 + math.Ldexp(float64(rng.Uint32N(9))-4, -23)))
			b = float32(1 + math.Ldexp(float64(rng.Uint32N(9))-4, -23))
		}
		want, got := exactFMA(a, b, c), fma32(a, b, c)
		if math.Float32bits(want) != math.Float32bits(got) && !(want == 0 && got == 0) {
			t.Fatalf("fma32(%b, %b, %b) = %b, want %b", a, b, c, got, want)
		}
		if float32(math.FMA(float64(a), float64(b), float64(c))) != want {
			doubled++
		}
	}
	assert.NotZero(t, doubled, "no input would have been rounded twice: the test shows nothing")
	assert.True(t, math.IsNaN(float64(fma32(float32(math.NaN()), 1, 1))))
	assert.True(t, math.IsInf(float64(fma32(math.MaxFloat32, 2, 1)), 1))
	assert.True(t, math.IsNaN(float64(fma32(float32(math.Inf(1)), 1, float32(math.Inf(-1))))))
}

// shape is one product to try.
type shape struct {
	dst, src, columns, taps, period, input, rows, step int
	add                                                bool
}

func (s shape) String() string {
	return fmt.Sprintf("%dx%dx%d taps %d rows %d/%d step %d add %v", s.dst, s.src, s.columns, s.taps, s.rows, s.period, s.step, s.add)
}

func shapes() []shape {
	s := []shape{
		{dst: 1, src: 1, columns: 12, taps: 9, period: 256, input: 256, rows: 512, step: 1},
		{dst: 1, src: 1, columns: 16, taps: 9, period: 256, input: 256, rows: 256, step: 1, add: true},
		{dst: 2, src: 4, columns: 16, taps: 9, period: 192, input: 192, rows: 320, step: 1},
		{dst: 3, src: 5, columns: 4, taps: 9, period: 48, input: 48, rows: 80, step: 1},
		{dst: 8, src: 16, columns: 16, taps: 1, period: 24, input: 24, rows: 44, step: 1, add: true},
		{dst: 1, src: 8, columns: 16, taps: 4, period: 12, input: 48, rows: 29, step: 1},
		{dst: 2, src: 1, columns: 16, taps: 1, period: 12, input: 12, rows: 29, step: 4},
	}
	for rows := 1; rows <= 26; rows++ {
		s = append(s, shape{dst: 3, src: 1, columns: 8, taps: 2, period: 32, input: 32, rows: rows, step: 1})
	}
	return s
}

// product makes the operands of a shape.
func (s shape) product(rng *rand.Rand) *Product {
	blocks := (s.rows + s.period - 1) / s.period
	p := &Product{
		Dst: NewPlanes(s.dst, s.rows*s.step), DstPlanes: s.dst, DstStep: s.step,
		Src: NewPlanes(s.src, blocks*s.input), SrcPlanes: s.src, Columns: s.columns,
		Weights: Aligned(s.dst * s.src * s.taps * TileSize),
		Rows:    s.rows, Add: s.add,
	}
	// Rows of the last, partial period read only what it covers.
	ratio := s.input / s.period
	p.Gather = NewGather(s.taps, s.period, s.input, func(t, r int) int {
		if r >= s.rows%s.period && s.rows%s.period > 0 {
			return rng.IntN(s.input)
		}
		if s.rows%s.period > 0 {
			return rng.IntN(s.rows % s.period * ratio)
		}
		return rng.IntN(s.input)
	})
	random(rng, p.Dst.Data)
	random(rng, p.Src.Data)
	random(rng, p.Weights)
	return p
}

// reference computes the product from its definition in float64, with the
// sum of magnitudes that bounds the rounding error.
func (p *Product) reference() (want, size []float64) {
	want, size = make([]float64, len(p.Dst.Data)), make([]float64, len(p.Dst.Data))
	for i, v := range p.Dst.Data {
		want[i] = float64(v)
	}
	g := p.Gather
	for o := range p.DstPlanes * Lanes {
		for r := range p.Rows {
			at := o/Lanes*p.Dst.Stride + r*p.DstStep*Lanes + o%Lanes
			var sum, abs float64
			if p.Add {
				sum, abs = want[at], math.Abs(want[at])
			}
			for c := range p.SrcPlanes {
				for t := range g.taps {
					row := r/g.period*g.input + int(g.off[t*g.period+r%g.period])/Lanes/4
					for k := range p.Columns {
						x := float64(p.Src.Data[c*p.Src.Stride+row*Lanes+k])
						w := float64(p.Weights[((o/Lanes*p.SrcPlanes+c)*g.taps+t)*TileSize+k*Lanes+o%Lanes])
						sum += x * w
						abs += math.Abs(x * w)
					}
				}
			}
			want[at], size[at] = sum, abs
		}
	}
	return want, size
}

func TestMulAgainstFloat64(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, s := range shapes() {
			p := s.product(rng)
			want, size := p.reference()
			p.Mul()
			terms := float64(s.src * s.taps * s.columns)
			for i, v := range p.Dst.Data {
				// Rows between the steps must be as they were: size is zero.
				require.InDelta(t, want[i], v, size[i]*terms*0x1p-24, "%v: element %d", s, i)
			}
		}
	})
}

func TestKernelsGiveTheSameBits(t *testing.T) {
	if len(Kernels()) == 1 {
		testenv.Skip(t, testenv.VectorKernel, "this processor has the portable kernel only: nothing to compare")
	}
	var golden [][]float32
	eachKernel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 6))
		var got [][]float32
		for _, s := range shapes() {
			p := s.product(rng)
			p.Mul()
			got = append(got, p.Dst.Data)
		}
		for _, s := range shapes() {
			if s.step > 1 {
				continue
			}
			p := s.product(rng)
			dw := Aligned(s.taps * TileSize)
			random(rng, dw)
			for t := range s.taps {
				for k := s.columns; k < Lanes; k++ {
					clear(dw[t*TileSize+k*Lanes:][:Lanes])
				}
			}
			for i := range p.Src.Data {
				if i%Lanes >= s.columns {
					p.Src.Data[i] = 0
				}
			}
			Outer(dw, p.Src.Data, p.Dst.Data, s.columns, p.Gather, s.rows)
			got = append(got, dw)
		}
		if golden == nil {
			golden = got
		}
		for i := range got {
			requireSameBits(t, golden[i], got[i], i)
		}
	})
}

func requireSameBits(t *testing.T, want, got []float32, what any) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%v: element %d is %b, want %b", what, i, got[i], want[i])
		}
	}
}

func TestOuterAgainstFloat64(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, s := range shapes() {
			if s.step > 1 {
				continue
			}
			p := s.product(rng)
			dw := Aligned(s.taps * TileSize)
			random(rng, dw)
			want, size := make([]float64, len(dw)), make([]float64, len(dw))
			for i := range dw {
				want[i], size[i] = float64(dw[i]), math.Abs(float64(dw[i]))
			}
			g := p.Gather
			for r := range s.rows {
				for tap := range s.taps {
					row := r/g.period*g.input + int(g.off[tap*g.period+r%g.period])/Lanes/4
					for k := range s.columns {
						for j := range Lanes {
							v := float64(p.Src.Data[row*Lanes+k]) * float64(p.Dst.Data[r*Lanes+j])
							want[tap*TileSize+k*Lanes+j] += v
							size[tap*TileSize+k*Lanes+j] += math.Abs(v)
						}
					}
				}
			}
			Outer(dw, p.Src.Data, p.Dst.Data, s.columns, g, s.rows)
			for i := range dw {
				if i%TileSize/Lanes < s.columns {
					require.InDelta(t, want[i], dw[i], size[i]*float64(s.rows+1)*0x1p-24, "%v: element %d", s, i)
				}
			}
		}
	})
}

func TestProductRefusesShortSlices(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for name, breakIt := range map[string]func(p *Product){
		"weights": func(p *Product) { p.Weights = p.Weights[:len(p.Weights)-1] },
		"dst":     func(p *Product) { p.Dst.Data = p.Dst.Data[:len(p.Dst.Data)-1] },
		"src":     func(p *Product) { p.Src.Data = p.Src.Data[:len(p.Src.Data)/2] },
		"columns": func(p *Product) { p.Columns = 5 },
		"rows":    func(p *Product) { p.Rows = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			p := shapes()[2].product(rng)
			breakIt(p)
			assert.Panics(t, p.Mul)
		})
	}
	assert.Panics(t, func() { NewGather(1, 4, 4, func(_, r int) int { return r + 1 }) })
}

func TestMulDoesNotAllocate(t *testing.T) {
	p := shapes()[2].product(rand.New(rand.NewPCG(11, 12)))
	assert.Zero(t, testing.AllocsPerRun(10, p.Mul))
}

func addr(s []float32) uintptr { return uintptr(unsafe.Pointer(&s[0])) }
