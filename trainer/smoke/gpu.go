package smoke

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/report"
)

// Bounds on the distance of a GPU's results from the CPU's, relative. Every step begins with
// the CPU's state for the first two, so that what is left is one step's rounding.
//
// Factors that are rounded to b bits of fraction put a dot product off by about e = 0.3/2^b
// of its standard deviation (half a unit at most in each factor, evenly distributed); the
// l-th of the eight convolutions in a row by e√l. For tf32 b is 10, so that e is 3e-4; for
// fp32 sums in another order make e about 1e-7.
//
// Losses move in proportion to e. Gradients move by its root: a value that is e off has
// another sign with probability e/π (two Gaussians), and there a ReLU passes what it should
// stop, or stops it. Half of the values pass, so such a ReLU moves the gradient by √(2e√l/π)
// of its length, and all eight by √(10e): 0.055 for tf32, 0.001 for fp32.
//
// Measured with the kernels on the host, over 4 seeds for tf32 and 6 for fp32, at most: losses
// 1e-4 and 3e-7, gradients 0.064 and 0.0034. (With fp32 a few single values of a million
// change their sign, so that the seed matters more.) The bounds are two to three times
// that, for fp32's loss more. Three bits less than tf32 has, as in bf16, would give 7e-4 and 0.2 and is found, as is tf32 in place of fp32.
//
// A whole epoch multiplies these distances, as Adam takes steps of the same length whatever
// the size of a gradient, so that only its mean loss is compared. On the CPU, over 24
// trainings in which each step's weights are off by 5e-4, it moves by 0.0057 at most; by
// 0.0013 if they are off by 1e-6.
type bounds struct{ loss, gradient, epoch float64 }

var allowed = map[device.Precision]bounds{
	device.FP32: {5e-6, 0.01, 0.005},
	device.TF32: {3e-4, 0.12, 0.012},
}

// steps is how many steps are compared, and after how many a training is interrupted.
const steps = 10

// onHost is the SHA-256 of the checkpoint after an epoch in fp32 by the kernels as compiled for
// the host. A GPU should give the same bits: each operation is one that IEEE 754 defines, in a
// fixed order. No GPU has been seen to, so a check only says whether it does.
const onHost = "49d4262c10ca1e9f383cf79b7a9c1db1abf56759a8d381e053faf733e310feab"

// parted is the bound on an epoch's mean loss where each of several GPUs normalises its part of a
// batch by itself: that moves it by 0.004 for two, and by less for three.
const parted = 0.02

// gpu checks a GPU, or several that work together.
type gpu struct {
	open      func() (device.Opened, error) // a new network
	precision device.Precision
	name      string
	gpus      int
	sum       string // of the checkpoint after an epoch
}

// GPU returns the checks of a GPU, or of several. The error wraps [device.ErrUnavailable] if there is none.
func GPU(spec device.Spec) ([]Check, error) {
	if spec.Kind == "auto" {
		spec.Kind = "cuda"
	}
	g := &gpu{precision: spec.Precision, open: func() (device.Opened, error) {
		set, err := load()
		if err != nil {
			return device.Opened{}, err
		}
		return device.Open(spec, config(set, 0))
	}}
	opened, err := g.open()
	if err != nil {
		return nil, err
	}
	g.name, g.gpus = opened.Name, opened.GPUs
	opened.Close()
	return []Check{g.steps, g.epoch, g.resumed}, nil
}

// title names a check.
func (g *gpu) title(text string) string {
	return fmt.Sprintf("%s, %s: %s", g.name, g.precision, text)
}

// steps takes steps on the CPU, and each of them on the GPU, too.
func (g *gpu) steps(ctx context.Context) []report.Case {
	c := report.Case{Name: g.title("steps from the CPU's states are the CPU's")}
	if g.gpus > 1 {
		c.Name = g.title("steps from the CPU's states are the means of the CPU's on their parts")
	}
	var worst bounds
	worst, c.Losses, c.Err = g.compareSteps(ctx)
	limit := allowed[g.precision]
	if c.Err == nil {
		c.Detail = fmt.Sprintf("%d steps, losses within %.2g of %.2g allowed, gradients within %.2g of %.2g", len(c.Losses), worst.loss, limit.loss,
			worst.gradient, limit.gradient)
		c.Err = limit.check(worst)
	}
	return []report.Case{c}
}

// check says whether steps are too far apart.
func (limit bounds) check(worst bounds) error {
	if worst.loss <= limit.loss && worst.gradient <= limit.gradient { // NaN isn't
		return nil
	}
	return fmt.Errorf("losses may be %.2g apart and gradients %.2g, they are %.2g and %.2g", limit.loss, limit.gradient, worst.loss, worst.gradient)
}

// compareSteps has the CPU take a step on each GPU's part of a batch: losses and gradients of
// the whole batch are their means. With several GPUs there is no dropout, since the CPU's isn't
// that of a later part.
func (g *gpu) compareSteps(ctx context.Context) (worst bounds, losses []float64, err error) {
	set, err := load()
	if err != nil {
		return worst, nil, err
	}
	cfg := config(set, 0)
	if g.gpus > 1 {
		cfg.Dropout = 0 // the state has it
	}
	cpu, err := nn.New(cfg)
	if err != nil {
		return worst, nil, err
	}
	opened, err := g.open()
	if err != nil {
		return worst, nil, err
	}
	defer opened.Close()
	all := distances{}
	for images, labels := range data.NewLoader(set, batchSize, true, seed).Epoch(0, 0) {
		if ctx.Err() != nil || len(losses) == steps {
			break
		}
		before := cpu.State()
		if err := opened.Restore(before); err != nil {
			return worst, nil, err
		}
		got, _, err := opened.TrainStep(images, labels)
		if err != nil {
			return worst, nil, err
		}
		want, gradients, err := onParts(cpu, max(1, g.gpus), images, labels)
		if err != nil {
			return worst, nil, err
		}
		state, err := opened.State()
		if err != nil {
			return worst, nil, err
		}
		losses = append(losses, got)
		worst.loss = math.Max(worst.loss, math.Abs(got-want)/want)
		all.add(before, state, gradients)
	}
	worst.gradient = all.worst()
	return worst, losses, context.Cause(ctx)
}

