package reference

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func random(rng *rand.Rand, n int) *Tensor {
	w := make([]float64, n)
	for i := range w {
		w[i] = rng.NormFloat64()
	}
	return newTensor(w)
}

// TestGradients compares gradients with central differences of the forward pass, layer by layer.
func TestGradients(t *testing.T) {
	rng := rand.New(rand.NewPCG(30, 31))
	convolve := func(in, out, k int) *conv {
		return &conv{w: random(rng, in*out*k*k), in: in, out: out, k: k}
	}
	normalise := func(c int) *norm {
		return &norm{gamma: random(rng, c), beta: random(rng, c), mean: make([]float64, c), vari: make([]float64, c)}
	}
	half := func(n, c int) float64 { return float64((n + c) % 2 * 2) }
	c3, c1, c2, n1, n2 := convolve(3, 4, 3), convolve(3, 4, 1), convolve(4, 4, 3), normalise(4), normalise(4)
	lin := &linear{w: random(rng, 5*3*4*4), b: random(rng, 5), out: 5}
	for name, c := range map[string]struct {
		l       layer
		tensors []*Tensor
	}{
		"conv3x3":    {c3, []*Tensor{c3.w}},
		"conv1x1":    {c1, []*Tensor{c1.w}},
		"batch norm": {normalise(3), nil},
		"relu":       {&relu{}, nil},
		"dropout":    {&dropout{half}, nil},
		"haar":       {haar{}, nil},
		"linear":     {lin, []*Tensor{lin.w, lin.b}},
		"residual": {
			sum{chain{c3, n1, &relu{}, &dropout{half}, c2}, chain{c1, n2}},
			[]*Tensor{c3.w, n1.gamma, n1.beta, c2.w, c1.w, n2.gamma, n2.beta},
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := newArray(3, 3, 4)
			for i := range x.d {
				x.d[i] = rng.NormFloat64()
			}
			y := c.l.forward(x)
			g := newArray(y.n, y.c, y.s)
			for i := range g.d {
				g.d[i] = rng.NormFloat64()
			}
			for _, p := range c.tensors {
				clear(p.G)
			}
			dx := c.l.backward(g)
			value := func() float64 {
				sum := 0.0
				for i, v := range c.l.forward(x).d {
					sum += v * g.d[i]
				}
				return sum
			}
			check := func(what string, v, grad []float64) {
				for i := range v {
					requireSlope(t, value, &v[i], grad[i], "%s, element %d", what, i)
				}
			}
			check("input", x.d, dx.d)
			for _, p := range c.tensors {
				check("weights", p.W, p.G)
			}
		})
	}
	t.Run("cross-entropy", func(t *testing.T) {
		z, labels := newArray(4, 7, 1), []uint8{0, 6, 3, 3}
		for i := range z.d {
			z.d[i] = 3 * rng.NormFloat64()
		}
		_, g := crossEntropy(z, labels)
		value := func() float64 { loss, _ := crossEntropy(z, labels); return loss }
		for i := range z.d {
			requireSlope(t, value, &z.d[i], g.d[i], "logit %d", i)
		}
	})
}

// requireSlope compares a derivative with the central difference of f at v.
func requireSlope(t *testing.T, f func() float64, v *float64, want float64, msg string, args ...any) {
	t.Helper()
	const h = 1e-6
	at := *v
	*v = at + h
	up := f()
	*v = at - h
	down := f()
	*v = at
	require.InDelta(t, want, (up-down)/(2*h), 1e-6*(1+math.Abs(want)), append([]any{msg}, args...)...)
}
