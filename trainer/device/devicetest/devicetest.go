// Package devicetest holds every backend to the same cases: against the network on the CPU, and
// against the one in float64 of package reference.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/loop"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/nn/reference"
)

// A Subject is a kind of backend.
type Subject struct {
	// Open puts a new network on it.
	Open func(testing.TB, nn.Config) device.Backend

	// Step is how far a step from the CPU's state may be from the CPU's step: its loss,
	// relatively, and each tensor of gradients and running statistics, over its length. With
	// 0 they have the same bits.
	Step float64
	// Training is the same for the losses of a few steps one after the other.
	Training float64
	// Scale is how many times larger than the smallest ones batches are, and Many is a number
	// of images to evaluate at once: as many as take no more than seconds.
	Scale, Many int
}

// Cases that a test may name.
const (
	Begins = "begins with the CPU's network"
	Steps  = "steps are the CPU's, in batches of any size"
	Epochs = "epochs, whole and resumed"
)

// cases is what every backend is held to.
var cases = []struct {
	name string
	run  func(*testing.T, Subject)
}{
	{Begins, begins},
	{Steps, steps},
	{"a step is the one in float64", stepInFloat64},
	{"ten steps keep to those in float64", tenStepsInFloat64},
	{"trains and evaluates as the CPU does", trains},
	{Epochs, epochs},
	{"evaluation disturbs nothing", evaluates},
	{"goes on from a state to the same bits", restores},
	{"refuses states of other networks", refusesStates},
	{"refuses bad batches", refusesBatches},
	{"loss that is not finite", notFinite},
	{"checkpoints move to the CPU and back", moves},
	{"divergence ends the training", diverges},
}

// Run runs all cases, or those that are named.
func Run(t *testing.T, s Subject, names ...string) {
	for _, c := range cases {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, s)
		})
	}
}

var (
	gray   = nn.Config{Channels: 1, Classes: 10, Seed: 5, Dropout: 0.5}
	colour = nn.Config{Channels: 3, Classes: 21, Seed: 6, Dropout: 0.25}
)

// CPU opens a network on the CPU.
func CPU(t testing.TB, cfg nn.Config) device.Backend {
	n, err := nn.New(cfg)
	require.NoError(t, err)
	return device.CPU(n)
}

// batch makes random images and labels for a network.
func batch(cfg nn.Config, seed uint64, images int) ([]float32, []uint8) {
	rng := rand.New(rand.NewPCG(seed, 99))
	x, y := make([]float32, images*cfg.Channels*nn.Size*nn.Size), make([]uint8, images)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for i := range y {
		y[i] = uint8(rng.IntN(cfg.Classes))
	}
	return x, y
}

// A point is where a training has come to.
type point struct {
	loss    float64
	correct int
	state   nn.State
}

// step takes a step with a batch of its own.
func (s Subject) step(t *testing.T, b device.Backend, seed uint64, images int) (p point) {
	t.Helper()
	x, y := batch(state(t, b).Config, seed, images*s.Scale)
	var err error
	p.loss, p.correct, err = b.TrainStep(x, y)
	require.NoError(t, err)
	p.state = state(t, b)
	return p
}

func state(t *testing.T, b device.Backend) nn.State {
	t.Helper()
	s, err := b.State()
	require.NoError(t, err)
	return s
}

// same compares states to the bit.
func same(t *testing.T, want, got nn.State, more ...any) {
	t.Helper()
	tensors := func(s *nn.State) []nn.Tensor {
		all := s.Tensors
		s.Tensors = nil
		return all
	}
	w, g := tensors(&want), tensors(&got)
	assert.Equal(t, want, got, more...)
	require.Len(t, g, len(w), more...)
	for i := range w {
		assert.Equal(t, w[i].Name, g[i].Name, more...)
		assert.Equal(t, w[i].Shape, g[i].Shape, more...)
		// assert.Equal takes long for millions of values.
		assert.True(t, slices.Equal(w[i].Data, g[i].Data), append([]any{"the values of " + w[i].Name}, more...)...)
	}
}

