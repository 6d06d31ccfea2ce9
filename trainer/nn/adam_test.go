package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/berthdev/berth/trainer/nn/reference"
)

// TestAdamAgainstReference holds Adam alone against float64, with gradients of any size. The whole
// network is held against it by package devicetest.
func TestAdamAgainstReference(t *testing.T) {
	n := newNetwork(t, Config{Channels: 1, Classes: 10, Seed: 9})
	values := map[string][]float32{}
	for _, t := range n.State().Tensors {
		values[t.Name] = t.Data
	}
	r := reference.New(reference.Config{Channels: 1, Classes: 10, Seed: 9, LR: n.cfg.LR}, values)
	rng := rand.New(rand.NewPCG(32, 33))
	for range 10 {
		n.step++
		for _, p := range n.params.list {
			g := r.Tensors[p.name].G
			for i := range g {
				v := float32(rng.NormFloat64() * math.Pow(10, -6*rng.Float64()))
				p.grad[p.index(i)], g[i] = v, float64(v)
			}
		}
		n.update()
		r.Adam()
	}
	for _, s := range n.tensors() {
		if s.p == nil {
			continue
		}
		want := r.Tensors[s.p.name]
		for i, v := range s.p.export(s.p.w) {
			if !(math.Abs(want.W[i]-float64(v)) <= 1e-6) {
				t.Fatalf("%s, element %d: %v, want %v", s.p.name, i, v, want.W[i])
			}
		}
	}
}
