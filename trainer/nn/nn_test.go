package nn

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/gemm"
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

// sum hashes the bits of a state.
func (s State) sum() uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, s.Step, s.Seed)
	for _, t := range s.Tensors {
		fmt.Fprint(h, t.Name, t.Shape)
		for _, v := range t.Data {
			b := math.Float32bits(v)
			h.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
		}
	}
	return h.Sum64()
}

// train takes steps from, from+1, ... to-1 with batches of sizes that do not
// fill the parts of a phase, and returns the losses.
func train(t testing.TB, n *Network, from, to int) []float64 {
	var losses []float64
	for i := from; i < to; i++ {
		x, y := batch(uint64(i), 21-3*(i%2), n.cfg.Channels, n.cfg.Classes)
		loss, _, err := n.TrainStep(x, y)
		require.NoError(t, err)
		losses = append(losses, loss)
	}
	return losses
}

func TestNumParameters(t *testing.T) {
	assert.Equal(t, 634410, newNetwork(t, Config{Channels: 3, Classes: 10}).NumParameters())
	// Eight input channels fewer in the first block's conv3x3 and conv1x1.
	assert.Equal(t, 634410-8*16*(9+1), newNetwork(t, Config{Channels: 1, Classes: 10}).NumParameters())
}

func TestLearnsABatchByHeart(t *testing.T) {
	n := newNetwork(t, Config{Channels: 3, Classes: 10, Seed: 1})
	x, y := batch(1, 40, 3, 10)
	first, _, err := n.TrainStep(x, y)
	require.NoError(t, err)
	assert.InDelta(t, math.Log(10), first, 1)
	var loss float64
	var correct int
	for range 15 {
		loss, correct, err = n.TrainStep(x, y)
		require.NoError(t, err)
	}
	assert.Less(t, loss, 0.05)
	assert.Equal(t, 40, correct)
}

func TestSameBitsWithAnyNumberOfWorkers(t *testing.T) {
	cfg := Config{Channels: 3, Classes: 10, Seed: 2, Dropout: 0.5, Workers: 1}
	one := newNetwork(t, cfg)
	losses := train(t, one, 0, 4)
	x, y := batch(9, 300, 3, 10)
	loss, correct, err := one.Evaluate(x, y)
	require.NoError(t, err)
	for _, workers := range []int{2, 3, 16} {
		cfg.Workers = workers
		n := newNetwork(t, cfg)
		assert.Equal(t, losses, train(t, n, 0, 4), "%d workers", workers)
		l, c, err := n.Evaluate(x, y)
		require.NoError(t, err)
		assert.Equal(t, loss, l)
		assert.Equal(t, correct, c)
		assert.Equal(t, one.State().sum(), n.State().sum(), "%d workers", workers)
	}
}

func TestSameBitsWithAnyKernel(t *testing.T) {
	before := gemm.Kernel()
	defer func() { require.NoError(t, gemm.Select(before)) }()
	var losses [][]float64
	var sums []uint64
	for _, k := range gemm.Kernels() {
		require.NoError(t, gemm.Select(k))
		assert.Equal(t, k, Kernel())
		n := newNetwork(t, Config{Channels: 3, Classes: 10, Seed: 3, Dropout: 0.3})
		losses = append(losses, train(t, n, 1, 2))
		sums = append(sums, n.State().sum())
	}
	for i := range sums {
		assert.Equal(t, losses[0], losses[i], gemm.Kernels()[i])
		assert.Equal(t, sums[0], sums[i], gemm.Kernels()[i])
	}
}

// The same bits on every machine: a change here means that results of
// earlier versions can no longer be reproduced, and must be told.
func TestBitsAreThoseOfEarlierVersions(t *testing.T) {
	n := newNetwork(t, Config{Channels: 1, Classes: 10, Seed: 4, Dropout: 0.5})
	assert.Equal(t, earlier.initial, n.State().sum())
	losses := train(t, n, 0, 3)
	assert.Equal(t, earlier.losses, losses)
	assert.Equal(t, earlier.trained, n.State().sum())
}

var earlier = struct {
	initial, trained uint64
	losses           []float64
}{
	initial: 0x4e05ea3271790b3b,
	trained: 0x786ac721c4e5da55,
	losses:  []float64{2.379783004493965, 2.4938989586053744, 2.2973880393176476},
}

func TestSeedsDiffer(t *testing.T) {
	a := newNetwork(t, Config{Channels: 1, Classes: 10, Seed: 1})
	b := newNetwork(t, Config{Channels: 1, Classes: 10, Seed: 2})
	assert.NotEqual(t, a.State().Tensors[0].Data, b.State().Tensors[0].Data)
}

