package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The places of a batch norm's lines.
const (
	scale = iota
	shift
	mean
	gradG
	gradY
	gradC
	inverse // float64
)

// lines are the lines of a batch norm with random values.
func lines(rng *rand.Rand, channels int) []float32 {
	return random(rng, Norm(channels))
}

// inverses are the last lines.
func inverses(norm []float32) []float64 {
	v := make([]float64, len(norm)/8)
	for c := range v {
		low, high := norm[inverse*len(v)+2*c], norm[inverse*len(v)+2*c+1]
		v[c] = math.Float64frombits(uint64(math.Float32bits(low)) | uint64(math.Float32bits(high))<<32)
	}
	return v
}

// tileSums are sums over tiles of rows of three values for each row and channel, as the
// kernels leave them.
func tileSums(rows, channels int, f func(row, c int) [3]float64) []sum {
	s := make([]sum, Tiles(rows)*3*channels)
	for row := range rows {
		for c := range channels {
			for i, v := range f(row, c) {
				s[(row/TileRows*3+i)*channels+c].add(v)
			}
		}
	}
	return s
}

func rounded(s []sum) []float32 {
	v := make([]float32, len(s))
	for i := range s {
		v[i] = float32(s[i].v)
	}
	return v
}

// batchNorm runs norm_batch on the sums of random rows.
func batchNorm(g *gpu, t testing.TB, rows, channels int) error {
	rng := rand.New(rand.NewPCG(uint64(rows), 2))
	y := random(rng, rows*channels)
	for i := range y {
		y[i] = y[i]*0.1 + 3 // the mean is large beside the deviation
	}
	moments := tileSums(rows, channels, func(row, c int) [3]float64 {
		first := float64(y[row/TileRows*TileRows*channels+c])
		d := float64(y[row*channels+c]) - first
		return [3]float64{0, d, d * d}
	})
	for i := range Tiles(rows) {
		for c := range channels {
			moments[i*3*channels+c].v = float64(y[i*TileRows*channels+c])
		}
	}
	gamma, beta, oldMean, oldVar := random(rng, channels), random(rng, channels), random(rng, channels), random(rng, channels)
	norm, runMean, runVar := g.floats("norm", make([]float32, Norm(channels))), g.floats("mean", oldMean), g.floats("var", oldVar)
	err := Set{g, FP32}.NormBatch(norm, runMean, runVar, g.floats("moments", rounded(moments)), g.floats("gamma", gamma), g.floats("beta", beta),
		g.value("state", State{}), rows, channels)
	if err != nil {
		return err
	}
	got, gotMean, gotVar := g.get(t, norm), g.get(t, runMean), g.get(t, runVar)
	inv := inverses(got)
	for c := range channels {
		var m, v float64
		for row := range rows {
			m += float64(y[row*channels+c]) / float64(rows)
		}
		for row := range rows {
			v += math.Pow(float64(y[row*channels+c])-m, 2)
		}
		i := 1 / math.Sqrt(v/float64(rows)+1e-5)
		s := float64(gamma[c]) * i
		unbiased := v / float64(max(rows-1, 1))
		for what, pair := range map[string][2]float64{
			"scale": {s, float64(got[c])}, "shift": {float64(beta[c]) - m*s, float64(got[shift*channels+c])},
			"mean": {m, float64(got[mean*channels+c])}, "inverse": {i, inv[c]},
			"running mean": {0.9*float64(oldMean[c]) + 0.1*m, float64(gotMean[c])},
			"running var":  {0.9*float64(oldVar[c]) + 0.1*unbiased, float64(gotVar[c])},
		} {
			if !(math.Abs(pair[0]-pair[1]) <= 3e-6*math.Abs(pair[0])+1e-6) {
				return fmt.Errorf("%s of channel %d is %v, want %v", what, c, pair[1], pair[0])
			}
		}
	}
	return nil
}

func checkNormBatch(t testing.TB) {
	for _, rows := range []int{1, 2, 63, 64, 65, 128 * 64, 131*64 + 5} {
		assert.NoError(t, batchNorm(newGPU(t), t, rows, 4), "%d rows", rows)
	}
}

