package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// batch makes random images and labels.
func batch(seed uint64, images, channels, classes int) ([]float32, []uint8) {
	rng := rand.New(rand.NewPCG(seed, 99))
	x := make([]float32, images*channels*Size*Size)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	y := make([]uint8, images)
	for i := range y {
		y[i] = uint8(rng.IntN(classes))
	}
	return x, y
}

func newNetwork(t testing.TB, cfg Config) *Network {
	n, err := New(cfg)
	require.NoError(t, err)
	return n
}

func TestNumParameters(t *testing.T) {
	assert.Equal(t, 634410, newNetwork(t, Config{Channels: 3, Classes: 10}).NumParameters())
	assert.Equal(t, 634410-8*16*10, newNetwork(t, Config{Channels: 1, Classes: 10}).NumParameters())
}

func TestLearnsABatchByHeart(t *testing.T) {
	n := newNetwork(t, Config{Channels: 3, Classes: 10, Seed: 1})
	x, y := batch(1, 40, 3, 10)
	first, _, err := n.TrainStep(x, y)
	require.NoError(t, err)
	assert.InDelta(t, math.Log(10), first, 1)
	var loss float64
	for range 30 {
		loss, _, err = n.TrainStep(x, y)
		require.NoError(t, err)
	}
	assert.Less(t, loss, 0.1)
}

// gradients returns the gradients of the network's last step.
func gradients(n *Network) map[string][]float32 {
	g := map[string][]float32{}
	for _, p := range n.params.list {
		g[p.name] = p.export(p.grad)
	}
	return g
}

// relative returns |a-b| / |b| over all elements, in the Euclidean norm.
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

func TestStepAgainstReference(t *testing.T) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t, cfg)
			r := newReference(n)
			x, y := batch(2, 11, cfg.Channels, cfg.Classes)
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
						assert.InDelta(t, r.running[s.name][i], v, 1e-6, s.name)
					}
				}
			}

			r.eval = true
			want, _ = r.loss(x, y)
			got, _, err = n.Evaluate(x, y)
			require.NoError(t, err)
			assert.InEpsilon(t, want*float64(len(y)), got, 1e-4)
		})
	}
}