// samePoint compares what came of a step.
func samePoint(t *testing.T, want, got point) {
	t.Helper()
	assert.Equal(t, want.loss, got.loss)
	assert.Equal(t, want.correct, got.correct)
	same(t, want.state, got.state)
}

// near compares a step with the CPU's from the same state.
func (s Subject) near(t *testing.T, want, got point) {
	t.Helper()
	if s.Step == 0 {
		samePoint(t, want, got)
		return
	}
	assert.InEpsilon(t, want.loss, got.loss, s.Step)
	assert.Equal(t, want.correct, got.correct)
	assert.Equal(t, want.state.Step, got.state.Step)
	require.Len(t, got.state.Tensors, len(want.state.Tensors))
	for i, w := range want.state.Tensors {
		g := got.state.Tensors[i]
		assert.Equal(t, w.Name, g.Name)
		switch {
		case strings.HasPrefix(w.Name, "adam.v."): // squares
			assert.Less(t, apart(g.Data, w.Data), 3*s.Step, w.Name)
		case strings.HasPrefix(w.Name, "adam.m."), strings.Contains(w.Name, ".running_"):
			assert.Less(t, apart(g.Data, w.Data), s.Step, w.Name)
		default:
			// A step is as long for the smallest gradient as for any, whose sign may be another.
			most := 2.001 * float64(want.state.Config.LR)
			for k, v := range w.Data {
				if d := math.Abs(float64(v) - float64(g.Data[k])); !(d <= most) {
					require.LessOrEqual(t, d, most, "value %d of %s", k, w.Name)
				}
			}
		}
	}
}

// apart is the distance of a from b over the length of b.
func apart[T float32 | float64](a []float32, b []T) float64 {
	var d, s float64
	for i := range b {
		e, v := float64(a[i])-float64(b[i]), float64(b[i])
		d += e * e
		s += v * v
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / s)
}

func begins(t *testing.T, s Subject) {
	for _, cfg := range []nn.Config{gray, colour} {
		cpu, b := CPU(t, cfg), s.Open(t, cfg)
		assert.Equal(t, cpu.NumParameters(), b.NumParameters())
		assert.Zero(t, b.Step())
		same(t, state(t, cpu), state(t, b))
		s.near(t, s.step(t, cpu, 1, 2), s.step(t, b, 1, 2))
		assert.EqualValues(t, 1, b.Step())
	}
}

// steps begins each one with the CPU's state: what is left is one step's rounding.
func steps(t *testing.T, s Subject) {
	cpu, b := CPU(t, gray), s.Open(t, gray)
	for i, images := range []int{2, 3, 1} {
		require.NoError(t, b.Restore(state(t, cpu)))
		s.near(t, s.step(t, cpu, uint64(i), images), s.step(t, b, uint64(i), images))
	}
}

// inFloat64 is a network with a backend's values.
func inFloat64(t *testing.T, b device.Backend) *reference.Network {
	t.Helper()
	s := state(t, b)
	values := map[string][]float32{}
	for _, tensor := range s.Tensors {
		values[tensor.Name] = tensor.Data
	}
	c := s.Config
	return reference.New(reference.Config{Channels: c.Channels, Classes: c.Classes, Seed: c.Seed, LR: c.LR, Dropout: c.Dropout}, values)
}

// smooth makes a batch for which no input of a ReLU is so near to zero that float32's rounding
// could move it across.
func smooth(t *testing.T, cfg nn.Config, images int) ([]float32, []uint8) {
	for seed := uint64(0); ; seed++ {
		x, y := batch(cfg, seed, images)
		r := inFloat64(t, CPU(t, cfg))
		if r.Loss(x, y); r.Nearest() > 3e-6 {
			return x, y
		}
	}
}

