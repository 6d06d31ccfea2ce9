package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// vec makes random values for each lane.
func vec(rng *rand.Rand) *Vec {
	v := Vec{}
	random(rng, v[:])
	return &v
}

// rowsCase runs one of the elementwise functions on random rows. It returns
// everything that the function wrote, and the same from the definition in
// float64.
type rowsCase func(rng *rand.Rand, n int) (got []float32, want []float64)

func rows(rng *rand.Rand, n int) []float32 {
	s := Aligned(n * Lanes)
	random(rng, s)
	return s
}

// define evaluates f for every row and lane.
func define(n int, f func(i, j int) float64) []float64 {
	out := make([]float64, n*Lanes)
	for i := range out {
		out[i] = f(i, i%Lanes)
	}
	return out
}

// sums evaluates f for every row and adds up by lane, from start.
func sums(n int, start *Vec, f func(i, j int) float64) []float64 {
	out := make([]float64, Lanes)
	for j := range out {
		out[j] = float64(start[j])
	}
	for i := range n * Lanes {
		out[i%Lanes] += f(i, i%Lanes)
	}
	return out
}

func f64(s []float32) func(i int) float64 { return func(i int) float64 { return float64(s[i]) } }

func clone(s []float32) []float32 { return append([]float32(nil), s...) }

var rowsCases = map[string]rowsCase{
	"moments": func(rng *rand.Rand, n int) ([]float32, []float64) {
		x, shift, sum, squares := rows(rng, n), vec(rng), vec(rng), vec(rng)
		d := func(i, j int) float64 { return float64(x[i]) - float64(shift[j]) }
		want := append(sums(n, sum, d), sums(n, squares, func(i, j int) float64 { return d(i, j) * d(i, j) })...)
		Moments(x, shift, sum, squares)
		return append(clone(sum[:]), squares[:]...), want
	},
	"affineReLU": func(rng *rand.Rand, n int) ([]float32, []float64) {
		x, a, b := rows(rng, n), vec(rng), vec(rng)
		dst := rows(rng, n)
		AffineReLU(dst, x, a, b)
		return dst, define(n, func(i, j int) float64 {
			return max(0, float64(x[i])*float64(a[j])+float64(b[j]))
		})
	},
	"affine2 in place": func(rng *rand.Rand, n int) ([]float32, []float64) {
		x, y, a, b, c := rows(rng, n), rows(rng, n), vec(rng), vec(rng), vec(rng)
		want := define(n, func(i, j int) float64 {
			return float64(x[i])*float64(a[j]) + float64(y[i])*float64(b[j]) + float64(c[j])
		})
		Affine2(y, x, y, a, b, c)
		return y, want
	},
	"affine2ReLU": func(rng *rand.Rand, n int) ([]float32, []float64) {
		x, y, a, b, c := rows(rng, n), rows(rng, n), vec(rng), vec(rng), vec(rng)
		dst := rows(rng, n)
		Affine2ReLU(dst, x, y, a, b, c)
		return dst, define(n, func(i, j int) float64 {
			return max(0, float64(x[i])*float64(a[j])+float64(y[i])*float64(b[j])+float64(c[j]))
		})
	},
	"reluGrad": func(rng *rand.Rand, n int) ([]float32, []float64) {
		g, x, y, dst := rows(rng, n), rows(rng, n), rows(rng, n), rows(rng, n)
		p := &ReLUGradArgs{
			A: *vec(rng), B: *vec(rng), C: *vec(rng), MeanX: *vec(rng), MeanY: *vec(rng),
			Sum: *vec(rng), DotX: *vec(rng), DotY: *vec(rng),
		}
		v := func(i, j int) float64 {
			if float64(x[i])*float64(p.A[j])+float64(y[i])*float64(p.B[j])+float64(p.C[j]) > 0 {
				return float64(g[i])
			}
			return 0
		}
		want := define(n, v)
		want = append(want, sums(n, &p.Sum, v)...)
		want = append(want, sums(n, &p.DotX, func(i, j int) float64 { return v(i, j) * (float64(x[i]) - float64(p.MeanX[j])) })...)
		want = append(want, sums(n, &p.DotY, func(i, j int) float64 { return v(i, j) * (float64(y[i]) - float64(p.MeanY[j])) })...)
		ReLUGrad(dst, g, x, y, p)
		got := append(clone(dst), p.Sum[:]...)
		return append(append(got, p.DotX[:]...), p.DotY[:]...), want
	},
	"scaleGrad": func(rng *rand.Rand, n int) ([]float32, []float64) {
		g, act, x, dst := rows(rng, n), rows(rng, n), rows(rng, n), rows(rng, n)
		scale, mean, sum, dot := vec(rng), vec(rng), vec(rng), vec(rng)
		v := func(i, j int) float64 {
			if act[i] > 0 {
				return float64(g[i]) * float64(scale[j])
			}
			return 0
		}
		want := append(define(n, v), sums(n, sum, v)...)
		want = append(want, sums(n, dot, func(i, j int) float64 { return v(i, j) * (float64(x[i]) - float64(mean[j])) })...)
		ScaleGrad(dst, g, act, x, scale, mean, sum, dot)
		return append(append(clone(dst), sum[:]...), dot[:]...), want
	},
	"haar": func(rng *rand.Rand, n int) ([]float32, []float64) {
		top, bottom := rows(rng, 2*n), rows(rng, 2*n)
		var out [4][]float32
		var got []float32
		var want []float64
		for q := range out {
			out[q] = rows(rng, n)
		}
		Haar(out[0], out[1], out[2], out[3], top, bottom)
		for q, s := range [4][4]float64{{1, 1, 1, 1}, {1, -1, 1, -1}, {1, 1, -1, -1}, {1, -1, -1, 1}} {
			got = append(got, out[q]...)
			want = append(want, define(n, func(i, j int) float64 {
				a := i/Lanes*2*Lanes + j
				b := a + Lanes
				return (s[0]*f64(top)(a) + s[1]*f64(top)(b) + s[2]*f64(bottom)(a) + s[3]*f64(bottom)(b)) / 2
			})...)
		}
		return got, want
	},
	"haar inverse": func(rng *rand.Rand, n int) ([]float32, []float64) {
		top, bottom := rows(rng, 2*n), rows(rng, 2*n)
		want := append(define(2*n, func(i, _ int) float64 { return float64(top[i]) }),
			define(2*n, func(i, _ int) float64 { return float64(bottom[i]) })...)
		ll, lh, hl, hh := rows(rng, n), rows(rng, n), rows(rng, n), rows(rng, n)
		Haar(ll, lh, hl, hh, top, bottom)
		clear(top)
		clear(bottom)
		HaarInverse(top, bottom, ll, lh, hl, hh)
		return append(clone(top), bottom...), want
	},
	"adam": func(rng *rand.Rand, n int) ([]float32, []float64) {
		w, m, v, g := rows(rng, n), rows(rng, n), rows(rng, n), rows(rng, n)
		for i := range v {
			v[i] *= v[i]
		}
		p := &AdamArgs{Beta1: .9, OneMinusBeta1: .1, Beta2: .999, OneMinusBeta2: .001, StepSize: .01, Correction: .3, Epsilon: 1e-8}
		nm := define(n, func(i, _ int) float64 { return .9*float64(m[i]) + .1*float64(g[i]) })
		nv := define(n, func(i, _ int) float64 { return .999*float64(v[i]) + .001*float64(g[i])*float64(g[i]) })
		nw := define(n, func(i, _ int) float64 { return float64(w[i]) - .01*nm[i]/(math.Sqrt(nv[i])/.3+1e-8) })
		Adam(w, m, v, g, p)
		return append(append(clone(w), m...), v...), append(append(nw, nm...), nv...)
	},
	"add": func(rng *rand.Rand, n int) ([]float32, []float64) {
		x, y := rows(rng, n), rows(rng, n)
		want := define(n, func(i, _ int) float64 { return float64(x[i]) + float64(y[i]) })
		Add(x, y)
		return x, want
	},
}

