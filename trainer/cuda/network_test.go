package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/cuda/internal/ptx"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/nn"
)

// interpreter is a device that runs the PTX that ships.
type interpreter struct {
	mem     *ptx.Memory
	modules map[string]*ptx.Module // by kernel
	limit   int                    // bytes; 0: none
	used    map[kernels.Pointer]int
}

func newInterpreter(t testing.TB) *interpreter {
	d := &interpreter{mem: ptx.NewMemory(), modules: map[string]*ptx.Module{}, used: map[kernels.Pointer]int{}}
	for name, text := range kernels.PTX() {
		m, err := ptx.Parse(text)
		require.NoError(t, err, name)
		for _, k := range m.Kernels() {
			d.modules[k] = m
		}
	}
	return d
}

var errMemory = errors.New("out of memory")

func (d *interpreter) Alloc(name string, bytes int) (kernels.Pointer, error) {
	total := bytes
	for _, n := range d.used {
		total += n
	}
	if d.limit > 0 && total > d.limit {
		return 0, fmt.Errorf("%d bytes for %s: %w", bytes, name, errMemory)
	}
	p := kernels.Pointer(d.mem.Alloc(name, bytes))
	d.used[p] = bytes
	return p, nil
}

func (d *interpreter) Free(p kernels.Pointer) error {
	if _, ok := d.used[p]; !ok {
		return fmt.Errorf("%#x was not allocated", uint64(p))
	}
	delete(d.used, p)
	return d.mem.Free(ptx.Pointer(p))
}

func (d *interpreter) Write(to kernels.Pointer, data []byte) error {
	return d.mem.Write(ptx.Pointer(to), data)
}

func (d *interpreter) Read(data []byte, from kernels.Pointer) error {
	return d.mem.Read(data, ptx.Pointer(from))
}

func (d *interpreter) Launch(kernel string, grid, block [3]int, args ...any) error {
	for i, a := range args {
		if p, ok := a.(kernels.Pointer); ok {
			args[i] = ptx.Pointer(p)
		}
	}
	m := d.modules[kernel]
	if m == nil {
		return fmt.Errorf("there is no kernel %q", kernel)
	}
	return m.Launch(d.mem, kernel, ptx.Dim{X: grid[0], Y: grid[1], Z: grid[2]}, ptx.Dim{X: block[0], Y: block[1], Z: block[2]}, args...)
}

// batch makes random images and labels.
func batch(seed uint64, images, channels int) ([]float32, []uint8) {
	rng := rand.New(rand.NewPCG(seed, 99))
	x, y := make([]float32, images*channels*nn.Size*nn.Size), make([]uint8, images)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for i := range y {
		y[i] = uint8(rng.IntN(10))
	}
	return x, y
}

// pair is the same network on the CPU and on the interpreter.
func pair(t testing.TB, cfg nn.Config, p kernels.Precision) (*nn.Network, *Network) {
	cpu, err := nn.New(cfg)
	require.NoError(t, err)
	gpu, err := New([]Device{newInterpreter(t)}, cfg, p)
	require.NoError(t, err)
	return cpu, gpu
}

func state(t testing.TB, n *Network) map[string][]float32 {
	s, err := n.State()
	require.NoError(t, err)
	return tensors(s)
}

func tensors(s nn.State) map[string][]float32 {
	m := map[string][]float32{}
	for _, t := range s.Tensors {
		m[t.Name] = t.Data
	}
	return m
}

// apart is the distance of a from b over the length of b.
func apart(a, b []float32) float64 {
	var d, s float64
	for i := range b {
		d += math.Pow(float64(a[i])-float64(b[i]), 2)
		s += math.Pow(float64(b[i]), 2)
	}
	if d == 0 {
		return 0
	}
	return math.Sqrt(d / s)
}

// whole is for tests of whole steps. The race detector makes the interpreter, which starts no
// goroutine, 15 times slower: mage test runs this package once more, without it.
func whole(t *testing.T) {
	t.Helper()
	if raced && !testenv.Long() {
		t.Skip("takes minutes under the race detector")
	}
	t.Parallel()
}

// TestStepAgainstCPU takes whole training steps: the gradients are Adam's moments after
// the first one. With tf32, one value in a thousand or so falls on the other side of a
// ReLU, in each of eight layers: that moves a gradient by some 10 %.
func TestStepAgainstCPU(t *testing.T) {
	whole(t)
	for name, c := range map[string]struct {
		cfg    nn.Config
		images int
		p      kernels.Precision
		far    float64
	}{
		"gray, fp32":   {nn.Config{Channels: 1, Classes: 10, Seed: 5, Dropout: 0.5}, 5, kernels.FP32, 1e-4},
		"colour, fp32": {nn.Config{Channels: 3, Classes: 21, Seed: 6, Dropout: 0.25}, 2, kernels.FP32, 1e-4},
		"gray, tf32":   {nn.Config{Channels: 1, Classes: 10, Seed: 7}, 5, kernels.TF32, 0.2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cpu, gpu := pair(t, c.cfg, c.p)
			assert.Equal(t, cpu.NumParameters(), gpu.NumParameters())
			x, y := batch(1, c.images, c.cfg.Channels)
			want, right, err := cpu.TrainStep(x, y)
			require.NoError(t, err)
			got, correct, err := gpu.TrainStep(x, y)
			require.NoError(t, err)
			assert.InEpsilon(t, want, got, c.far)
			assert.Equal(t, right, correct)
			assert.EqualValues(t, 1, gpu.Step())
			a, b := state(t, gpu), tensors(cpu.State())
			assert.Len(t, a, len(b))
			for name := range b {
				switch {
				case strings.HasPrefix(name, "adam.v."): // squares
					assert.Less(t, apart(a[name], b[name]), 3*c.far, name)
				case strings.HasPrefix(name, "adam.m."), strings.Contains(name, ".running_"):
					assert.Less(t, apart(a[name], b[name]), c.far, name)
				default:
					// The first step is as long for the smallest gradient as for any, whose
					// sign may be another.
					for i, v := range b[name] {
						require.InDelta(t, v, a[name][i], 2.001e-3, name)
					}
				}
			}
		})
	}
}

