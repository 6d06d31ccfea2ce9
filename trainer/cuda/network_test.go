package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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

// TestRoomForSmallerBatches: whatever the size of a batch, there is room for the gradients of
// it and of every smaller one, of which some have more parts.
func TestRoomForSmallerBatches(t *testing.T) {
	t.Parallel()
	d := newInterpreter(t)
	n, err := New([]Device{d}, nn.Config{Channels: 3, Classes: 10}, kernels.FP32)
	require.NoError(t, err)
	r := n.replicas[0]
	most := 0
	for images := 1; images <= 65536; images++ {
		_, floats := r.gradientsOf(images, kernels.Parts)
		most = max(most, floats)
		_, room := r.gradientsOf(images, kernels.MostParts)
		if room < most {
			require.Fail(t, "no room", "batches of up to %d images have up to %d values, and room for %d", images, most, room)
		}
	}

	r.dev = promising{d}
	for _, sizes := range [][2]int{{4097, 4096}, {5013, 4857}, {6700, 6400}} { // the last two are of 60000 images
		n.capacity = 0
		require.NoError(t, n.reserve(sizes[0]))
		require.NoError(t, n.reserve(sizes[1]))
	}
	r.gradients.size = 1000
	assert.ErrorContains(t, n.reserve(1), "gradients of 1 images take ", "and nothing is written past the room")
}

// promising is an interpreter for plans: of much memory it has the beginning alone.
type promising struct{ *interpreter }

func (d promising) Alloc(name string, bytes int) (kernels.Pointer, error) {
	return d.interpreter.Alloc(name, min(bytes, 1<<17))
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