// checkNormKeepsNaN: a loss that isn't finite must show, and nothing may hide it.
func checkNormKeepsNaN(t testing.TB) {
	g := newGPU(t)
	nan := float32(math.NaN())
	norm, one := g.floats("norm", make([]float32, 8)), func(name string, v float32) Pointer { return g.floats(name, []float32{v}) }
	require.NoError(t, Set{g, FP32}.NormBatch(norm, one("m", 0), one("v", 1), g.floats("moments", []float32{1, nan, nan}), one("gamma", 1), one("beta", 0),
		g.value("state", State{}), 3, 1))
	assert.True(t, math.IsNaN(float64(g.get(t, norm)[scale])))
}

func checkNormRunning(t testing.TB) {
	const channels = 130
	rng := rand.New(rand.NewPCG(3, 3))
	g := newGPU(t)
	m, v, gamma, beta := random(rng, channels), random(rng, channels), random(rng, channels), random(rng, channels)
	for i := range v {
		v[i] *= v[i]
	}
	norm := g.floats("norm", make([]float32, Norm(channels)))
	require.NoError(t, Set{g, FP32}.NormRunning(norm, g.floats("mean", m), g.floats("var", v), g.floats("gamma", gamma), g.floats("beta", beta), channels))
	got := g.get(t, norm)
	for c := range channels {
		s := float64(gamma[c]) / math.Sqrt(float64(v[c])+1e-5)
		require.InEpsilon(t, s, got[c], 1e-6)
		require.InDelta(t, float64(beta[c])-float64(m[c])*s, got[shift*channels+c], 1e-6*(1+math.Abs(float64(m[c])*s)))
	}
}

func splitMix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// dropped is the definition of the CPU's dropout.
func dropped(d Dropout, step uint64, image, c int) bool {
	const golden = 0x9e3779b97f4a7c15
	s := splitMix(d.Seed + golden)
	for _, key := range []uint64{step, uint64(d.Block), uint64(image)} {
		s = splitMix(s + (key+1)*golden)
	}
	return float64(splitMix(s+uint64(c+1)*golden)>>32) < float64(d.Probability)*(1<<32)
}

func checkActivate(t testing.TB) {
	for _, c := range []struct {
		images, channels, log int
		d                     Dropout
	}{
		{1, 16, 4, Dropout{Seed: 7, Probability: 0.5, Block: 1}}, {3, 32, 1, Dropout{Seed: 8, Probability: 0.25, Block: 3, First: 250}},
		{5, 128, 1, Dropout{Seed: math.MaxUint64, Probability: 0.9}}, {3, 20, 0, Dropout{Seed: 5}},
	} {
		rng := rand.New(rand.NewPCG(4, uint64(c.channels)))
		rows := c.images << (2 * c.log)
		y, norm := random(rng, rows*c.channels), lines(rng, c.channels)
		const step = 12345678901
		g := newGPU(t)
		out := g.room("out", len(y))
		require.NoError(t, Set{g, FP32}.Activate(out, g.floats("y", y), g.floats("norm", norm), g.value("state", State{Step: step}), c.d, rows, c.channels, c.log))
		want := make([]sum, len(y))
		drops := 0
		for i, v := range y {
			ch, image := i%c.channels, c.d.First+i/c.channels>>(2*c.log)
			if dropped(c.d, step, image, ch) {
				drops++
				continue
			}
			a, b := float64(v)*float64(norm[ch]), float64(norm[shift*c.channels+ch])
			keep := 1 / (1 - float64(c.d.Probability))
			want[i] = sum{max(a+b, 0) * keep, (math.Abs(a) + math.Abs(b)) * keep}
		}
		assert.NoError(t, near(want, g.get(t, out), 4*0x1p-24))
		assert.Equal(t, c.d.Probability > 0, drops > 0)
		assert.Less(t, drops, len(y))
	}
}