func TestRowsAgainstFloat64(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for name, run := range rowsCases {
			for _, n := range []int{1, 2, 7, 256} {
				rng := rand.New(rand.NewPCG(uint64(n), 20))
				got, want := run(rng, n)
				require.Len(t, got, len(want))
				for i := range want {
					require.InDelta(t, want[i], got[i], 1e-6*float64(8+n)+1e-5*math.Abs(want[i]), "%s of %d rows: element %d", name, n, i)
				}
			}
		}
	})
}

func TestRowsGiveTheSameBits(t *testing.T) {
	golden := map[string][]float32{}
	eachKernel(t, func(t *testing.T) {
		for name, run := range rowsCases {
			for _, n := range []int{1, 3, 64} {
				got, _ := run(rand.New(rand.NewPCG(uint64(n), 21)), n)
				key := fmt.Sprintf("%s of %d rows", name, n)
				if golden[key] == nil {
					golden[key] = got
				}
				requireSameBits(t, golden[key], got, key)
			}
		}
	})
}

func TestRowsKeepNaN(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		x := Aligned(2 * Lanes)
		x[3], x[20] = float32(math.NaN()), float32(math.Copysign(0, -1))
		one, zero := Vec{}, Vec{}
		for j := range one {
			one[j], zero[j] = 1, float32(math.Copysign(0, -1))
		}
		dst := Aligned(2 * Lanes)
		AffineReLU(dst, x, &one, &zero)
		assert.True(t, math.IsNaN(float64(dst[3])), "a NaN must not vanish in ReLU: training would go on")
		assert.Equal(t, uint32(1)<<31, math.Float32bits(dst[20]))
		Affine2ReLU(dst, x, x, &one, &zero, &zero)
		assert.True(t, math.IsNaN(float64(dst[3])))
	})
}

func TestSelfCheck(t *testing.T) {
	before := Kernel()
	checks := SelfCheck()
	assert.Len(t, checks, 6*len(Kernels()))
	for _, c := range checks {
		assert.NoError(t, c.Err, c.Name)
		assert.Positive(t, c.MaxErr, c.Name)
	}
	assert.Equal(t, before, Kernel())
}

func TestSelfCheckFindsErrors(t *testing.T) {
	right := []float32{1, 2}
	assert.NoError(t, checkError(0.5, right, []float32{1, 2}))
	assert.ErrorContains(t, checkError(0.5, right, []float32{1, 2.0000002}), "element 1")
	assert.ErrorContains(t, checkError(2, right, right), "2 times")
	assert.Error(t, checkError(math.NaN(), right, right))
	assert.InDelta(t, 2, checkWorst(0, 0x1p-23, 1), 1e-9)
	assert.True(t, math.IsNaN(checkWorst(0, math.NaN(), 1)))
}
