package kernels

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shapes are those of the network, with few images, and edges: sizes that fill no tile of
// rows, channels or columns, and more than one part.
var shapes = []Shape{
	{Rows: 1 * 256, K: 4, N: 16, Width: 3, Log: 4},
	{Rows: 1 * 256, K: 12, N: 16, Width: 1, Log: 4},
	{Rows: 3 * 64, K: 64, N: 32, Width: 1, Log: 3},
	{Rows: 5 * 16, K: 32, N: 64, Width: 3, Log: 2},
	{Rows: 3 * 4, K: 64, N: 32, Width: 3, Log: 1},
	{Rows: 17 * 4, K: 20, N: 36, Width: 3, Log: 1},
	{Rows: 3 * 1, K: 4, N: 4, Width: 3, Log: 0},
	{Rows: 9 * 4, K: 20, N: 4, Width: 1, Log: 1},
	{Rows: 13 * 4, K: 16, N: 20, Width: 1, Log: 1},
	{Rows: 9 * 256, K: 4, N: 4, Width: 1, Log: 4},
}

// reads calls f with what each weight connects: a row and channel of the input, a weight,
// and a row and channel of the output.
func (c Shape) reads(f func(in, w, out int)) {
	side := 1 << c.Log
	for row := range c.Rows {
		image, y, x := row/side/side, row/side%side, row%side
		for tap := range c.Width * c.Width {
			yy := (y + tap/c.Width - c.Width/2 + side) % side
			xx := (x + tap%c.Width - c.Width/2 + side) % side
			for k := range c.K {
				for n := range c.N {
					f(((image*side+yy)*side+xx)*c.K+k, (tap*c.K+k)*c.N+n, row*c.N+n)
				}
			}
		}
	}
}

// share is which share of the terms' magnitudes an error of n of them may have.
func (p Precision) share(n int) float64 {
	if p == TF32 {
		return 0x1p-10 + float64(n)*0x1p-23 // both factors rounded to 11 bits, to nearest
	}
	return float64(n) * 0x1p-24
}

// convolution is one with random operands, and what must come of it.
type convolution struct {
	Shape
	in, w, grad []float32
	out, dx, dw []sum
}

func newConvolution(seed uint64, s Shape) *convolution {
	rng := rand.New(rand.NewPCG(seed, 1))
	weights := s.Width * s.Width * s.K * s.N
	c := &convolution{
		Shape: s, in: random(rng, s.Rows*s.K), w: random(rng, weights), grad: random(rng, s.Rows*s.N),
		out: make([]sum, s.Rows*s.N), dx: make([]sum, s.Rows*s.K), dw: make([]sum, weights),
	}
	s.reads(func(in, w, out int) {
		x, v, g := float64(c.in[in]), float64(c.w[w]), float64(c.grad[out])
		c.out[out].add(x * v)
		c.dx[in].add(v * g)
		c.dw[w].add(x * g)
	})
	return c
}

// forward runs the convolution, and checks it and its sums.
func (c *convolution) forward(g *gpu, p Precision) error {
	out, moments := g.room("out", len(c.out)), g.room("moments", Tiles(c.Rows)*3*c.N)
	if err := (Set{g, p}).ConvForward(out, g.floats("in", c.in), g.floats("w", c.w), moments, c.Shape); err != nil {
		return err
	}
	y, err := g.values(out)
	if err != nil {
		return err
	}
	if err := near(c.out, y, p.share(c.Width*c.Width*c.K)); err != nil {
		return err
	}
	m, err := g.values(moments)
	if err != nil {
		return err
	}
	want := make([]sum, len(m))
	for row := range c.Rows {
		for n := range c.N {
			first := float64(y[row/TileRows*TileRows*c.N+n])
			d := float64(y[row*c.N+n]) - first
			at := row/TileRows*3*c.N + n
			want[at] = sum{first, 0}
			want[at+c.N].add(d)
			want[at+2*c.N].add(d * d)
		}
	}
	if err := near(want, m, 20*0x1p-24); err != nil {
		return fmt.Errorf("moments: %w", err)
	}
	return nil
}

func (c *convolution) backward(g *gpu, p Precision) error {
	dx, grad, w := g.room("dx", len(c.dx)), g.floats("grad", c.grad), g.floats("w", c.w)
	if err := (Set{g, p}).ConvBackward(dx, grad, w, c.Shape, false); err != nil {
		return err
	}
	once, err := g.values(dx)
	if err != nil {
		return err
	}
	share := p.share(c.Width*c.Width*c.N + 1)
	if err := near(c.dx, once, share); err != nil {
		return err
	}
	if err := (Set{g, p}).ConvBackward(dx, grad, w, c.Shape, true); err != nil {
		return err
	}
	twice, err := g.values(dx)
	if err != nil {
		return err
	}
	want := make([]sum, len(c.dx))
	for i, s := range c.dx {
		want[i] = sum{s.v + float64(once[i]), s.size + abs(once[i])}
	}
	return near(want, twice, share)
}

func (c *convolution) weight(g *gpu, p Precision) error {
	parts := Parts(c.Rows)
	dw := g.room("dw", parts*len(c.dw))
	if err := (Set{g, p}).ConvWeight(dw, g.floats("in", c.in), g.floats("grad", c.grad), c.Shape); err != nil {
		return err
	}
	all, err := g.values(dw)
	if err != nil {
		return err
	}
	total := make([]float32, len(c.dw))
	for i, v := range all {
		total[i%len(total)] += v
	}
	return near(c.dw, total, p.share(min(c.Rows, PartRows(c.Rows))+parts))
}

func abs(v float32) float64 { return float64(max(v, -v)) }

func checkForward(p Precision) func(testing.TB) {
	return func(t testing.TB) {
		for i, s := range shapes {
			require.NoError(t, newConvolution(uint64(i), s).forward(newGPU(t), p), "%v", s)
		}
	}
}

func checkBackward(p Precision) func(testing.TB) {
	return func(t testing.TB) {
		for i, s := range shapes {
			require.NoError(t, newConvolution(uint64(i), s).backward(newGPU(t), p), "%v", s)
		}
	}
}

func checkWeight(p Precision) func(testing.TB) {
	return func(t testing.TB) {
		for i, s := range shapes {
			require.NoError(t, newConvolution(uint64(i), s).weight(newGPU(t), p), "%v", s)
		}
	}
}

// checkConvolutionWithoutMoments is that of evaluation.
func checkConvolutionWithoutMoments(t testing.TB) {
	c := newConvolution(99, shapes[5])
	g := newGPU(t)
	out := g.room("out", len(c.out))
	require.NoError(t, (Set{g, FP32}).ConvForward(out, g.floats("in", c.in), g.floats("w", c.w), 0, c.Shape))
	assert.NoError(t, near(c.out, g.get(t, out), FP32.share(9*c.K)))
}
