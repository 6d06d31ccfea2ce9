// Package loop trains a network on a data set, epoch by epoch. It decides what
// comes after what, and nothing else: it prints nothing, opens no files and
// knows no device by name.
package loop

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
)

// A Job is what to train, and how.
type Job struct {
	Network   device.Backend
	Set       *data.Set
	Seed      uint64
	Epochs    int
	BatchSize int
	Every     int64 // save after every so many steps, beside every epoch; 0: never

	// Save keeps a checkpoint. Its error does not stop the training: the next
	// one may work. Save is called once an epoch is evaluated, every Every
	// steps, and when the context ends.
	Save func(*checkpoint.Checkpoint)
	// Watch hears of every step and, with Done, of every finished epoch.
	Watch func(Event)
}

// An Event is a step that was just taken, or an epoch that was just finished.
type Event struct {
	Epoch    int // from 0
	Batch    int // of this epoch, from 1
	Batches  int // in an epoch
	Images   int // in this step
	Loss     float64
	Progress checkpoint.Progress // with this step in it
	Done     bool
}

// A NotFinite error says that the loss became NaN or infinite. The checkpoint
// written last is from before.
type NotFinite struct {
	Loss    float64
	Epoch   int // from 1
	Batch   int // of the epoch, from 1
	Step    int64
	Testing bool // on the test images, after the epoch
}

func (e *NotFinite) Error() string {
	where := fmt.Sprintf("batch %d of epoch %d (step %d)", e.Batch, e.Epoch, e.Step)
	if e.Testing {
		where = fmt.Sprintf("the test after epoch %d (step %d)", e.Epoch, e.Step)
	}
	return fmt.Sprintf("the loss is %v in %s: the training has diverged. Try a smaller --lr", e.Loss, where)
}

// Run trains from where progress and the network's step stand until all epochs
// are done, and returns the progress then. If the context ends it finishes the
// step, saves, and returns the context's cause. The same job from the same state
// takes the same steps, whatever was saved or interrupted before.
func Run(ctx context.Context, j Job, p checkpoint.Progress) (checkpoint.Progress, error) {
	train := data.NewLoader(j.Set, j.BatchSize, true, j.Seed)
	test := data.NewLoader(j.Set, j.BatchSize, false, 0)
	batches := train.Batches()
	save := func() error {
		state, err := j.Network.State()
		if err != nil {
			return err
		}
		j.Save(&checkpoint.Checkpoint{
			Run:      checkpoint.Run{Data: j.Set.Name, DataSHA256: j.Set.SHA256, BatchSize: j.BatchSize},
			Progress: p,
			State:    state,
		})
		return nil
	}
	for len(p.Epochs) < j.Epochs {
		epoch := len(p.Epochs)
		done := int(j.Network.Step() - int64(epoch)*int64(batches))
		if done < 0 || done > batches || p.Images != min(done*j.BatchSize, j.Set.Train.Len()) {
			return p, fmt.Errorf("%d epochs, %d images of the next and %d steps don't fit together, with %d images in batches of %d: the checkpoint is of another run",
				epoch, p.Images, j.Network.Step(), j.Set.Train.Len(), j.BatchSize)
		}
		for images, labels := range train.Epoch(epoch, done) {
			loss, correct, err := j.Network.TrainStep(images, labels)
			if err != nil {
				return p, err
			}
			done++
			if notFinite(loss) {
				return p, &NotFinite{loss, epoch + 1, done, j.Network.Step(), false}
			}
			p.LossSum += loss * float64(len(labels))
			p.Correct += correct
			p.Images += len(labels)
			j.Watch(Event{Epoch: epoch, Batch: done, Batches: batches, Images: len(labels), Loss: loss, Progress: p})
			if ctx.Err() != nil {
				return p, cmp.Or(save(), context.Cause(ctx))
			}
			if j.Every > 0 && j.Network.Step()%j.Every == 0 {
				if err := save(); err != nil {
					return p, err
				}
			}
		}
		var sum float64
		var right int
		for images, labels := range test.Epoch(epoch, 0) {
			loss, correct, err := j.Network.Evaluate(images, labels)
			if err != nil {
				return p, err
			}
			if notFinite(loss) {
				return p, &NotFinite{loss, epoch + 1, 0, j.Network.Step(), true}
			}
			sum += loss
			right += correct
			if ctx.Err() != nil {
				return p, cmp.Or(save(), context.Cause(ctx)) // resuming tests this epoch from the start
			}
		}
		tested := float64(j.Set.Test.Len())
		p = checkpoint.Progress{Epochs: append(p.Epochs[:epoch:epoch], checkpoint.Epoch{
			TrainLoss:     p.LossSum / float64(p.Images),
			TrainAccuracy: float64(p.Correct) / float64(p.Images),
			TestLoss:      sum / tested,
			TestAccuracy:  float64(right) / tested,
		})}
		if err := save(); err != nil {
			return p, err
		}
		j.Watch(Event{Epoch: epoch, Batch: batches, Batches: batches, Progress: p, Done: true})
	}
	return p, nil
}

func notFinite(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