// onParts takes a step on each of so many parts of a batch, all from the same state, and
// returns the mean of their losses and, in the last part's state, that of their gradients.
func onParts(cpu *nn.Network, parts int, images []float32, labels []uint8) (loss float64, s nn.State, err error) {
	before, size, all := cpu.State(), len(images)/len(labels), len(labels)
	means := make([][]float64, len(before.Tensors))
	for ; parts > 0; parts-- {
		k := (len(labels) + parts - 1) / parts // the first ones have one image more
		if err := cpu.Restore(before); err != nil {
			return 0, s, err
		}
		l, _, err := cpu.TrainStep(images[:k*size], labels[:k])
		if err != nil {
			return 0, s, err
		}
		images, labels, s = images[k*size:], labels[k:], cpu.State()
		share := float64(k) / float64(all)
		loss += share * l
		for i, t := range s.Tensors {
			if means[i] == nil {
				means[i] = make([]float64, len(t.Data))
			}
			for j, v := range t.Data {
				means[i][j] += share * float64(v)
			}
		}
	}
	for i, t := range s.Tensors {
		if strings.HasPrefix(t.Name, "adam.m.") {
			for j, v := range means[i] {
				t.Data[j] = float32(v)
			}
		}
	}
	return loss, s, nil
}

// distances are those of gradients over some steps, by tensor.
type distances map[string]*struct{ distance, length float64 } // sums of squares

// add adds a step's gradients. They are what Adam's first moments, m = 0.9 m + 0.1 g, have
// got.
func (d distances) add(before, got, want nn.State) {
	for i, t := range want.Tensors {
		if !strings.HasPrefix(t.Name, "adam.m.") {
			continue
		}
		sums := d[t.Name]
		if sums == nil {
			sums = new(struct{ distance, length float64 })
			d[t.Name] = sums
		}
		for k, m := range t.Data {
			e, g := float64(got.Tensors[i].Data[k])-float64(m), float64(m)-0.9*float64(before.Tensors[i].Data[k])
			sums.distance += e * e
			sums.length += g * g
		}
	}
}

// worst is the largest distance of a tensor's gradients over their length.
func (d distances) worst() (worst float64) {
	for _, t := range d {
		worst = math.Max(worst, math.Sqrt(t.distance/t.length))
	}
	return worst
}

// train trains for an epoch, as train does.
func (g *gpu) train(ctx context.Context, from *checkpoint.Checkpoint, stop int64, got *result) (*checkpoint.Checkpoint, error) {
	set, err := load()
	if err != nil {
		return nil, err
	}
	opened, err := g.open()
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return train(ctx, set, opened.Backend, 1, from, stop, got)
}

// epoch trains from data that stays on the GPU.
func (g *gpu) epoch(ctx context.Context) []report.Case {
	c := report.Case{Name: g.title("an epoch on the sample gives the CPU's loss")}
	var got, want result
	if _, c.Err = g.train(ctx, nil, 0, &got); c.Err == nil {
		c.Err = json.Unmarshal(goldenFile, &want)
	}
	if c.Err != nil {
		return []report.Case{c}
	}
	g.sum = got.Checkpoint
	is, was := got.Epochs[0].TrainLoss, want.Epochs[0].TrainLoss
	c.Detail = fmt.Sprintf("mean loss %.4f, the CPU's is %.4f; test accuracy %.3f and %.3f", is, was, got.Epochs[0].TestAccuracy, want.Epochs[0].TestAccuracy)
	if g.precision == device.FP32 && g.gpus == 1 {
		c.Detail += "; the state has other bits than the kernels give on the host"
		if g.sum == onHost {
			c.Detail = strings.Replace(c.Detail, "other bits than", "the bits that", 1)
		}
	}
	limit := allowed[g.precision].epoch
	if g.gpus > 1 {
		limit = parted
	}
	if !(math.Abs(is-was) <= limit*was) {
		c.Err = fmt.Errorf("they may be %.2g apart, relatively", limit)
	}
	return []report.Case{c}
}

// resumed trains once more, with an interruption.
func (g *gpu) resumed(ctx context.Context) []report.Case {
	c := report.Case{Name: g.title("interrupted and resumed, it gives the same bits")}
	var got result
	var at *checkpoint.Checkpoint
	if at, c.Err = g.train(ctx, nil, steps, &got); c.Err == nil {
		_, c.Err = g.train(ctx, at, 0, &got)
	}
	if c.Err == nil {
		c.Detail = fmt.Sprintf("interrupted after %d steps", steps)
		if got.Checkpoint != g.sum {
			c.Err = fmt.Errorf("the state after the last step has SHA-256 %s, it was %s", got.Checkpoint, g.sum)
		}
	}
	return []report.Case{c}
}