func TestNewRefusesBadConfigs(t *testing.T) {
	nan := float32(math.NaN())
	for want, cfg := range map[string]Config{
		"2 channels":      {Channels: 2, Classes: 10},
		"1 classes":       {Channels: 1, Classes: 1},
		"257 classes":     {Channels: 1, Classes: 257},
		"learning rate":   {Channels: 1, Classes: 10, LR: -1},
		"rate NaN":        {Channels: 1, Classes: 10, LR: nan},
		"probability 1":   {Channels: 1, Classes: 10, Dropout: 1},
		"probability NaN": {Channels: 1, Classes: 10, Dropout: nan},
		"-1 workers":      {Channels: 1, Classes: 10, Workers: -1},
	} {
		_, err := New(cfg)
		require.Error(t, err, want)
		assert.Contains(t, err.Error(), want)
	}
}

func TestStepDoesNotAllocate(t *testing.T) {
	for _, workers := range []int{1, 3} {
		n := newNetwork(t, Config{Channels: 1, Classes: 10, Dropout: 0.5, Workers: workers})
		x, y := batch(1, 20, 1, 10)
		step := func() {
			_, _, err := n.TrainStep(x, y)
			require.NoError(t, err)
		}
		assert.Zero(t, testing.AllocsPerRun(3, step))
		// Between the steps of an epoch and its last, shorter one.
		assert.Zero(t, testing.AllocsPerRun(3, func() {
			_, _, err := n.TrainStep(x[:17*Size*Size], y[:17])
			require.NoError(t, err)
			step()
		}))
	}
}

func TestWorkersEndWithTheNetwork(t *testing.T) {
	n := newNetwork(t, Config{Channels: 1, Classes: 10, Workers: 50})
	x, y := batch(1, 4, 1, 10)
	_, _, err := n.TrainStep(x, y)
	require.NoError(t, err)
	assert.Greater(t, runtime.NumGoroutine(), 49)
	runtime.KeepAlive(n)
	assert.Eventually(t, func() bool {
		runtime.GC()
		return runtime.NumGoroutine() < 49
	}, 20*time.Second, 10*time.Millisecond)
}

func TestDropoutRate(t *testing.T) {
	n := newNetwork(t, Config{Channels: 1, Classes: 10, Dropout: 0.25, Seed: 11})
	const images = 200
	x, y := batch(1, images, 1, 10)
	_, _, err := n.TrainStep(x, y)
	require.NoError(t, err)
	for _, b := range n.blocks {
		var dropped, total float64
		for p := range b.conv2.in {
			for i := range images {
				rows := b.a1.Plane(p, i*b.pixels, b.pixels)
				for lane := range gemm.Lanes {
					alive := false
					for r := range b.pixels {
						alive = alive || rows[r*gemm.Lanes+lane] != 0
					}
					// ReLU alone silences a channel of few pixels now and
					// then; of 64 or more, dropout does.
					if !alive {
						dropped++
					}
					total++
				}
			}
		}
		if b.pixels >= 64 {
			sigma := math.Sqrt(0.25 * 0.75 / total)
			assert.InDelta(t, 0.25, dropped/total, 4*sigma, "block %d", b.index+1)
		}
	}
}

func TestInitialValues(t *testing.T) {
	n := newNetwork(t, Config{Channels: 3, Classes: 10, Seed: 12})
	for _, p := range n.params.list {
		w := p.export(p.w)
		if p.fanIn == 0 {
			for _, v := range w {
				require.Equal(t, p.fill, v, p.name)
			}
			continue
		}
		bound := 1 / math.Sqrt(float64(p.fanIn))
		var mean, square float64
		for _, v := range w {
			require.LessOrEqual(t, math.Abs(float64(v)), bound*(1+1e-7), p.name)
			mean += float64(v) / float64(len(w))
			square += float64(v) * float64(v) / float64(len(w))
		}
		if len(w) > 100 {
			// Of a uniform distribution: mean 0, variance bound²/3.
			assert.InDelta(t, 0, mean/bound, 4/math.Sqrt(3*float64(len(w))), p.name)
			assert.InDelta(t, 1, square/(bound*bound/3), 4/math.Sqrt(float64(len(w))), p.name)
		}
	}
}

func TestPaddingStaysZero(t *testing.T) {
	n := newNetwork(t, Config{Channels: 3, Classes: 10, Seed: 13, Dropout: 0.5})
	train(t, n, 0, 3)
	for _, p := range n.params.list {
		used := make([]bool, len(p.w))
		for i := range p.size() {
			require.False(t, used[p.index(i)], "%s: two values in one place", p.name)
			used[p.index(i)] = true
		}
		for i, v := range p.w {
			if !used[i] {
				require.Zero(t, v, p.name)
				require.Zero(t, p.m[i], p.name)
			}
		}
	}
}