func stepInFloat64(t *testing.T, s Subject) {
	for _, cfg := range []nn.Config{gray, colour, {Channels: 1, Classes: 21, Seed: 7}} {
		b := s.Open(t, cfg)
		r := inFloat64(t, b)
		x, y := smooth(t, cfg, s.Scale)
		want := r.Train(x, y)
		got, _, err := b.TrainStep(x, y)
		require.NoError(t, err)
		assert.InEpsilon(t, want, got, max(1e-6, s.Step))
		for _, tensor := range state(t, b).Tensors {
			if name, ok := strings.CutPrefix(tensor.Name, "adam.m."); ok {
				assert.Less(t, apart(tensor.Data, r.Tensors[name].M), max(2e-5, s.Step), "gradient of %s", name)
			} else if running := r.Running[tensor.Name]; running != nil {
				for i, v := range tensor.Data {
					assert.InDelta(t, running[i], v, max(1e-6, s.Step), "%s of channel %d", tensor.Name, i)
				}
			}
		}
		// Adam's first step has the same length whatever the gradient's size, so that tiny ones
		// may differ in sign.
		r.Eval = true
		got, _, err = b.Evaluate(x, y)
		require.NoError(t, err)
		assert.InEpsilon(t, r.Loss(x, y)*float64(len(y)), got, max(1e-4, s.Training))
	}
}

// tenStepsInFloat64 bounds how far training drifts against the way travelled: rounding moves a
// few of the 100,000 inputs of ReLU across zero, and turns the sign of tiny gradients, which
// Adam's first steps amplify, so that two right trainings drift apart.
func tenStepsInFloat64(t *testing.T, s Subject) {
	cfg := gray
	cfg.LR = 1e-4
	b := s.Open(t, cfg)
	r, start := inFloat64(t, b), inFloat64(t, b)
	for step := range 10 {
		x, y := batch(cfg, uint64(step), 4)
		want := r.Train(x, y)
		got, _, err := b.TrainStep(x, y)
		require.NoError(t, err)
		require.InEpsilon(t, want, got, max(2e-3, s.Training), "loss of step %d", step+1)
	}
	assert.EqualValues(t, 10, b.Step())
	for _, tensor := range state(t, b).Tensors {
		if want := r.Tensors[tensor.Name]; want != nil {
			from := start.Tensors[tensor.Name]
			var off, way float64
			for i, v := range tensor.Data {
				off += math.Pow(float64(v)-want.W[i], 2)
				way += math.Pow(want.W[i]-from.W[i], 2)
			}
			assert.Less(t, math.Sqrt(off/way), max(0.1, 2*s.Training), tensor.Name)
		}
	}
}

// losses compares those of trainings.
func (s Subject) losses(t *testing.T, want, got float64, more ...any) {
	t.Helper()
	if s.Training == 0 {
		assert.Equal(t, want, got, more...)
	} else {
		assert.InEpsilon(t, want, got, s.Training, more...)
	}
}

func trains(t *testing.T, s Subject) {
	cfg := gray
	cfg.LR = 1e-4 // steps in the wrong direction are short
	cpu, b := CPU(t, cfg), s.Open(t, cfg)
	for i, images := range []int{2, 1} {
		s.losses(t, s.step(t, cpu, uint64(i), images).loss, s.step(t, b, uint64(i), images).loss, "step %d", i+1)
	}
	x, y := batch(cfg, 9, s.Many)
	want, right, err := cpu.Evaluate(x, y)
	require.NoError(t, err)
	got, correct, err := b.Evaluate(x, y)
	require.NoError(t, err)
	s.losses(t, want, got)
	assert.InDelta(t, right, correct, s.Training*float64(s.Many))
}

// evaluates in between, more images than a step has, so that memory for them moves.
func evaluates(t *testing.T, s Subject) {
	plain, evaluated := s.Open(t, gray), s.Open(t, gray)
	for i := range uint64(2) {
		samePoint(t, s.step(t, plain, i, 1), s.step(t, evaluated, i, 1))
		before := state(t, evaluated)
		x, y := batch(gray, 9, 2*s.Scale)
		_, _, err := evaluated.Evaluate(x, y)
		require.NoError(t, err)
		same(t, before, state(t, evaluated))
	}
}

func restores(t *testing.T, s Subject) {
	cfg := colour
	cfg.LR = 2e-3
	first := s.Open(t, cfg)
	s.step(t, first, 0, 1)
	from, again := state(t, first), state(t, first)
	cfg.Seed, cfg.LR, cfg.Dropout = 77, 0, 0
	second := s.Open(t, cfg)
	s.step(t, second, 3, 1) // its memory is no longer as it was
	require.NoError(t, second.Restore(from))
	same(t, again, state(t, second))
	assert.EqualValues(t, 1, second.Step())
	samePoint(t, s.step(t, first, 1, 2), s.step(t, second, 1, 2))
	same(t, again, from, "a state shares no memory with a network")
}