// TestTrainingAgainstCPU goes on, with a batch of another size, and evaluates: losses stay
// together.
func TestTrainingAgainstCPU(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	whole(t)
	cpu, gpu := pair(t, nn.Config{Channels: 1, Classes: 10, Seed: 8, Dropout: 0.5, LR: 1e-4}, kernels.FP32)
	for i, images := range []int{2, 3} {
		x, y := batch(uint64(i), images, 1)
		want, right, err := cpu.TrainStep(x, y)
		require.NoError(t, err)
		got, correct, err := gpu.TrainStep(x, y)
		require.NoError(t, err)
		assert.InEpsilon(t, want, got, 2e-3, "step %d", i+1)
		assert.Equal(t, right, correct)
	}
	x, y := batch(100, 2, 1)
	want, right, err := cpu.Evaluate(x, y)
	require.NoError(t, err)
	got, correct, err := gpu.Evaluate(x, y)
	require.NoError(t, err)
	assert.InEpsilon(t, want, got, 2e-3)
	assert.Equal(t, right, correct)
	assert.EqualValues(t, 2, gpu.Step())
}

// TestStateMovesBetweenDevices and back, to the bit; what comes after depends on nothing
// else.
func TestStateMovesBetweenDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	whole(t)
	cfg := nn.Config{Channels: 3, Classes: 10, Seed: 9, Dropout: 0.5, LR: 2e-3}
	cpu, first := pair(t, cfg, kernels.FP32)
	x, y := batch(3, 2, 3)
	_, _, err := cpu.TrainStep(x, y)
	require.NoError(t, err)
	require.NoError(t, first.Restore(cpu.State()))
	moved, err := first.State()
	require.NoError(t, err)
	assert.Equal(t, cpu.State(), moved)
	assert.EqualValues(t, 1, first.Step())

	_, second := pair(t, nn.Config{Channels: 3, Classes: 10, Seed: 77}, kernels.FP32)
	more, labels := batch(4, 3, 3)
	_, _, err = second.Evaluate(more, labels) // memory is no longer as it was allocated
	require.NoError(t, err)
	require.NoError(t, second.Restore(moved))
	x, y = batch(5, 1, 3)
	a, _, err := first.TrainStep(x, y)
	require.NoError(t, err)
	b, _, err := second.TrainStep(x, y)
	require.NoError(t, err)
	assert.Equal(t, a, b)
	assert.Equal(t, state(t, first), state(t, second))

	moved.Config.Channels = 1
	assert.ErrorContains(t, first.Restore(moved), "1 channels")
	assert.Equal(t, state(t, second), state(t, first), "nothing changed")
}

func TestLossThatIsNotFinite(t *testing.T) {
	whole(t)
	_, gpu := pair(t, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	before := state(t, gpu)
	x, y := batch(1, 2, 1)
	x[100] = float32(math.NaN())
	loss, _, err := gpu.TrainStep(x, y)
	require.NoError(t, err)
	assert.True(t, math.IsNaN(loss))
	assert.Zero(t, gpu.Step())
	after := state(t, gpu)
	for name, v := range before {
		if !strings.Contains(name, ".running_") {
			assert.Equal(t, v, after[name], name)
		}
	}
}

func TestBadBatchesChangeNothing(t *testing.T) {
	t.Parallel()
	_, gpu := pair(t, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	x, y := batch(1, 2, 1)
	for want, f := range map[string]func() error{
		"empty":     func() error { _, _, err := gpu.TrainStep(nil, nil); return err },
		"got 2047":  func() error { _, _, err := gpu.TrainStep(x[1:], y); return err },
		"label 10":  func() error { _, _, err := gpu.Evaluate(x, []uint8{1, 10}); return err },
		"need 1024": func() error { _, _, err := gpu.Evaluate(x, y[:1]); return err },
	} {
		assert.ErrorContains(t, f(), want)
	}
	loss, correct, err := gpu.Evaluate(nil, nil)
	require.NoError(t, err)
	assert.Zero(t, loss)
	assert.Zero(t, correct)
	_, err = New([]Device{newInterpreter(t)}, nn.Config{Channels: 2, Classes: 10}, kernels.FP32)
	assert.ErrorContains(t, err, "2 channels")
}

// TestErrorsOfTheDevice: memory that isn't there, and kernels that fail.
func TestErrorsOfTheDevice(t *testing.T) {
	t.Parallel()
	d := newInterpreter(t)
	d.limit = 1 << 20
	_, err := New([]Device{d}, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	assert.ErrorIs(t, err, errMemory)

	d = newInterpreter(t)
	n, err := New([]Device{d}, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	require.NoError(t, err)
	x, y := batch(1, 2, 1)
	d.limit = 9 << 20
	_, _, err = n.TrainStep(x, y)
	assert.ErrorIs(t, err, errMemory)
	assert.ErrorContains(t, err, "step 1: memory for a batch of 2 images: ")
	d.limit = 0
	haar := d.modules["haar"]
	delete(d.modules, "haar")
	_, _, err = n.TrainStep(x, y)
	assert.EqualError(t, err, `step 1: kernel haar: there is no kernel "haar"`, "and none was launched after it")
	assert.Zero(t, n.Step())
	d.modules["haar"] = haar
	_, _, err = n.Evaluate(x, y)
	require.NoError(t, err, "it goes on")
}
