package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExpAndLnAgainstMath(t *testing.T) {
	rng := rand.New(rand.NewPCG(40, 41))
	for range 100_000 {
		x := -math.Pow(10, 3.2*rng.Float64()-1)
		if want := math.Exp(x); want > 1e-300 {
			require.InEpsilon(t, want, exp(x), 1e-15, "exp(%v)", x)
		}
		y := 1 + 300*rng.Float64()*rng.Float64()
		require.InDelta(t, math.Log(y), ln(y), 1e-15*(1+math.Log(y)), "ln(%v)", y)
	}
	assert.Equal(t, 1.0, exp(0))
	assert.Zero(t, exp(-1000))
	assert.Zero(t, ln(1))
	for _, v := range []float64{math.NaN(), math.Inf(-1)} {
		assert.True(t, math.IsNaN(exp(v)))
	}
	assert.True(t, math.IsNaN(ln(math.NaN())))
	assert.True(t, math.IsInf(ln(math.Inf(1)), 1))
}

func TestPow(t *testing.T) {
	for n := range int64(200) {
		assert.InEpsilon(t, math.Pow(0.999, float64(n)), pow(0.999, n), 1e-14)
	}
}

func TestStreamsDifferInEveryKey(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(4) {
		for step := range uint64(10) {
			for layer := range uint64(4) {
				for sample := range uint64(100) {
					s := stream(seed, step, layer, sample)
					require.False(t, seen[s])
					seen[s] = true
				}
			}
		}
	}
}
