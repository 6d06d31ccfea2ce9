package kernels

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/gemm"
)

func checkHead(t testing.TB) {
	for _, c := range []struct{ images, batch, classes int }{{1, 1, 10}, {8, 8, 2}, {3, 7, 4}, {3, 3, 5}, {3, 3, 8}, {2, 2, 130}, {1, 1, MaxClasses}} {
		rng := rand.New(rand.NewPCG(10, uint64(c.classes)))
		j := newJoint(11, c.images*4, 128)
		weights, bias, labels := random(rng, c.classes*Features), random(rng, c.classes), make([]int32, c.images)
		for i := range weights {
			weights[i] *= 0.05
		}
		for i := range labels {
			labels[i] = int32(rng.IntN(c.classes))
		}
		for _, train := range []bool{true, false} {
			g := newGPU(t)
			h := Head{
				Features: g.room("features", c.images*Features), Logits: g.room("logits", c.images*c.classes),
				Losses: g.room("losses", 2*c.images), Hits: g.room("hits", c.images),
				Y: g.floats("y", j.y), Shortcut: g.floats("s", j.s), Norm: g.floats("norm", j.norm), NormS: g.floats("normS", j.normS),
				Weights: g.floats("weights", weights), Bias: g.floats("bias", bias), Labels: g.value("labels", labels),
			}
			if train {
				h.DFeatures = g.room("df", c.images*Features)
			}
			require.NoError(t, Set{g, FP32}.Head(h, c.images, c.batch, c.classes))
			var features, z, df []sum
			for i := range c.images * Features {
				features = append(features, j.relu(i))
			}
			losses, hits := make([]float64, c.images), make([]int32, c.images)
			g.read(t, h.Losses, losses)
			g.read(t, h.Hits, hits)
			for n := range c.images {
				logits, best, total := make([]sum, c.classes), 0, 0.0
				for k := range logits {
					logits[k].add(float64(bias[k]))
					for f, v := range features[n*Features:][:Features] {
						logits[k].add(v.v * float64(weights[k*Features+f]))
					}
					if logits[k].v > logits[best].v {
						best = k
					}
					total += math.Exp(logits[k].v)
				}
				label := labels[n]
				require.InDelta(t, math.Log(total)-logits[label].v, losses[n], 1e-5)
				require.Equal(t, int32(best) == label, hits[n] == 1)
				if !train {
					z = append(z, logits...)
					continue
				}
				grads := make([]sum, c.classes)
				for k, l := range logits {
					grads[k] = sum{math.Exp(l.v) / total, 1}
					if k == int(label) {
						grads[k].v--
					}
					grads[k].v /= float64(c.batch)
				}
				z = append(z, grads...)
				for f := range Features {
					s := sum{}
					for k := range grads {
						s.add(grads[k].v * float64(weights[k*Features+f]))
					}
					s.size += 0.1
					df = append(df, s)
				}
			}
			assert.NoError(t, near(features, g.get(t, h.Features), 4*0x1p-24))
			assert.NoError(t, near(z, g.get(t, h.Logits), 1e-5))
			if train {
				assert.NoError(t, near(df, g.get(t, h.DFeatures), 1e-5))
			}
		}
	}
}

// checkHeadOfHugeLogits has exponentials of nearly nothing, and a loss that is NaN.
func checkHeadOfHugeLogits(t testing.TB) {
	g := newGPU(t)
	j := newJoint(12, 8, 128)
	bias := []float32{1000, -1000}
	h := Head{
		Features: g.room("features", 2*Features), Logits: g.room("logits", 4), DFeatures: g.room("df", 2*Features),
		Losses: g.room("losses", 4), Hits: g.room("hits", 2),
		Y: g.floats("y", j.y), Shortcut: g.floats("s", j.s), Norm: g.floats("norm", j.norm), NormS: g.floats("normS", j.normS),
		Weights: g.floats("weights", make([]float32, 2*Features)), Bias: g.floats("bias", bias), Labels: g.value("labels", []int32{0, 1}),
	}
	losses, hits := make([]float64, 2), make([]int32, 2)
	run := func() {
		require.NoError(t, Set{g, FP32}.Head(h, 2, 2, 2))
		g.read(t, h.Losses, losses)
		g.read(t, h.Hits, hits)
	}
	run()
	assert.Equal(t, []float64{0, 2000}, losses)
	assert.Equal(t, []int32{1, 0}, hits)
	assert.Equal(t, []float32{0, 0, 0.5, -0.5}, g.get(t, h.Logits))
	h.Bias = g.floats("bias", []float32{float32(math.NaN()), 0})
	run()
	assert.True(t, math.IsNaN(losses[0]) && math.IsNaN(losses[1]))
	assert.Equal(t, []int32{0, 0}, hits)
}

func checkLinearGrad(t testing.TB) {
	for _, c := range []struct{ images, classes int }{{1, 10}, {7, 3}, {PartImages + 1, 2}} {
		rng := rand.New(rand.NewPCG(13, uint64(c.images)))
		grad, features := random(rng, c.images*c.classes), random(rng, c.images*Features)
		g := newGPU(t)
		n := c.classes * (Features + 1)
		dw := g.room("dw", LinearParts(c.images)*n)
		require.NoError(t, Set{g, FP32}.LinearGrad(dw, g.floats("grad", grad), g.floats("features", features), c.images, c.classes))
		want, got := make([]sum, n), make([]float32, n)
		for i, v := range g.get(t, dw) {
			got[i%n] += v
		}
		for i := range c.images {
			for k := range c.classes {
				d := float64(grad[i*c.classes+k])
				for f := range Features {
					want[k*Features+f].add(d * float64(features[i*Features+f]))
				}
				want[c.classes*Features+k].add(d)
			}
		}
		assert.NoError(t, near(want, got, float64(c.images)*0x1p-24))
	}
}

