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
	"github.com/berthdev/berth/trainer/nn"
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

// An Event is a step that was just taken, or several, or an epoch that was just finished.
type Event struct {
	Epoch    int                 // from 0
	Batch    int                 // of this epoch, from 1: the last one of the steps
	Batches  int                 // in an epoch
	Images   int                 // in the steps
	Loss     float64             // their mean
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
//
// A network that is a [device.Loader] takes the steps of an epoch at once, so that
// then an event is that of several steps, and the end of the context waits for them.
func Run(ctx context.Context, j Job, p checkpoint.Progress) (checkpoint.Progress, error) {
	train, err := j.source()
	if err != nil {
		return p, err
	}
	batches := (j.Set.Train.Len() + j.BatchSize - 1) / j.BatchSize
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
		before := nn.Sums{Loss: p.LossSum, Correct: p.Correct, Images: p.Images}
		err := train.train(epoch, done, before, func(steps int, loss float64, s nn.Sums) error {
			if s.NotFinite || notFinite(loss) {
				bad := int(j.Network.Step()-int64(epoch)*int64(batches)) + 1
				return &NotFinite{loss, epoch + 1, bad, j.Network.Step(), false}
			}
			done += steps
			taken := s.Images - p.Images
			p.LossSum, p.Correct, p.Images = s.Loss, s.Correct, s.Images
			j.Watch(Event{Epoch: epoch, Batch: done, Batches: batches, Images: taken, Loss: loss, Progress: p})
			if ctx.Err() != nil {
				return cmp.Or(save(), context.Cause(ctx))
			}
			if j.Every > 0 && j.Network.Step()%j.Every == 0 {
				return save()
			}
			return nil
		})
		if err != nil {
			return p, err
		}
		var sum float64
		var right int
		err = train.test(epoch, func(s nn.Sums) error {
			if s.NotFinite || notFinite(s.Loss) {
				return &NotFinite{s.Loss, epoch + 1, 0, j.Network.Step(), true}
			}
			sum += s.Loss
			right += s.Correct
			if ctx.Err() != nil {
				return cmp.Or(save(), context.Cause(ctx)) // resuming tests this epoch from the start
			}
			return nil
		})
		if err != nil {
			return p, err
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

// A source has a data set, and a network to take it through.
type source interface {
	// train takes the steps of an epoch from its batch first on; before are the sums of the
	// images until then. After one step or several it calls f with how many these were, their
	// mean loss, and the sums of the epoch so far. It stops at an error.
	train(epoch, first int, before nn.Sums, f func(steps int, loss float64, s nn.Sums) error) error
	// test evaluates the test images, and calls f for each part of them.
	test(epoch int, f func(nn.Sums) error) error
}

func (j Job) source() (source, error) {
	loader, ok := j.Network.(device.Loader)
	if !ok {
		return hosted{
			j.Network, data.NewLoader(j.Set, j.BatchSize, true, j.Seed), data.NewLoader(j.Set, j.BatchSize, false, 0),
		}, nil
	}
	r, err := loader.Load(j.Set, j.BatchSize, j.Seed)
	return resident{r, j}, err
}

// hosted hands the network a batch at a time.
type hosted struct {
	network         device.Backend
	training, tests *data.Loader
}

func (h hosted) train(epoch, first int, s nn.Sums, f func(int, float64, nn.Sums) error) error {
	for images, labels := range h.training.Epoch(epoch, first) {
		loss, correct, err := h.network.TrainStep(images, labels)
		if err == nil {
			s.Loss += float64(loss * float64(len(labels))) // never fused, or processors would differ
			s.Correct += correct
			s.Images += len(labels)
			err = f(1, loss, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h hosted) test(epoch int, f func(nn.Sums) error) error {
	for images, labels := range h.tests.Epoch(epoch, 0) {
		loss, correct, err := h.network.Evaluate(images, labels)
		if err == nil {
			err = f(nn.Sums{Loss: loss, Correct: correct, Images: len(labels)})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resident has the network take the steps of an epoch at once, up to where a checkpoint is
// wanted.
type resident struct {
	device.Resident
	job Job
}

func (r resident) train(epoch, first int, s nn.Sums, f func(int, float64, nn.Sums) error) error {
	j := r.job
	batches := (j.Set.Train.Len() + j.BatchSize - 1) / j.BatchSize
	for first < batches {
		steps := batches - first
		if j.Every > 0 {
			steps = min(steps, int(j.Every-j.Network.Step()%j.Every))
		}
		before := s
		var err error
		if s, err = r.Train(epoch, first, steps, before); err == nil {
			err = f(steps, (s.Loss-before.Loss)/float64(s.Images-before.Images), s)
		}
		if err != nil {
			return err
		}
		first += steps
	}
	return nil
}

func (r resident) test(_ int, f func(nn.Sums) error) error {
	s, err := r.Test()
	if err != nil {
		return err
	}
	return f(s)
}

func notFinite(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) }
