// Package ptx runs the PTX of our kernels on a machine without a GPU, for tests
// alone, and checks what they do on the way.
//
// It is an interpreter of the subset of PTX that clang makes of our sources,
// written from NVIDIA's document "PTX ISA", version 7.8; comments name its
// sections. Warps of 32 threads go in lockstep, and meet again where their
// branches do; barriers, shuffles, shared, global, local and parameter memory,
// predicates and tensor-core products are there. What isn't in its tables is an
// error of [Parse]: no instruction, modifier or directive is skipped.
//
// What a launch does wrong ends it with a [Fault]: what NVIDIA's compute-sanitizer
// finds with memcheck, initcheck, racecheck and synccheck, and more, such as
// registers that are read before they are set.
//
// Where the ISA leaves a result open (the order and the rounding of sums in tensor
// cores), it is that which is furthest from the exact one. Everything else that
// is here rounds correctly, so results are those of a GPU, to the bit.
//
// Not in it: time, caches, and the order in which a GPU runs blocks and warps. That
// no result depends on that order is what the race checks are for: two accesses
// to a word, one of them a write, by threads that no barrier orders, are a fault
// whatever order they ran in. The granularity is a word of four bytes: kernels that
// write smaller things are refused.
package ptx

import "fmt"

// Limits of a block, from the section "Launching" of the CUDA programming guide and
// those of sm_80: what a kernel may have without asking for more.
const (
	warpSize   = 32
	maxThreads = 1024
	maxShared  = 48 << 10
)

// Module is the kernels of one PTX file.
type Module struct {
	kernels map[string]*kernel
}

// Kernels lists the names of the entries, in their order in the file.
func (m *Module) Kernels() []string {
	names := make([]string, len(m.kernels))
	for name, k := range m.kernels {
		names[k.order] = name
	}
	return names
}

// Dim is the size of a grid or a block; zeros count as one.
type Dim struct{ X, Y, Z int }

func (d Dim) array() [3]int { return [3]int{max(d.X, 1), max(d.Y, 1), max(d.Z, 1)} }

// Launch runs a kernel. The arguments are [Pointer], uint64, int64, uint32, int32,
// float32 and float64, as many and as large as the kernel's parameters. The error is
// a *[Fault] if the kernel did what it must not do.
func (m *Module) Launch(mem *Memory, name string, grid, block Dim, args ...any) error {
	k := m.kernels[name]
	if k == nil {
		return fmt.Errorf("the module has no kernel %q, only %q", name, m.Kernels())
	}
	params, err := k.pack(args)
	if err != nil {
		return err
	}
	g, b := grid.array(), block.array()
	threads := b[0] * b[1] * b[2]
	if threads > k.maxThreads {
		return fmt.Errorf("kernel %s: a block of %d threads, of which it may have %d", name, threads, k.maxThreads)
	}
	if blocks := g[0] * g[1] * g[2]; blocks > 1<<numberBits {
		return fmt.Errorf("kernel %s: %d blocks are more than this interpreter takes", name, blocks)
	}
	if mem.launch++; mem.launch == 1<<launchBits {
		mem.launch = 1 // as if what was long ago had never been
		forgetLaunches(mem.regions)
	}
	e := &execution{k: k, mem: mem, params: params, grid: g, dim: b, threads: threads}
	e.prepare()
	for z := range g[2] {
		for y := range g[1] {
			for x := range g[0] {
				if err := e.run(x, y, z); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Fault is what a kernel did wrong, and where.
type Fault struct {
	Kind   Kind
	Kernel string
	Line   int    // of the PTX file
	Text   string // of the instruction
	Block  [3]int
	Thread int // in the block
	Detail string
}

// Kind is a kind of fault.
type Kind string

// The kinds of faults.
const (
	OutOfBounds   Kind = "out of bounds"
	Misaligned    Kind = "misaligned"
	Uninitialised Kind = "uninitialised"
	Race          Kind = "race"
	Divergence    Kind = "divergence"
	Operand       Kind = "bad operand" // a value for which the ISA leaves the result open
	Endless       Kind = "endless"
)

func (f *Fault) Error() string {
	return fmt.Sprintf("%s in kernel %s, line %d, block %v, thread %d: %s\n\t%s",
		f.Kind, f.Kernel, f.Line, f.Block, f.Thread, f.Detail, f.Text)
}

// fault is a [Fault] as far as an instruction knows it.
type fault struct {
	kind   Kind
	lane   int
	detail string
}

func faultf(kind Kind, lane int, format string, args ...any) *fault {
	return &fault{kind, lane, fmt.Sprintf(format, args...)}
}
