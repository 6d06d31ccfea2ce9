package kernels

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/cuda/internal/ptx"
)

// A device is where kernels run: that of package cuda, which imports this one.
type device interface {
	Launcher
	Alloc(name string, bytes int) (Pointer, error)
	Free(Pointer) error
	Write(to Pointer, data []byte) error
	Read(data []byte, from Pointer) error
}

// onGPU is a GPU to run all checks on, nil for the interpreter.
var onGPU device

// gpu is a device of which a check has some memory.
type gpu struct {
	device
	sizes map[Pointer]int
}

// newGPU returns onGPU, or an interpreter of the PTX that ships or, of a probe, other PTX.
func newGPU(t testing.TB) *gpu {
	if onGPU != nil {
		g := &gpu{onGPU, map[Pointer]int{}}
		t.Cleanup(func() {
			for p := range g.sizes {
				assert.NoError(t, g.Free(p))
			}
		})
		return g
	}
	i := interpreter{ptx.NewMemory(), map[string]*ptx.Module{}}
	modules := parsed()
	if p, ok := t.(*probe); ok {
		modules = append(slices.Clone(modules), p.module) // the last one counts
	}
	for _, m := range modules {
		for _, k := range m.Kernels() {
			i.modules[k] = m
		}
	}
	return &gpu{i, map[Pointer]int{}}
}

// interpreter is a GPU in the form of one.
type interpreter struct {
	*ptx.Memory
	modules map[string]*ptx.Module // by kernel
}

func (i interpreter) Alloc(name string, bytes int) (Pointer, error) {
	return Pointer(i.Memory.Alloc(name, bytes)), nil
}

func (i interpreter) Free(p Pointer) error { return i.Memory.Free(ptx.Pointer(p)) }

func (i interpreter) Write(to Pointer, data []byte) error {
	return i.Memory.Write(ptx.Pointer(to), data)
}

func (i interpreter) Read(data []byte, from Pointer) error {
	return i.Memory.Read(data, ptx.Pointer(from))
}

// parsed are the files that ship.
var parsed = sync.OnceValue(func() (all []*ptx.Module) {
	for name, text := range PTX() {
		m, err := ptx.Parse(text)
		if err != nil {
			panic(fmt.Sprint(name, ": ", err))
		}
		all = append(all, m)
	}
	return all
})

// A probe is a test that may fail: of PTX with a fault in it.
type probe struct {
	testing.TB
	module *ptx.Module
	found  string
}

func (p *probe) Helper()      {}
func (p *probe) Name() string { return "probe" }

func (p *probe) Errorf(format string, args ...any) {
	p.found = fmt.Sprintf(format, args...)
	panic(p)
}

func (p *probe) FailNow() { panic(p) }

// try returns what a check finds, or nothing.
func try(t *testing.T, text string, check func(testing.TB)) (found string) {
	m, err := ptx.Parse(text)
	require.NoError(t, err)
	p := &probe{module: m}
	defer func() {
		if v := recover(); v != nil && v != p {
			panic(v)
		}
		found = p.found
	}()
	check(p)
	return ""
}

func (i interpreter) Launch(kernel string, grid, block [3]int, args ...any) error {
	for k, a := range args {
		if p, ok := a.(Pointer); ok {
			args[k] = ptx.Pointer(p)
		}
	}
	m := i.modules[kernel]
	if m == nil {
		return fmt.Errorf("there is no kernel %q", kernel)
	}
	return m.Launch(i.Memory, kernel, ptx.Dim{X: grid[0], Y: grid[1], Z: grid[2]}, ptx.Dim{X: block[0], Y: block[1], Z: block[2]}, args...)
}

// alloc allocates memory that nothing is in yet.
func (g *gpu) alloc(name string, bytes int) Pointer {
	p, err := g.Alloc(name, bytes)
	if err != nil {
		panic(err)
	}
	g.sizes[p] = bytes
	return p
}

// room allocates room for float32 that nothing is in yet. On a GPU, where nobody sees what was
// not written, each is NaN.
func (g *gpu) room(name string, n int) Pointer {
	p := g.alloc(name, 4*n)
	if onGPU != nil {
		g.write(p, bytes.Repeat([]byte{0xff}, 4*n))
	}
	return p
}

func (g *gpu) write(to Pointer, data []byte) {
	if err := g.Write(to, data); err != nil {
		panic(err)
	}
}

// value puts a value of fixed size on the device.
func (g *gpu) value(name string, v any) Pointer {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		panic(err)
	}
	p := g.alloc(name, b.Len())
	g.write(p, b.Bytes())
	return p
}

// floats puts values on the device.
func (g *gpu) floats(name string, v []float32) Pointer { return g.value(name, v) }

// read reads a value of fixed size, all of which must have been written.
func (g *gpu) read(t testing.TB, p Pointer, v any) {
	t.Helper()
	b := make([]byte, g.sizes[p])
	require.NoError(t, g.Read(b, p))
	require.NoError(t, binary.Read(bytes.NewReader(b), binary.LittleEndian, v))
}

// values returns float32, all of which must have been written.
func (g *gpu) values(p Pointer) ([]float32, error) {
	b, v := make([]byte, g.sizes[p]), make([]float32, g.sizes[p]/4)
	if err := g.Read(b, p); err != nil {
		return nil, err
	}
	return v, binary.Read(bytes.NewReader(b), binary.LittleEndian, v)
}

// get is values that must be there.
func (g *gpu) get(t testing.TB, p Pointer) []float32 {
	t.Helper()
	v, err := g.values(p)
	require.NoError(t, err)
	return v
}

// random returns values of a normal distribution.
func random(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// A sum is one in float64, and the sum of its terms' magnitudes, which is what rounding
// errors are measured by.
type sum struct{ v, size float64 }

func (s *sum) add(terms ...float64) {
	for _, x := range terms {
		s.v += x
		s.size += math.Abs(x)
	}
}

// near compares results with sums: the error may be as large as share of the magnitude.
func near(want []sum, got []float32, share float64) error {
	if len(want) != len(got) {
		return fmt.Errorf("%d values, want %d", len(got), len(want))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w.v); !(d <= share*w.size+1e-30) {
			return fmt.Errorf("value %d is %v, want %v: off by %.3g, of which rounding explains %.3g", i, got[i], w.v, d, share*w.size)
		}
	}
	return nil
}
