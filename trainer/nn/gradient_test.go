package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The gradients of the network are compared with those of the reference, and
// the reference's with central differences of its forward pass, layer by
// layer, in float64.

func random64(rng *rand.Rand, n int) *tensor64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = rng.NormFloat64()
	}
	return newTensor64(w)
}

func TestReferenceGradientsAgainstCentralDifferences(t *testing.T) {
	rng := rand.New(rand.NewPCG(30, 31))
	conv := func(in, out, k int) *conv64 {
		return &conv64{w: random64(rng, in*out*k*k), in: in, out: out, k: k}
	}
	norm := func(c int) *norm64 {
		return &norm64{gamma: random64(rng, c), beta: random64(rng, c), mean: make([]float64, c), vari: make([]float64, c)}
	}
	half := func(n, c int) float64 { return float64((n + c) % 2 * 2) }
	c3, c1, c2, n1, n2 := conv(3, 4, 3), conv(3, 4, 1), conv(4, 4, 3), norm(4), norm(4)
	lin := &linear64{w: random64(rng, 5*3*4*4), b: random64(rng, 5), out: 5}
	for name, c := range map[string]struct {
		l       layer
		tensors []*tensor64
	}{
		"conv3x3":    {c3, []*tensor64{c3.w}},
		"conv1x1":    {c1, []*tensor64{c1.w}},
		"batch norm": {norm(3), nil},
		"relu":       {&relu64{}, nil},
		"dropout":    {&dropout64{half}, nil},
		"haar":       {haar64{}, nil},
		"linear":     {lin, []*tensor64{lin.w, lin.b}},
		"residual": {
			sum64{chain64{c3, n1, &relu64{}, &dropout64{half}, c2}, chain64{c1, n2}},
			[]*tensor64{c3.w, n1.gamma, n1.beta, c2.w, c1.w, n2.gamma, n2.beta},
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
				clear(p.g)
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
				check("weights", p.w, p.g)
			}
		})
	}
	t.Run("cross-entropy", func(t *testing.T) {
		z, labels := newArray(4, 7, 1), []uint8{0, 6, 3, 3}
		for i := range z.d {
			z.d[i] = 3 * rng.NormFloat64()
		}
		_, g := crossEntropy64(z, labels)
		value := func() float64 { loss, _ := crossEntropy64(z, labels); return loss }
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

// gradients returns the gradients of the network's last step.
func gradients(n *Network) map[string][]float32 {
	g := map[string][]float32{}
	for _, p := range n.params.list {
		g[p.name] = p.export(p.grad)
	}
	return g
}

// relative returns the distance of a from b over the length of b.
func relative(a []float32, b []float64) float64 {
	var d, s float64
	for i := range b {
		e := float64(a[i]) - b[i]
		d += e * e
		s += b[i] * b[i]
	}
	return math.Sqrt(d / s)
}

var configs = map[string]Config{
	"colour":  {Channels: 3, Classes: 10, Seed: 5, Dropout: 0.5},
	"gray":    {Channels: 1, Classes: 10, Seed: 6, Dropout: 0.25},
	"classes": {Channels: 1, Classes: 21, Seed: 7},
}

// smoothBatch makes a batch for which no input of a ReLU is so near to zero
// that rounding could move it across.
func smoothBatch(n *Network, images int) ([]float32, []uint8) {
	for seed := uint64(0); ; seed++ {
		x, y := batch(seed, images, n.cfg.Channels, n.cfg.Classes)
		r := newReference(n)
		r.loss(x, y)
		near := math.Inf(1)
		for _, l := range r.relus {
			near = math.Min(near, l.near)
		}
		if near > 3e-6 {
			return x, y
		}
	}
}

func TestStepAgainstReference(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, cfg)
			x, y := smoothBatch(n, 9)
			r := newReference(n)
			want := r.train(x, y)
			got, _, err := n.TrainStep(x, y)
			require.NoError(t, err)
			assert.InEpsilon(t, want, got, 1e-6)
			for name, g := range gradients(n) {
				assert.Less(t, relative(g, r.tensors[name].g), 2e-5, "gradient of %s", name)
			}
			for _, s := range n.tensors() {
				if s.p == nil {
					for i, v := range s.data {
						require.InDelta(t, r.running[s.name][i], v, 1e-6, "%s of channel %d", s.name, i)
					}
				}
			}

			r.eval = true
			want, z := r.loss(x, y)
			got, _, err = n.Evaluate(x, y)
			require.NoError(t, err)
			assert.InEpsilon(t, want*float64(len(y)), got, 1e-4)
			for i := range z.n {
				for c := range z.c {
					// Adam's first step has length LR whatever the gradient's
					// size, so tiny ones may differ in sign.
					logit := n.head.logits.Plane(c/16, i, 1)[c%16]
					require.InDelta(t, r.logits.d[i*z.c+c], logit, 2e-3, "logit %d of image %d", c, i)
				}
			}
		})
	}
}

// Rounding moves a few of the 100,000 inputs of ReLU across zero, and turns
// the sign of tiny gradients, which Adam's first steps amplify: two right
// trajectories drift apart. So this test bounds the drift against the way
// travelled, and the next one Adam alone against rounding errors.
func TestTenAdamStepsAgainstReference(t *testing.T) {
	cfg := Config{Channels: 1, Classes: 10, Seed: 8, Dropout: 0.5, LR: 1e-4}
	n := newNetwork(t, cfg)
	r := newReference(n)
	start := newReference(n)
	for step := range 10 {
		x, y := batch(uint64(step), 4, cfg.Channels, cfg.Classes)
		want := r.train(x, y)
		got, _, err := n.TrainStep(x, y)
		require.NoError(t, err)
		require.InEpsilon(t, want, got, 2e-3, "loss of step %d", step+1)
	}
	for _, p := range n.params.list {
		w := r.tensors[p.name].w
		var off, way float64
		for i, v := range p.export(p.w) {
			off += math.Pow(float64(v)-w[i], 2)
			way += math.Pow(w[i]-start.tensors[p.name].w[i], 2)
		}
		assert.Less(t, math.Sqrt(off/way), 0.1, p.name)
	}
	assert.EqualValues(t, 10, n.Step())
}

func TestAdamAgainstReference(t *testing.T) {
	n := newNetwork(t, Config{Channels: 1, Classes: 10, Seed: 9})
	r := newReference(n)
	rng := rand.New(rand.NewPCG(32, 33))
	for range 10 {
		n.step++
		for _, p := range n.params.list {
			g := r.tensors[p.name].g
			for i := range g {
				v := float32(rng.NormFloat64() * math.Pow(10, -6*rng.Float64()))
				p.grad[p.index(i)], g[i] = v, float64(v)
			}
		}
		n.update()
		r.adam()
	}
	for _, s := range n.tensors() {
		if s.p == nil {
			continue
		}
		want := r.tensors[s.p.name]
		for i, v := range s.p.export(s.p.w) {
			if !(math.Abs(want.w[i]-float64(v)) <= 1e-6) {
				t.Fatalf("%s, element %d: %v, want %v", s.p.name, i, v, want.w[i])
			}
		}
	}
}
