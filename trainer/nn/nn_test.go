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
