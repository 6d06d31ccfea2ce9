package loop

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/nn"
)

// holder is a network on the CPU that holds its data set, as one on a GPU does.
type holder struct {
	device.Backend
	calls *[]int // steps that were asked for at once
}

type held struct {
	holder
	train, test *data.Loader
}

func (h holder) Load(set *data.Set, batch int, seed uint64) (device.Resident, error) {
	return held{h, data.NewLoader(set, batch, true, seed), data.NewLoader(set, batch, false, 0)}, nil
}

func (h held) Train(epoch, first, batches int, s nn.Sums) (nn.Sums, error) {
	*h.calls = append(*h.calls, batches)
	for images, labels := range h.train.Epoch(epoch, first) {
		if batches == 0 {
			break
		}
		batches--
		loss, correct, err := h.TrainStep(images, labels)
		if err != nil {
			return s, err
		}
		s = nn.Sums{Loss: s.Loss + float64(loss*float64(len(labels))), Correct: s.Correct + correct, Images: s.Images + len(labels)}
		if s.NotFinite = notFinite(loss); s.NotFinite {
			return s, nil
		}
	}
	return s, nil
}

func (h held) Test() (s nn.Sums, err error) {
	for images, labels := range h.test.Epoch(0, 0) {
		loss, correct, err := h.Evaluate(images, labels)
		if err != nil {
			return s, err
		}
		s = nn.Sums{Loss: s.Loss + loss, Correct: s.Correct + correct, Images: s.Images + len(labels)}
	}
	return s, nil
}

// holding is a job on such a network.
func holding(t *testing.T, lr float32) (Job, *[]int) {
	j := job(t, 2, lr)
	calls := new([]int)
	j.Network = holder{j.Network, calls}
	return j, calls
}

// TestResident takes the same steps, an epoch at once, and gives the same checkpoint.
func TestResident(t *testing.T) {
	want, _ := uninterrupted(t, 2)
	j, calls := holding(t, 0)
	var last *checkpoint.Checkpoint
	var events []Event
	j.Save = func(c *checkpoint.Checkpoint) { last = c }
	j.Watch = func(e Event) { events = append(events, e) }
	_, err := Run(t.Context(), j, checkpoint.Progress{})
	require.NoError(t, err)
	assert.Equal(t, want, encode(t, last))
	assert.Equal(t, []int{batches, batches}, *calls)
	require.Len(t, events, 4)
	assert.Equal(t, []int{0, batches, batches, 50}, []int{events[0].Epoch, events[0].Batch, events[0].Batches, events[0].Images})
	assert.Equal(t, events[0].Progress.LossSum/50, events[0].Loss)
	assert.True(t, events[1].Done)
}

// TestResidentStopsWhereCheckpointsAreWanted, and goes on from there after an interruption.
func TestResidentStopsWhereCheckpointsAreWanted(t *testing.T) {
	want, _ := uninterrupted(t, 2)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	j, calls := holding(t, 0)
	j.Every = 2
	var last *checkpoint.Checkpoint
	var steps []int64
	j.Save = func(c *checkpoint.Checkpoint) { last, steps = c, append(steps, c.State.Step) }
	j.Watch = func(e Event) {
		if j.Network.Step() == 4 {
			cancel(stop)
		}
	}
	_, err := Run(ctx, j, checkpoint.Progress{})
	require.ErrorIs(t, err, stop)
	_, err = Run(t.Context(), j, last.Progress)
	require.NoError(t, err)
	assert.Equal(t, []int{2, 1, 1, 2}, *calls)
	assert.Equal(t, []int64{2, 3, 4, 6, 6}, steps)
	assert.Equal(t, want, encode(t, last))
}

func TestResidentDiverges(t *testing.T) {
	j := job(t, 2, math.MaxFloat32)
	_, err := Run(t.Context(), j, checkpoint.Progress{})
	var want, got *NotFinite
	require.ErrorAs(t, err, &want)
	j, _ = holding(t, math.MaxFloat32)
	_, err = Run(t.Context(), j, checkpoint.Progress{})
	require.ErrorAs(t, err, &got)
	assert.Equal(t, []int64{int64(want.Batch), want.Step}, []int64{int64(got.Batch), got.Step})
	assert.True(t, notFinite(got.Loss))
}
