package cuda

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// set makes a small one.
func set(train, test int) *data.Set {
	rng := rand.New(rand.NewPCG(20, 21))
	split := func(n int) data.Split {
		s := data.Split{Pixels: make([]byte, n*28*28), Labels: make([]byte, n)}
		for i := range s.Pixels {
			s.Pixels[i] = byte(rng.Uint32())
		}
		for i := range s.Labels {
			s.Labels[i] = byte(rng.IntN(10))
		}
		return s
	}
	return &data.Set{Channels: 1, Height: 28, Width: 28, Train: split(train), Test: split(test)}
}

func TestLoadRefusesWhatDoesNotFit(t *testing.T) {
	d := newInterpreter(t)
	n, err := New([]Device{d}, nn.Config{Channels: 3, Classes: 10}, kernels.FP32)
	require.NoError(t, err)
	_, err = n.Load(set(1, 1), 1, 0)
	assert.ErrorContains(t, err, "images of 1 channels for a network for 3")
	d.limit = 1
	_, err = n.Load(&data.Set{Channels: 3, Height: 1, Width: 1, Train: data.Split{Pixels: make([]byte, 3), Labels: make([]byte, 1)}}, 1, 0)
	assert.ErrorIs(t, err, errMemory)
	assert.ErrorContains(t, err, "data set of 1 and 0 images: 3 bytes for pixels")
}

// recorder records nothing but that it records, and how often the host waits.
type recorder struct {
	*interpreter
	made, destroyed, reads int
}

func (r *recorder) Read(data []byte, from kernels.Pointer) error {
	r.reads++
	return r.interpreter.Read(data, from)
}

func (r *recorder) Record(func() error) (Recording, error) {
	r.made++
	return recorded{r}, nil
}

type recorded struct{ *recorder }

func (r recorded) Replay() error { return nil }

func (r recorded) Destroy() error {
	r.destroyed++
	return nil
}

// TestRecordingsAreDestroyed once they are of no more use: with another learning rate, or
// when memory for a batch moves.
func TestRecordingsAreDestroyed(t *testing.T) {
	t.Parallel()
	d := &recorder{interpreter: newInterpreter(t)}
	n, err := New([]Device{d}, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	require.NoError(t, err)
	r, err := n.Load(set(5, 3), 2, 0)
	require.NoError(t, err)
	train := func(made, destroyed int) {
		t.Helper()
		d.reads = 0
		_, err := r.Train(0, 0, 9, nn.Sums{})
		require.NoError(t, err)
		_, err = r.Test()
		require.NoError(t, err)
		assert.Equal(t, 2, d.reads, "one wait each")
		assert.Equal(t, []int{made, destroyed}, []int{d.made, d.destroyed})
	}
	train(4, 0) // two sizes of batches each
	train(4, 0)
	s, err := n.State()
	require.NoError(t, err)
	s.Config.LR = 2e-3
	require.NoError(t, n.Restore(s))
	train(8, 4)
	require.NoError(t, n.reserve(3))
	train(12, 8)
}