func checkActivateGrad(t testing.TB) {
	for _, c := range []struct{ rows, channels int }{{1, 16}, {64, 16}, {100, 32}, {12, 128}} {
		rng := rand.New(rand.NewPCG(5, uint64(c.rows)))
		n := c.rows * c.channels
		grad, a, y, norm := random(rng, n), random(rng, n), random(rng, n), lines(rng, c.channels)
		d := Dropout{Probability: 0.25}
		g := newGPU(t)
		dy, sums := g.floats("g", grad), g.floats("sums", make([]float32, Tiles(c.rows)*3*c.channels))
		require.NoError(t, Set{g, FP32}.ActivateGrad(dy, sums, g.floats("a", a), g.floats("y", y), g.floats("norm", norm), d, c.rows, c.channels))
		want := make([]sum, n)
		for i := range want {
			if a[i] > 0 {
				want[i].add(float64(grad[i]) / 0.75)
			}
		}
		assert.NoError(t, near(want, g.get(t, dy), 2*0x1p-24))
		assert.NoError(t, near(tileSums(c.rows, c.channels, func(row, ch int) [3]float64 {
			v := want[row*c.channels+ch].v
			return [3]float64{v, v * (float64(y[row*c.channels+ch]) - float64(norm[mean*c.channels+ch])), 0}
		}), g.get(t, sums), 30*0x1p-24))
	}
}

// A joint is the end of a block with random values, none of which a ReLU is undecided on.
type joint struct {
	rows, channels int
	y, s           []float32
	norm, normS    []float32
	out            []sum // before the ReLU
}

func newJoint(seed uint64, rows, channels int) *joint {
	rng := rand.New(rand.NewPCG(seed, 6))
	n := rows * channels
	j := &joint{rows, channels, random(rng, n), random(rng, n), lines(rng, channels), lines(rng, channels), make([]sum, n)}
	for i := range n {
		c := i % channels
		for {
			j.out[i] = sum{}
			j.out[i].add(float64(j.y[i])*float64(j.norm[c]), float64(j.s[i])*float64(j.normS[c]),
				float64(j.norm[shift*channels+c]), float64(j.normS[shift*channels+c]))
			if math.Abs(j.out[i].v) > 1e-5*j.out[i].size {
				break
			}
			j.y[i]++
		}
	}
	return j
}

// relu is the block's output.
func (j *joint) relu(i int) sum { return sum{max(j.out[i].v, 0), j.out[i].size} }

// haarSign is the sign of pixel (y, x) of four in transform q.
func haarSign(q, y, x int) float64 { return 1 - 2*float64(((q&1)*x+(q>>1)*y)%2) }

func checkJoinHaar(t testing.TB) {
	for _, c := range []struct{ images, channels, log int }{{1, 16, 3}, {3, 32, 2}, {5, 64, 1}, {2, 4, 0}} {
		rows, side := c.images<<(2*c.log), 1<<c.log
		j := newJoint(uint64(c.log), 4*rows, c.channels)
		g := newGPU(t)
		x := g.room("x", rows*4*c.channels)
		require.NoError(t, Set{g, FP32}.JoinHaar(x, g.floats("y", j.y), g.floats("s", j.s), g.floats("norm", j.norm), g.floats("normS", j.normS),
			rows, c.channels, c.log))
		want := make([]sum, rows*4*c.channels)
		for i := range want {
			ch, q, row := i%c.channels, i/c.channels%4, i/c.channels/4
			image, py, px := row/side/side, row/side%side, row%side
			for k := range 4 {
				o := j.relu(((image*2*side+2*py+k/2)*2*side+2*px+k%2)*c.channels + ch)
				want[i].v += haarSign(q, k/2, k%2) * o.v / 2
				want[i].size += o.size / 2
			}
		}
		assert.NoError(t, near(want, g.get(t, x), 6*0x1p-24))
	}
}

