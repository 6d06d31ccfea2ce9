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
// the CPU's state for the first two: what is left is one step's rounding. A whole epoch
// multiplies that, as Adam takes steps of the same length whatever the size of a gradient, so
// that its mean loss is compared.
type bounds struct{ loss, gradient, epoch float64 }

var allowed = map[device.Precision]bounds{
	device.FP32: {1e-5, 0.02, 0.02},
	device.TF32: {2e-3, 0.25, 0.05},
}

// steps is how many steps are compared, and after how many a training is interrupted.
const steps = 10

// gpu checks a GPU.
type gpu struct {
	spec device.Spec
	name string
	sum  string // of the checkpoint after an epoch
}

// GPU returns the checks of a GPU. The error wraps [device.ErrUnavailable] if there is none.
func GPU(spec device.Spec) ([]Check, error) {
	if spec.Kind == "auto" {
		spec.Kind = "cuda"
	}
	g := &gpu{spec: spec}
	opened, err := g.open()
	if err != nil {
		return nil, err
	}
	g.name = opened.Name
	return []Check{g.steps, g.epoch, g.resumed}, nil
}

func (g *gpu) open() (device.Opened, error) {
	set, err := load()
	if err != nil {
		return device.Opened{}, err
	}
	return device.Open(g.spec, config(set, 0))
}

// title names a check.
func (g *gpu) title(text string) string {
	return fmt.Sprintf("%s, %s: %s", g.name, g.spec.Precision, text)
}

// steps takes steps on the CPU, and each of them on the GPU, too.
func (g *gpu) steps(ctx context.Context) []report.Case {
	c := report.Case{Name: g.title("steps from the CPU's states are the CPU's")}
	var worst bounds
	worst, c.Losses, c.Err = g.compareSteps(ctx)
	limit := allowed[g.spec.Precision]
	if c.Err == nil {
		c.Detail = fmt.Sprintf("%d steps, losses within %.1g of %.1g allowed, gradients within %.1g of %.1g", len(c.Losses), worst.loss, limit.loss,
			worst.gradient, limit.gradient)
		if !(worst.loss <= limit.loss && worst.gradient <= limit.gradient) { // NaN fails
			c.Err = fmt.Errorf("losses may be %.1g apart and gradients %.1g, they are %.1g and %.1g", limit.loss, limit.gradient, worst.loss, worst.gradient)
		}
	}
	return []report.Case{c}
}

func (g *gpu) compareSteps(ctx context.Context) (worst bounds, losses []float64, err error) {
	set, err := load()
	if err != nil {
		return worst, nil, err
	}
	cpu, err := nn.New(config(set, 0))
	if err != nil {
		return worst, nil, err
	}
	opened, err := g.open()
	if err != nil {
		return worst, nil, err
	}
	for images, labels := range data.NewLoader(set, batchSize, true, seed).Epoch(0, 0) {
		if ctx.Err() != nil || len(losses) == steps {
			break
		}
		if err := opened.Restore(cpu.State()); err != nil {
			return worst, nil, err
		}
		got, _, err := opened.TrainStep(images, labels)
		if err != nil {
			return worst, nil, err
		}
		want, _, err := cpu.TrainStep(images, labels)
		if err != nil {
			return worst, nil, err
		}
		state, err := opened.State()
		if err != nil {
			return worst, nil, err
		}
		losses = append(losses, got)
		worst.loss = math.Max(worst.loss, math.Abs(got-want)/want)
		worst.gradient = math.Max(worst.gradient, apart(state, cpu.State()))
	}
	return worst, losses, context.Cause(ctx)
}

// apart is the largest distance of a tensor of gradients, as Adam's first moments have them,
// over its length.
func apart(got, want nn.State) (worst float64) {
	for i, t := range want.Tensors {
		if !strings.HasPrefix(t.Name, "adam.m.") {
			continue
		}
		var distance, length float64
		for k, v := range t.Data {
			d := float64(got.Tensors[i].Data[k]) - float64(v)
			distance += d * d
			length += float64(v) * float64(v)
		}
		worst = math.Max(worst, math.Sqrt(distance/length))
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
	if limit := allowed[g.spec.Precision].epoch; !(math.Abs(is-was) <= limit*was) {
		c.Err = fmt.Errorf("they may be %.1g apart, relatively", limit)
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