func refusesStates(t *testing.T, s Subject) {
	cpu, b := CPU(t, colour), s.Open(t, colour)
	before := state(t, b)
	for name, c := range map[string]struct {
		change func(s *nn.State)
		want   string
	}{
		"channels": {func(s *nn.State) { s.Config.Channels = 1 }, "1 channels"},
		"classes":  {func(s *nn.State) { s.Config.Classes = 9 }, "9 classes"},
		"config":   {func(s *nn.State) { s.Config.Dropout = 1 }, "dropout"},
		"rate":     {func(s *nn.State) { s.Config.LR = 0 }, "learning rate"},
		"step":     {func(s *nn.State) { s.Step = -1 }, "negative"},
		"missing":  {func(s *nn.State) { s.Tensors = s.Tensors[1:] }, "tensors"},
		"name":     {func(s *nn.State) { s.Tensors[3].Name = "x" }, `want "block1.conv2.weight"`},
		"shape":    {func(s *nn.State) { s.Tensors[0].Shape = []int{16, 12, 9} }, "[16 12 9]"},
		"short":    {func(s *nn.State) { s.Tensors[40].Data = s.Tensors[40].Data[1:] }, "values"},
	} {
		wrong := state(t, cpu)
		c.change(&wrong)
		assert.ErrorContains(t, b.Restore(wrong), c.want, name)
		same(t, before, state(t, b), name)
	}
}

func refusesBatches(t *testing.T, s Subject) {
	b := s.Open(t, gray)
	before := state(t, b)
	x, y := batch(gray, 1, 4)
	for want, f := range map[string]func() error{
		"empty":         func() error { _, _, err := b.TrainStep(nil, nil); return err },
		"got 4095":      func() error { _, _, err := b.TrainStep(x[1:], y); return err },
		"label 10":      func() error { _, _, err := b.TrainStep(x, []uint8{1, 2, 10, 3}); return err },
		"need 3072":     func() error { _, _, err := b.Evaluate(x, y[:3]); return err },
		"label 255 of ": func() error { _, _, err := b.Evaluate(x, []uint8{1, 2, 3, 255}); return err },
	} {
		assert.ErrorContains(t, f(), want)
	}
	same(t, before, state(t, b))
	loss, correct, err := b.Evaluate(nil, nil)
	require.NoError(t, err)
	assert.Zero(t, loss)
	assert.Zero(t, correct)
}

// notFinite has a pixel that is no number: nothing but running statistics changes, and
// training can go on.
func notFinite(t *testing.T, s Subject) {
	cpu, b := CPU(t, gray), s.Open(t, gray)
	before := state(t, b)
	for _, n := range []device.Backend{cpu, b} {
		x, y := batch(gray, 1, s.Scale)
		x[100] = float32(math.NaN())
		loss, _, err := n.TrainStep(x, y)
		require.NoError(t, err)
		assert.True(t, math.IsNaN(loss))
		assert.Zero(t, n.Step())
		for i, after := range state(t, n).Tensors {
			if !strings.Contains(after.Name, ".running_") {
				assert.True(t, slices.Equal(before.Tensors[i].Data, after.Data), after.Name)
			}
		}
	}
	s.losses(t, s.step(t, cpu, 2, 1).loss, s.step(t, b, 2, 1).loss)
}

// through encodes a checkpoint and decodes it.
func through(t *testing.T, c *checkpoint.Checkpoint) *checkpoint.Checkpoint {
	t.Helper()
	var file bytes.Buffer
	require.NoError(t, c.Encode(&file))
	c, err := checkpoint.Decode(file.Bytes())
	require.NoError(t, err)
	return c
}