func checkJoinGrad(t testing.TB) {
	for _, c := range []struct {
		images, channels, log int
		haar                  bool
	}{{1, 16, 4, true}, {3, 32, 2, true}, {5, 64, 1, true}, {3, 128, 1, false}, {17, 128, 1, false}} {
		rows, side := c.images<<(2*c.log), 1<<c.log
		j := newJoint(uint64(c.log), rows, c.channels)
		dx := random(rand.New(rand.NewPCG(9, 9)), rows*c.channels)
		g := newGPU(t)
		grad, sums := g.room("g", len(dx)), g.room("sums", Tiles(rows)*3*c.channels)
		require.NoError(t, Set{g, FP32}.JoinGrad(grad, sums, g.floats("dx", dx), g.floats("y", j.y), g.floats("s", j.s), g.floats("norm", j.norm),
			g.floats("normS", j.normS), rows, c.channels, c.log, c.haar))
		want := make([]sum, len(dx))
		for i := range want {
			if j.out[i].v < 0 {
				continue
			}
			if !c.haar {
				want[i].add(float64(dx[i]))
				continue
			}
			ch, row := i%c.channels, i/c.channels
			image, y, x := row/side/side, row/side%side, row%side
			small := (image*side/2+y/2)*side/2 + x/2
			for q := range 4 {
				want[i].add(haarSign(q, y%2, x%2) * float64(dx[(small*4+q)*c.channels+ch]) / 2)
			}
		}
		assert.NoError(t, near(want, g.get(t, grad), 4*0x1p-24))
		sizes := tileSums(rows, c.channels, func(row, ch int) [3]float64 {
			at := row*c.channels + ch
			return [3]float64{want[at].size, want[at].size * math.Abs(float64(j.y[at])-float64(j.norm[mean*c.channels+ch])),
				want[at].size * math.Abs(float64(j.s[at])-float64(j.normS[mean*c.channels+ch]))}
		})
		all := tileSums(rows, c.channels, func(row, ch int) [3]float64 {
			at := row*c.channels + ch
			v := want[at].v
			return [3]float64{v, v * (float64(j.y[at]) - float64(j.norm[mean*c.channels+ch])), v * (float64(j.s[at]) - float64(j.normS[mean*c.channels+ch]))}
		})
		for i := range all {
			all[i].size = sizes[i].v
		}
		assert.NoError(t, near(all, g.get(t, sums), 30*0x1p-24))
	}
}

func checkNormGrad(t testing.TB) {
	for _, rows := range []int{1, 64, 65, 128 * 64, 130*64 + 1} {
		for _, dot := range []int{1, 2} {
			const channels = 4
			rng := rand.New(rand.NewPCG(uint64(rows), 7))
			norm, sums, gamma := lines(rng, channels), random(rng, Tiles(rows)*3*channels), random(rng, channels)
			for c := range channels { // 1/sqrt(variance) is positive
				v := math.Float64bits(0.5 + rng.Float64())
				norm[inverse*channels+2*c], norm[inverse*channels+2*c+1] = math.Float32frombits(uint32(v)), math.Float32frombits(uint32(v>>32))
			}
			g := newGPU(t)
			n, dgamma, dbeta := g.floats("norm", norm), g.room("dgamma", channels), g.room("dbeta", channels)
			require.NoError(t, Set{g, FP32}.NormGrad(n, dgamma, dbeta, g.floats("sums", sums), g.floats("gamma", gamma), rows, channels, dot))
			got, gotGamma, gotBeta := g.get(t, n), g.get(t, dgamma), g.get(t, dbeta)
			for c, inv := range inverses(norm) {
				var s, p float64
				for tile := range Tiles(rows) {
					s += float64(sums[tile*3*channels+c])
					p += float64(sums[(tile*3+dot)*channels+c])
				}
				a := float64(gamma[c]) * inv
				y := -a * inv * inv * p / float64(rows)
				for i, pair := range [][2]float64{
					{s, float64(gotBeta[c])}, {p * inv, float64(gotGamma[c])}, {a, float64(got[gradG*channels+c])}, {y, float64(got[gradY*channels+c])},
					{-a*s/float64(rows) - y*float64(norm[mean*channels+c]), float64(got[gradC*channels+c])},
				} {
					require.InDelta(t, pair[0], pair[1], 1e-6*(math.Abs(pair[0])+1), "value %d of channel %d", i, c)
				}
			}
		}
	}
}

func checkNormApply(t testing.TB) {
	for _, c := range []struct{ rows, channels int }{{1, 4}, {65, 16}, {10, 128}} {
		rng := rand.New(rand.NewPCG(8, uint64(c.rows)))
		y, grad, norm := random(rng, c.rows*c.channels), random(rng, c.rows*c.channels), lines(rng, c.channels)
		g := newGPU(t)
		p := g.floats("y", y)
		require.NoError(t, Set{g, FP32}.NormApply(p, g.floats("g", grad), g.floats("norm", norm), c.rows, c.channels))
		want := make([]sum, len(y))
		for i := range want {
			ch := i % c.channels
			want[i].add(float64(grad[i])*float64(norm[gradG*c.channels+ch]), float64(y[i])*float64(norm[gradY*c.channels+ch]), float64(norm[gradC*c.channels+ch]))
		}
		assert.NoError(t, near(want, g.get(t, p), 2*0x1p-24))
	}
}
