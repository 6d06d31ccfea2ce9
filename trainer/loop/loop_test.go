package loop

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	sample "github.com/berthdev/berth/testdata/fashion-mnist-1000"
	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/nn"
)

// small is a set of 50 + 30 images: 3 batches of 20, the last of 10.
func small(t *testing.T) *data.Set {
	set, err := data.Load(sample.Files, true)
	require.NoError(t, err)
	cut := func(s data.Split, n int) data.Split {
		return data.Split{Pixels: s.Pixels[:n*28*28], Labels: s.Labels[:n]}
	}
	set.Train, set.Test = cut(set.Train, 50), cut(set.Test, 30)
	return set
}

const (
	batches = 3
	epochs  = 2
)

func job(t *testing.T, workers int, lr float32) Job {
	n, err := nn.New(nn.Config{Channels: 1, Classes: 10, Seed: 2, Workers: workers, LR: lr, Dropout: 0.5})
	require.NoError(t, err)
	return Job{
		Network: device.CPU(n), Set: small(t), Seed: 2, Epochs: epochs, BatchSize: 20,
		Save: func(*checkpoint.Checkpoint) {}, Watch: func(Event) {},
	}
}

func encode(t *testing.T, c *checkpoint.Checkpoint) []byte {
	var b bytes.Buffer
	require.NoError(t, c.Encode(&b))
	return b.Bytes()
}

// uninterrupted trains in one go, and returns the last checkpoint and all events.
func uninterrupted(t *testing.T, workers int) ([]byte, []Event) {
	var last *checkpoint.Checkpoint
	var events []Event
	j := job(t, workers, 0)
	j.Save = func(c *checkpoint.Checkpoint) { last = c }
	j.Watch = func(e Event) { events = append(events, e) }
	p, err := Run(t.Context(), j, checkpoint.Progress{})
	require.NoError(t, err)
	assert.Len(t, p.Epochs, epochs)
	assert.Equal(t, p, last.Progress)
	return encode(t, last), events
}

func TestEvents(t *testing.T) {
	_, events := uninterrupted(t, 1)
	require.Len(t, events, epochs*(batches+1))
	sum, images := 0.0, 0
	for i, e := range events[:batches] {
		sum += float64(e.Loss * float64(e.Images)) // never fused, as in Run
		images += e.Images
		assert.Equal(t, []int{0, i + 1, batches, images}, []int{e.Epoch, e.Batch, e.Batches, e.Progress.Images})
		assert.Equal(t, sum, e.Progress.LossSum)
		assert.False(t, e.Done)
	}
	assert.Equal(t, 10, events[batches-1].Images, "the last batch has what is left")
	done := events[batches]
	assert.True(t, done.Done)
	require.Len(t, done.Progress.Epochs, 1)
	assert.Equal(t, sum/50, done.Progress.Epochs[0].TrainLoss)
	assert.Zero(t, done.Progress.Images, "sums start anew")
	last := events[len(events)-1].Progress
	assert.Less(t, last.Epochs[1].TrainLoss, last.Epochs[0].TrainLoss, "it learns")
}

// TestInterruptAnywhere interrupts after every single step and resumes with another number of workers: same bits.
func TestInterruptAnywhere(t *testing.T) {
	want, events := uninterrupted(t, 2)
	stop := errors.New("stop")
	var from *checkpoint.Checkpoint
	var got []Event
	for run := 0; ; run++ {
		require.Less(t, run, 2*len(events))
		ctx, cancel := context.WithCancelCause(t.Context())
		j := job(t, 1+run%2, 0)
		p := checkpoint.Progress{}
		if from != nil {
			restored, err := checkpoint.Decode(encode(t, from))
			require.NoError(t, err)
			require.NoError(t, j.Network.Restore(restored.State))
			p = restored.Progress
		}
		j.Save = func(c *checkpoint.Checkpoint) { from = c }
		j.Watch = func(e Event) {
			got = append(got, e)
			if !e.Done {
				cancel(stop)
			}
		}
		_, err := Run(ctx, j, p)
		cancel(nil)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, stop)
	}
	assert.Equal(t, events, got)
	assert.Equal(t, want, encode(t, from))
}

// stopInTest interrupts when the network is first evaluated.
type stopInTest struct {
	device.Backend
	cancel func()
}

func (s stopInTest) Evaluate(images []float32, labels []uint8) (float64, int, error) {
	s.cancel()
	return s.Backend.Evaluate(images, labels)
}

func TestInterruptTest(t *testing.T) {
	want, _ := uninterrupted(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	j := job(t, 2, 0)
	network := j.Network
	j.Network = stopInTest{network, cancel}
	var last *checkpoint.Checkpoint
	j.Save = func(c *checkpoint.Checkpoint) { last = c }
	_, err := Run(ctx, j, checkpoint.Progress{})
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, last.Progress.Epochs)
	assert.Equal(t, 50, last.Progress.Images)
	assert.EqualValues(t, batches, last.State.Step)

	j.Network = network
	_, err = Run(t.Context(), j, last.Progress)
	require.NoError(t, err)
	assert.Equal(t, want, encode(t, last))
}

func TestEvery(t *testing.T) {
	j := job(t, 2, 0)
	j.Every = 4
	var steps []int64
	j.Save = func(c *checkpoint.Checkpoint) { steps = append(steps, c.State.Step) }
	_, err := Run(t.Context(), j, checkpoint.Progress{})
	require.NoError(t, err)
	assert.Equal(t, []int64{3, 4, 6}, steps)
}

// TestDivergence trains with an absurd rate, until the loss is a number no more.
func TestDivergence(t *testing.T) {
	j := job(t, 2, math.MaxFloat32)
	saved := 0
	j.Save = func(c *checkpoint.Checkpoint) { saved++ }
	_, err := Run(t.Context(), j, checkpoint.Progress{})
	var diverged *NotFinite
	require.ErrorAs(t, err, &diverged)
	assert.Equal(t, 1, diverged.Epoch)
	assert.EqualValues(t, diverged.Batch-1, diverged.Step, "no step was taken with that loss")
	assert.False(t, diverged.Testing)
	assert.Zero(t, saved)
	assert.ErrorContains(t, err, "Try a smaller --lr")
}

func TestContradiction(t *testing.T) {
	for name, p := range map[string]checkpoint.Progress{
		"an epoch but no steps":  {Epochs: make([]checkpoint.Epoch, 1)},
		"images, but no steps":   {Images: 8},
		"more images than there": {Images: 51},
	} {
		_, err := Run(t.Context(), job(t, 1, 0), p)
		assert.ErrorContains(t, err, "the checkpoint is of another run", name)
	}
}
