package ptx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Pointer is an address in global memory.
type Pointer uint64

// Memory is the global memory of a device, and what is known of its bytes.
type Memory struct {
	regions []*region
	launch  int
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

// Bytes allocates and writes.
func (m *Memory) Bytes(name string, values []byte) Pointer {
	p := m.Alloc(name, len(values))
	r := m.regions[len(m.regions)-1]
	copy(r.data, values)
	for i := range r.init {
		r.init[i] = 1
	}
	return p
}

// Floats allocates and writes.
func (m *Memory) Floats(name string, values []float32) Pointer {
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	return m.Bytes(name, data)
}

// Free ends an allocation: using it is a fault from then on.
func (m *Memory) Free(p Pointer) error {
	if _, _, err := m.find(p, 0); err != nil {
		return err
	}
	m.regions[uint64(p)>>globalBits-1] = nil
	return nil
}

// Write copies bytes to an allocation, or into one.
func (m *Memory) Write(p Pointer, data []byte) error {
	r, offset, err := m.find(p, len(data))
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	copy(r.data[offset:], data)
	for i := range data {
		r.init[offset+i] = 1
	}
	return nil
}

// Read copies bytes from an allocation; that some were never written is an error.
func (m *Memory) Read(data []byte, p Pointer) error {
	r, offset, err := m.find(p, len(data))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if i := bytes.IndexByte(r.init[offset:][:len(data)], 0); i >= 0 {
		return fmt.Errorf("read: byte %d of %s was never written", offset+i, r.name)
	}
	copy(data, r.data[offset:])
	return nil
}

// find is what a pointer points at.
func (m *Memory) find(p Pointer, size int) (*region, int, error) {
	i, offset := uint64(p)>>globalBits-1, int(uint32(p))
	if i >= uint64(len(m.regions)) || m.regions[i] == nil {
		return nil, 0, fmt.Errorf("there is nothing at address %#x", uint64(p))
	}
	r := m.regions[i]
	if offset+size > len(r.data) {
		return nil, 0, fmt.Errorf("%d bytes at offset %d of %s, which has %d", size, offset, r.name, len(r.data))
	}
	return r, offset, nil
}

// All returns the bytes of an allocation, all of which must have been written.
func (m *Memory) All(p Pointer) ([]byte, error) {
	r, _, err := m.find(p, 0)
	if err != nil {
		return nil, err
	}
	data := make([]byte, len(r.data))
	return data, m.Read(data, p)
}

// Values returns an allocation of float32, all of which must have been written.
func (m *Memory) Values(p Pointer) ([]float32, error) {
	data, err := m.All(p)
	if err != nil {
		return nil, err
	}
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values, nil
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

// forgetLaunches leaves nothing of earlier launches in the shadows.
func forgetLaunches(list []*region) {
	for _, r := range list {
		if r != nil {
			clear(r.words)
		}
	}
}

// forget makes regions as they were when they were new, but for values that nothing may
// read any more.
func forget(list []*region) {
	for _, r := range list {
		clear(r.init)
		clear(r.words)
	}
}

// A shadow is who used a word last in a launch.
type shadow struct {
	writer, reader access
	readers        readers
}

// An access is by a thread of a block, in a phase: the number of barriers that the
// block has passed. It has the launch, the block, the phase and the thread, from the
// upper bits to the lower ones, so that two are compared at once.
type access uint64

// Bits of an access's parts.
const (
	launchBits = 14
	numberBits = 18 // of the block
	phaseBits  = 22 // as many as the steps that a block may take
	threadBits = 10 // of as many threads as a block may have
)

func newAccess(launch, block, phase, thread int) access {
	return access(launch)<<(numberBits+phaseBits+threadBits) | access(block)<<(phaseBits+threadBits) | access(phase)<<threadBits | access(thread)
}

// What two accesses have in common, shown by the parts that are equal.
func (a access) sameLaunch(b access) bool { return (a^b)>>(numberBits+phaseBits+threadBits) == 0 }
func (a access) sameBlock(b access) bool  { return (a^b)>>(phaseBits+threadBits) == 0 } // and launch
func (a access) samePhase(b access) bool  { return (a^b)>>threadBits == 0 }             // and block

func (a access) thread() int { return int(a & (1<<threadBits - 1)) }
func (a access) block() int  { return int(a >> (phaseBits + threadBits) & (1<<numberBits - 1)) }

// readers says how many threads the reader stands for.
type readers uint8

const (
	oneThread readers = iota
	oneBlock          // several threads of its block, in its phase
	manyBlocks
)

// conflicts reports whether no barrier orders two accesses.
func (a access) conflicts(b access) bool {
	return a != b && a.sameLaunch(b) && (a.samePhase(b) || !a.sameBlock(b))
}

// read notes a read, and returns the write that races with it.
func (s *shadow) read(by access) (other access, race bool) {
	if s.writer.conflicts(by) {
		return s.writer, true
	}
	switch last := s.reader; {
	case last == by:
	case !last.sameLaunch(by):
		s.reader, s.readers = by, oneThread
	case !last.sameBlock(by):
		s.readers = manyBlocks
	case s.readers == manyBlocks:
	case !last.samePhase(by):
		s.reader, s.readers = by, oneThread
	default:
		s.readers = oneBlock
	}
	return other, false
}

// write notes a write, and returns the access that races with it.
func (s *shadow) write(by access) (other access, race bool) {
	if s.writer.conflicts(by) {
		return s.writer, true
	}
	if r := s.reader; r.sameLaunch(by) && (s.readers == manyBlocks || r.conflicts(by) || s.readers == oneBlock && r.samePhase(by)) {
		return r, true
	}
	s.writer = by
	return other, false
}

// find returns the bytes [offset, offset+size) of a region in a list, whose
// addresses have the given number of bits below the region's number.
func find(list []*region, bits uint, address uint64, size, lane int) (r *region, offset int, f *fault) {
	i, off := address>>bits-1, address&(1<<bits-1)
	if i >= uint64(len(list)) || list[i] == nil {
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
	if init := r.init[offset:][:size]; !write && !bytes.Equal(init, written[:size]) {
		return faultf(Uninitialised, lane, "byte %d of %s was never written", offset+bytes.IndexByte(init, 0), r.name)
	}
	for w := offset / 4; w <= (offset+size-1)/4; w++ {
		var other access
		race, verb := false, "reads"
		if write {
			verb = "writes"
			other, race = r.words[w].write(by)
		} else {
			other, race = r.words[w].read(by)
		}
		if race {
			return faultf(Race, lane, "it %s bytes %d to %d of %s, which thread %d of block number %d uses without a barrier between",
				verb, offset, offset+size-1, r.name, other.thread(), other.block())
		}
	}
	if write {
		copy(r.init[offset:][:size], written)
	}
	return nil
}

// written is the mark of as many bytes as an instruction can access.
var written = bytes.Repeat([]byte{1}, 16)

// constant notes that bytes must not change while the kernel runs, as a load by
// ld.global.nc takes for granted: any write then races with it.
func (r *region) constant(offset, size int, by access, lane int) *fault {
	for w := offset / 4; w <= (offset+size-1)/4; w++ {
		if r.words[w].writer.sameLaunch(by) {
			return faultf(Race, lane, "it reads bytes of %s as constant that this kernel writes", r.name)
		}
		r.words[w].readers = manyBlocks
	}
	return nil
}

func get(b []byte) uint64 {
	switch len(b) {
	case 8:
		return binary.LittleEndian.Uint64(b)
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	}
	return uint64(b[0])
}

func put(b []byte, v uint64) {
	if len(b) == 8 {
		binary.LittleEndian.PutUint64(b, v)
	} else {
		binary.LittleEndian.PutUint32(b, uint32(v))
	}
}
