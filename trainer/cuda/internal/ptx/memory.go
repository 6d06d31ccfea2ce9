package ptx

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Pointer is an address in global memory.
type Pointer uint64

// Memory is the global memory of a device, and what is known of its bytes.
type Memory struct {
	regions []*region
	launch  int32
}

// NewMemory returns a memory without allocations.
func NewMemory() *Memory { return &Memory{} }

// Addresses have the number of their region in the upper bits: every region has a
// space of its own, so that none can be reached from another one.
const (
	globalBits = 32
	blockBits  = 20  // of shared and local memory, whose addresses have 32 bits
	allocAlign = 256 // what cuMemAlloc guarantees
)

// Alloc reserves memory of which nothing is initialised. The name is for faults.
func (m *Memory) Alloc(name string, size int) Pointer {
	m.regions = append(m.regions, newRegion(name, size, allocAlign))
	return Pointer(uint64(len(m.regions)) << globalBits)
}

// Floats allocates and writes.
func (m *Memory) Floats(name string, values []float32) Pointer {
	p := m.Alloc(name, 4*len(values))
	r := m.region(p)
	for i, v := range values {
		binary.LittleEndian.PutUint32(r.data[4*i:], math.Float32bits(v))
	}
	r.initialise()
	return p
}

// Bytes allocates and writes.
func (m *Memory) Bytes(name string, values []byte) Pointer {
	p := m.Alloc(name, len(values))
	copy(m.region(p).data, values)
	m.region(p).initialise()
	return p
}

// Write replaces the whole of an allocation.
func (m *Memory) Write(p Pointer, values []byte) {
	r := m.region(p)
	if len(values) != len(r.data) {
		panic(fmt.Sprintf("%d bytes for %s, which has %d", len(values), r.name, len(r.data)))
	}
	copy(r.data, values)
	r.initialise()
}

// Read returns the bytes of an allocation, or an error if some were never written.
func (m *Memory) Read(p Pointer) ([]byte, error) {
	r := m.region(p)
	for i, ok := range r.init {
		if ok == 0 {
			return nil, fmt.Errorf("byte %d of %s was never written", i, r.name)
		}
	}
	return append([]byte(nil), r.data...), nil
}

// ReadFloats is [Memory.Read] for float32.
func (m *Memory) ReadFloats(p Pointer) ([]float32, error) {
	data, err := m.Read(p)
	if err != nil {
		return nil, err
	}
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values, nil
}

// region is that of a pointer as Alloc returned it.
func (m *Memory) region(p Pointer) *region {
	i := uint64(p)>>globalBits - 1
	if i >= uint64(len(m.regions)) || uint32(p) != 0 {
		panic(fmt.Sprintf("%#x is no pointer of this memory", uint64(p)))
	}
	return m.regions[i]
}

// A region is one allocation or one variable.
type region struct {
	name  string
	align int
	data  []byte
	init  []byte // 1 for each byte that was written
	words []shadow
}

func newRegion(name string, size, align int) *region {
	return &region{name, align, make([]byte, size), make([]byte, size), make([]shadow, (size+3)/4)}
}

func (r *region) initialise() {
	for i := range r.init {
		r.init[i] = 1
	}
}

// A shadow is who used a word last in a launch.
type shadow struct {
	writer, reader access
	readers        readers
}

// An access is by a thread of a block, in a phase: the number of barriers that the
// block has passed.
type access struct {
	launch, block, thread, phase int32
}

// readers says how many threads the reader stands for.
type readers uint8

const (
	oneThread readers = iota
	oneBlock          // several threads of its block, in its phase
	manyBlocks
)

// conflicts reports whether no barrier orders two accesses.
func (a access) conflicts(b access) bool {
	return a.launch == b.launch && (a.block != b.block || a.phase == b.phase && a.thread != b.thread)
}

// read notes a read, and returns the write that races with it.
func (s *shadow) read(by access) (other access, race bool) {
	if s.writer.conflicts(by) {
		return s.writer, true
	}
	switch last := s.reader; {
	case last.launch != by.launch:
		s.reader, s.readers = by, oneThread
	case last.block != by.block:
		s.readers = manyBlocks
	case s.readers == manyBlocks:
	case last.phase != by.phase:
		s.reader, s.readers = by, oneThread
	case last.thread != by.thread:
		s.readers = oneBlock
	}
	return other, false
}

// write notes a write, and returns the access that races with it.
func (s *shadow) write(by access) (other access, race bool) {
	if s.writer.conflicts(by) {
		return s.writer, true
	}
	if r := s.reader; r.launch == by.launch &&
		(s.readers == manyBlocks || r.conflicts(by) || s.readers == oneBlock && r.phase == by.phase) {
		return r, true
	}
	s.writer = by
	return other, false
}

// find returns the bytes [offset, offset+size) of a region in a list, whose
// addresses have the given number of bits below the region's number.
func find(list []*region, bits uint, address uint64, size, lane int) (r *region, offset int, f *fault) {
	i, off := address>>bits-1, address&(1<<bits-1)
	if i >= uint64(len(list)) {
		return nil, 0, faultf(OutOfBounds, lane, "there is nothing at address %#x", address)
	}
	r = list[i]
	if off+uint64(size) > uint64(len(r.data)) {
		return nil, 0, faultf(OutOfBounds, lane, "%d bytes at offset %d of %s, which has %d", size, off, r.name, len(r.data))
	}
	if off%uint64(size) != 0 || r.align < size {
		return nil, 0, faultf(Misaligned, lane, "%d bytes at offset %d of %s, which is aligned to %d", size, off, r.name, r.align)
	}
	return r, int(off), nil
}

// check notes the use of bytes, and finds races and reads of what was never written.
func (r *region) check(offset, size int, write bool, by access, lane int) *fault {
	if !write {
		for i, ok := range r.init[offset:][:size] {
			if ok == 0 {
				return faultf(Uninitialised, lane, "byte %d of %s was never written", offset+i, r.name)
			}
		}
	}
	for w := offset / 4; w <= (offset+size-1)/4; w++ {
		use, verb := r.words[w].read, "reads"
		if write {
			use, verb = r.words[w].write, "writes"
		}
		if other, race := use(by); race {
			return faultf(Race, lane, "it %s bytes %d to %d of %s, which thread %d of block number %d uses without a barrier between",
				verb, offset, offset+size-1, r.name, other.thread, other.block)
		}
	}
	if write {
		for i := range r.init[offset:][:size] {
			r.init[offset+i] = 1
		}
	}
	return nil
}

// constant notes that bytes must not change while the kernel runs, as a load by
// ld.global.nc takes for granted: any write then races with it.
func (r *region) constant(offset, size int, launch int32, lane int) *fault {
	for w := offset / 4; w <= (offset+size-1)/4; w++ {
		if r.words[w].writer.launch == launch {
			return faultf(Race, lane, "it reads bytes of %s as constant that this kernel writes", r.name)
		}
		r.words[w].readers = manyBlocks
	}
	return nil
}

func get(b []byte) (v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

func put(b []byte, v uint64) {
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
}
