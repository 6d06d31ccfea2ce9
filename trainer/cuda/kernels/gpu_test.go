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

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/cuda/internal/ptx"
)

// gpu is a GPU in the form of an interpreter.
type gpu struct {
	*ptx.Memory
	modules map[string]*ptx.Module // by kernel
}

// newGPU returns one that runs the PTX that ships, unless the test has other PTX.
func newGPU(t testing.TB) *gpu {
	g := &gpu{ptx.NewMemory(), map[string]*ptx.Module{}}
	modules := parsed()
	if p, ok := t.(*probe); ok {
		modules = append(slices.Clone(modules), p.module) // the last one counts
	}
	for _, m := range modules {
		for _, k := range m.Kernels() {
			g.modules[k] = m
		}
	}
	return g
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

func (g *gpu) Launch(kernel string, grid, block [3]int, args ...any) error {
	for i, a := range args {
		if p, ok := a.(Pointer); ok {
			args[i] = ptx.Pointer(p)
		}
	}
	m := g.modules[kernel]
	if m == nil {
		return fmt.Errorf("there is no kernel %q", kernel)
	}
	return m.Launch(g.Memory, kernel, ptx.Dim{X: grid[0], Y: grid[1], Z: grid[2]}, ptx.Dim{X: block[0], Y: block[1], Z: block[2]}, args...)
}

// floats puts values on the device.
func (g *gpu) floats(name string, v []float32) Pointer { return Pointer(g.Memory.Floats(name, v)) }

// room allocates room for float32 that nothing is in yet.
func (g *gpu) room(name string, n int) Pointer { return Pointer(g.Alloc(name, 4*n)) }

// value puts a value of fixed size on the device.
func (g *gpu) value(name string, v any) Pointer {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		panic(err)
	}
	return Pointer(g.Bytes(name, b.Bytes()))
}

// read reads a value of fixed size, all of which must have been written.
func (g *gpu) read(t testing.TB, p Pointer, v any) {
	t.Helper()
	b, err := g.All(ptx.Pointer(p))
	require.NoError(t, err)
	require.NoError(t, binary.Read(bytes.NewReader(b), binary.LittleEndian, v))
}

// get returns float32, all of which must have been written.
func (g *gpu) get(t testing.TB, p Pointer) []float32 {
	t.Helper()
	v, err := g.Values(ptx.Pointer(p))
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