func checkLoss(t testing.TB) {
	rng := rand.New(rand.NewPCG(14, 0))
	for _, images := range []int{1, 127, 128, 300} {
		losses, hits := make([]float64, images), make([]int32, images)
		total, correct := 0.0, int32(0)
		for i := range losses {
			losses[i], hits[i] = rng.Float64(), int32(rng.IntN(2))
			total += losses[i]
			correct += hits[i]
		}
		before := State{Step: 1 << 40, Epoch: 3, First: 100, Correct: 5, Sum: 2, Images: 7}
		run := func(s State, train bool) (after State) {
			g := newGPU(t)
			p := g.value("state", s)
			require.NoError(t, Set{g, FP32}.Loss(p, g.value("losses", losses), g.value("hits", hits), images, train))
			g.read(t, p, &after)
			return after
		}
		n := int32(images)
		got := run(before, true)
		assert.InEpsilon(t, total/float64(images), got.Loss, 1e-14)
		assert.InEpsilon(t, total+2, got.Sum, 1e-14)
		want := State{Step: before.Step + 1, Epoch: 3, First: 100 + n, Correct: 5 + correct, Loss: got.Loss, Sum: got.Sum, Images: 7 + n}
		assert.Equal(t, want, got)
		want.Step--
		assert.Equal(t, want, run(before, false))

		before.Stopped = 1
		assert.Equal(t, before, run(before, true), "nothing happens any more")
		before.Stopped, losses[images/2] = 0, math.Inf(1)
		got = run(before, true)
		assert.EqualValues(t, 1, got.Stopped)
		assert.Equal(t, before.Step, got.Step)
		assert.True(t, math.IsInf(got.Loss, 1))
	}
}

// groups are parameters whose gradients have so many parts.
var groups = []struct{ size, parts int }{{304, 3}, {16, 1}, {16, 2}, {32, 8}, {16, 9}, {16, 17}}

// pieces are those of the groups, which have so many parameters, and gradients in all parts.
func pieces() (all []Piece, parameters, gradients int) {
	for _, c := range groups {
		for i := 0; i < c.size; i += PieceSize {
			all = append(all, Piece{int32(parameters + i), int32(min(PieceSize, c.size-i)), int32(gradients + i), int32(c.parts), int32(c.size)})
		}
		parameters += c.size
		gradients += c.size * c.parts
	}
	return all, parameters, gradients
}

// summed adds the parts of gradients on the CPU.
func summed(gradients []float32) (sums []float32) {
	for _, c := range groups {
		sum := slices.Clone(gradients[:c.size])
		for k := 1; k < c.parts; k++ {
			gemm.Add(sum, gradients[k*c.size:])
		}
		sums, gradients = append(sums, sum...), gradients[c.size*c.parts:]
	}
	return sums
}

// checkSumParts compares with the CPU's, to the bit.
func checkSumParts(t testing.TB) {
	all, total, places := pieces()
	parts := random(rand.New(rand.NewPCG(16, 0)), places)
	g := newGPU(t)
	sums := g.room("sums", total)
	require.NoError(t, Set{g, FP32}.SumParts(sums, g.floats("gradients", parts), g.value("pieces", all), len(all)))
	assert.Equal(t, summed(parts), g.get(t, sums))
}

// checkAdam compares with the CPU's, to the bit.
func checkAdam(t testing.TB) {
	for _, step := range []uint64{1, 2, 1000, 123456} {
		rng := rand.New(rand.NewPCG(15, step))
		const lr = 1e-3
		all, total, places := pieces()
		w, m, v := random(rng, total), random(rng, total), random(rng, total)
		for i := range v {
			v[i] *= v[i]
		}
		parts := random(rng, places)
		run := func(s State) (a, b, c []float32) {
			g := newGPU(t)
			pw, pm, pv := g.floats("w", w), g.floats("m", m), g.floats("v", v)
			require.NoError(t, Set{g, FP32}.Adam(pw, pm, pv, g.floats("gradients", parts), g.value("pieces", all), g.value("state", s), len(all), lr))
			return g.get(t, pw), g.get(t, pm), g.get(t, pv)
		}
		a, b, c := run(State{Step: step, Stopped: 1})
		assert.Equal(t, [][]float32{w, m, v}, [][]float32{a, b, c}, "after a loss that wasn't finite")
		a, b, c = run(State{Step: step})
		power := func(x float64) (p float64) { // by squares, as both do
			p = 1
			for n := step; n > 0; n >>= 1 {
				if n&1 == 1 {
					p *= x
				}
				x *= x
			}
			return p
		}
		args := gemm.AdamArgs{
			Beta1: 0.9, OneMinusBeta1: 1 - 0.9, Beta2: 0.999, OneMinusBeta2: 1 - 0.999, Epsilon: 1e-8,
			StepSize: float32(float64(float32(lr)) / (1 - power(0.9))), Correction: float32(math.Sqrt(1 - power(0.999))),
		}
		gemm.Adam(w, m, v, summed(parts), &args)
		assert.Equal(t, m, b)
		assert.Equal(t, v, c)
		assert.Equal(t, w, a)
	}
}