func moves(t *testing.T, s Subject) {
	cpu, b := CPU(t, gray), s.Open(t, gray)
	for i, way := range [][2]device.Backend{{cpu, b}, {b, cpu}} {
		s.step(t, way[0], uint64(i), 1)
		c := through(t, &checkpoint.Checkpoint{State: state(t, way[0])})
		require.NoError(t, way[1].Restore(c.State))
		same(t, state(t, way[0]), state(t, way[1]))
	}
	assert.EqualValues(t, 2, cpu.Step())
}

// set makes a small one, the last batch of which is smaller than the others.
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
	return &data.Set{Name: "random", Channels: 1, Height: 28, Width: 28, Train: split(train), Test: split(test)}
}

// hosted is a backend that gets its batches from the host, whatever it can.
type hosted struct{ device.Backend }

// train trains from a checkpoint to the end of its second epoch, which has two batches, the
// second half as large; stop is the step at which it is interrupted, 0: never.
func (s Subject) train(t *testing.T, b device.Backend, from *checkpoint.Checkpoint, stop int64) (last *checkpoint.Checkpoint) {
	t.Helper()
	last = through(t, from)
	require.NoError(t, b.Restore(last.State))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	stopped := errors.New("stopped")
	_, err := loop.Run(ctx, loop.Job{
		Network: b, Set: set(3*s.Scale, 2*s.Scale), Seed: gray.Seed, Epochs: 2, BatchSize: 2 * s.Scale, Every: stop,
		Save: func(c *checkpoint.Checkpoint) { last = c },
		Watch: func(loop.Event) {
			if b.Step() == stop {
				cancel(stopped)
			}
		},
	}, last.Progress)
	if stop > 0 {
		require.ErrorIs(t, err, stopped)
	} else {
		require.NoError(t, err)
		require.Len(t, last.Progress.Epochs, 2)
	}
	return last
}

// epochs are the same whether a backend holds the data set or not, and when they are resumed
// on another network. The CPU goes on from where they were interrupted.
func epochs(t *testing.T, s Subject) {
	cfg := gray
	cfg.LR = 1e-4
	first := &checkpoint.Checkpoint{State: state(t, CPU(t, cfg)), Progress: checkpoint.Progress{Epochs: make([]checkpoint.Epoch, 1)}}
	first.State.Step = 2
	want, whole := s.train(t, CPU(t, cfg), first, 0), s.train(t, s.Open(t, cfg), first, 0)
	assert.EqualValues(t, 4, whole.State.Step)
	compare := func(got *checkpoint.Checkpoint, check func(want, got float64)) {
		t.Helper()
		w, g := whole.Progress.Epochs[1], got.Progress.Epochs[1]
		check(w.TrainLoss, g.TrainLoss)
		check(w.TestLoss, g.TestLoss)
	}
	exact := func(want, got float64) { t.Helper(); assert.InEpsilon(t, want, got, 1e-14) } // sums in another order
	near := func(want, got float64) { t.Helper(); s.losses(t, want, got) }
	compare(want, near)

	byHost := s.train(t, hosted{s.Open(t, cfg)}, first, 0)
	same(t, whole.State, byHost.State)
	compare(byHost, exact)

	part := s.train(t, s.Open(t, cfg), first, 3)
	assert.EqualValues(t, 3, part.State.Step)
	resumed := s.train(t, s.Open(t, cfg), part, 0)
	same(t, whole.State, resumed.State)
	assert.Equal(t, whole.Progress, resumed.Progress)
	compare(s.train(t, CPU(t, cfg), part, 0), near)
}

// diverges has a learning rate that no network survives.
func diverges(t *testing.T, s Subject) {
	cfg := gray
	cfg.LR = math.MaxFloat32
	for _, b := range []device.Backend{CPU(t, cfg), s.Open(t, cfg)} {
		_, err := loop.Run(t.Context(), loop.Job{
			Network: b, Set: set(3*s.Scale, 2*s.Scale), Epochs: 1, BatchSize: 2 * s.Scale,
			Save: func(*checkpoint.Checkpoint) { t.Error("saved") }, Watch: func(loop.Event) {},
		}, checkpoint.Progress{})
		var diverged *loop.NotFinite
		require.ErrorAs(t, err, &diverged)
		assert.Equal(t, []int64{1, 2}, []int64{diverged.Step, int64(diverged.Batch)})
	}
}
