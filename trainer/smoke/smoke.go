// Package smoke checks in seconds that a machine trains as it should: the kernels
// against float64, then a few epochs on a sample of Fashion-MNIST, whose losses
// must be the ones kept here, to the last bit; and that a GPU trains as the CPU does,
// within bounds. It needs no files and leaves none.
package smoke

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"

	sample "github.com/berthdev/berth/testdata/fashion-mnist-1000"
	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/gemm"
	"github.com/berthdev/berth/trainer/loop"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/report"
)

// goldenFile is what the training must give, on every machine. The flag -update of
// the test writes it.
//
//go:embed testdata/golden.json
var goldenFile []byte

// result is what a training gives.
type result struct {
	Losses     []float64          `json:"losses"` // of each step
	Epochs     []checkpoint.Epoch `json:"epochs"`
	Checkpoint string             `json:"checkpoint_sha256"` // of the state at the end
}

const (
	seed      = 1
	epochs    = 6
	batchSize = 50
	interrupt = 40 // steps after which the second training is interrupted: within an epoch
)

// A Check checks one thing, or several that belong together.
type Check func(context.Context) []report.Case

// Checks are the checks of the CPU, in the order in which to run them.
func Checks() []Check {
	return []Check{kernels, bits, resumed}
}

func kernels(context.Context) []report.Case {
	var cases []report.Case
	for _, c := range gemm.SelfCheck() {
		cases = append(cases, report.Case{Name: "kernel " + c.Name, Err: c.Err,
			Detail: fmt.Sprintf("largest error %.2f of what rounding allows", c.MaxErr)})
	}
	return cases
}

// bits trains on all cores.
func bits(ctx context.Context) []report.Case {
	c := report.Case{Name: "training on the sample gives the known bits"}
	workers := runtime.GOMAXPROCS(0)
	var got result
	_, c.Err = onCPU(ctx, workers, nil, 0, &got)
	c.Losses = got.Losses
	if c.Err == nil {
		c.Detail = fmt.Sprintf("%d steps with kernel %s and %d workers, loss %.4f to %.4f, test accuracy %.3f", len(got.Losses), nn.Kernel(), workers,
			got.Losses[0], got.Losses[len(got.Losses)-1], got.Epochs[len(got.Epochs)-1].TestAccuracy)
		c.Err = got.compare()
	}
	return []report.Case{c}
}

// resumed trains on one core, with an interruption.
func resumed(ctx context.Context) []report.Case {
	c := report.Case{Name: "training on one core, interrupted and resumed, gives the same bits"}
	var got result
	var at *checkpoint.Checkpoint
	if at, c.Err = onCPU(ctx, 1, nil, interrupt, &got); c.Err == nil {
		_, c.Err = onCPU(ctx, 1, at, 0, &got)
	}
	if c.Err == nil {
		c.Detail = fmt.Sprintf("interrupted after %d steps", interrupt)
		c.Err = got.compare()
	}
	return []report.Case{c}
}

var errStop = errors.New("stopped as planned")

// load returns the sample.
func load() (*data.Set, error) {
	set, err := data.Load(sample.Files, true)
	if err == nil && !set.Known() {
		err = errors.New("the sample in this program isn't as it was")
	}
	return set, err
}

// config is that of the networks that are trained.
func config(set *data.Set, workers int) nn.Config {
	return nn.Config{Channels: set.Channels, Classes: data.Classes, Seed: seed, Workers: workers, Dropout: 0.5}
}

// onCPU trains a new network.
func onCPU(ctx context.Context, workers int, from *checkpoint.Checkpoint, stop int64, got *result) (*checkpoint.Checkpoint, error) {
	set, err := load()
	if err != nil {
		return nil, err
	}
	network, err := nn.New(config(set, workers))
	if err != nil {
		return nil, err
	}
	return train(ctx, set, device.CPU(network), epochs, from, stop, got)
}

// train trains a network on the sample and adds to got what it gives, from a checkpoint
// that it encodes and decodes, if one is given. After stop steps, if not zero, it
// is interrupted. It returns the last checkpoint.
func train(ctx context.Context, set *data.Set, network device.Backend, epochs int, from *checkpoint.Checkpoint, stop int64,
	got *result) (last *checkpoint.Checkpoint, err error) {
	last = &checkpoint.Checkpoint{}
	if from != nil {
		var file bytes.Buffer
		if err := from.Encode(&file); err != nil {
			return nil, err
		}
		if last, err = checkpoint.Decode(file.Bytes()); err != nil {
			return nil, err
		}
		if err := network.Restore(last.State); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	progress, err := loop.Run(ctx, loop.Job{
		Network: network, Set: set, Seed: seed, Epochs: epochs, BatchSize: batchSize, Every: stop,
		Save: func(c *checkpoint.Checkpoint) { last = c },
		Watch: func(e loop.Event) {
			if e.Done {
				return
			}
			got.Losses = append(got.Losses, e.Loss)
			if network.Step() == stop {
				cancel(errStop)
			}
		},
	}, last.Progress)
	if stop > 0 && errors.Is(err, errStop) {
		return last, nil
	}
	if err != nil {
		return nil, err
	}
	got.Epochs = progress.Epochs
	sum := sha256.New()
	if err := last.Encode(sum); err != nil {
		return nil, err
	}
	got.Checkpoint = hex.EncodeToString(sum.Sum(nil))
	return last, nil
}

// compare names the first difference from what is known.
func (got *result) compare() error {
	var want result
	if err := json.Unmarshal(goldenFile, &want); err != nil {
		return err
	}
	if len(got.Losses) != len(want.Losses) || len(got.Epochs) != len(want.Epochs) {
		return fmt.Errorf("%d steps in %d epochs, want %d in %d", len(got.Losses), len(got.Epochs), len(want.Losses), len(want.Epochs))
	}
	for i, loss := range want.Losses {
		if got.Losses[i] != loss {
			return fmt.Errorf("the loss of step %d is %v, want %v", i+1, got.Losses[i], loss)
		}
	}
	for i, e := range want.Epochs {
		if got.Epochs[i] != e {
			return fmt.Errorf("epoch %d gave %+v, want %+v", i+1, got.Epochs[i], e)
		}
	}
	if got.Checkpoint != want.Checkpoint {
		return fmt.Errorf("the state after the last step has SHA-256 %s, want %s", got.Checkpoint, want.Checkpoint)
	}
	return nil
}
