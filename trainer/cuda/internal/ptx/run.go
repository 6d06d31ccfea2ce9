package ptx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// An execution is a launch, and the block of it that is under way.
type execution struct {
	k       *kernel
	mem     *Memory
	params  [][]byte
	grid    [3]int
	dim     [3]int
	at      [3]int
	number  int // of the block in the grid
	threads int
	phase   int // barriers passed
	shared  []*region
	warps   []*warp
	steps   int // of the block, by warps
}

// maxSteps is how many instructions a block may take, by warps.
const maxSteps = 1<<phaseBits - 1

// A warp is up to 32 threads that go in lockstep. Where they go different ways, one
// after the other does up to where they meet.
type warp struct {
	e         *execution
	first     int // thread
	registers []lanes
	set       []uint32 // lanes in which a register was written
	tid       [3]lanes
	local     [warpSize][]*region
	ways      []way // the last one is under way
	waiting   bool
}

// A way is where some threads are, and where they wait for others.
type way struct {
	at, end int
	active  uint32
}

func newWarp(e *execution, first int) *warp {
	k := e.k
	w := &warp{e: e, first: first, registers: make([]lanes, len(k.registers)), set: make([]uint32, len(k.registers))}
	for l := range min(warpSize, e.threads-first) {
		t := first + l
		w.tid[0][l], w.tid[1][l], w.tid[2][l] = uint64(t%e.dim[0]), uint64(t/e.dim[0]%e.dim[1]), uint64(t/e.dim[0]/e.dim[1])
		for _, v := range k.local {
			w.local[l] = append(w.local[l], newRegion(v.name, v.size, v.align))
		}
	}
	return w
}

// start makes a warp one of another block, of which nothing is known.
func (w *warp) start() {
	w.waiting = false
	w.ways = append(w.ways[:0], way{0, len(w.e.k.program), w.started()})
	clear(w.set)
	for _, list := range w.local {
		forget(list)
	}
}

// prepare makes the shared memory and the warps of all blocks, which run one by one.
func (e *execution) prepare() {
	for _, v := range e.k.shared {
		e.shared = append(e.shared, newRegion(v.name, v.size, v.align))
	}
	for first := 0; first < e.threads; first += warpSize {
		e.warps = append(e.warps, newWarp(e, first))
	}
}

// run runs all threads of a block.
func (e *execution) run(x, y, z int) error {
	e.at = [3]int{x, y, z}
	e.number = (z*e.grid[1]+y)*e.grid[0] + x
	e.phase, e.steps = 0, 0
	forget(e.shared)
	for _, w := range e.warps {
		w.start()
	}
	for {
		var waits, ended *warp
		for _, w := range e.warps {
			if err := w.run(); err != nil {
				return err
			}
			if w.waiting {
				waits = w
			} else {
				ended = w
			}
		}
		if waits == nil {
			return nil
		}
		if ended != nil {
			return waits.fault(&e.k.program[waits.top().at-1], faultf(Divergence, 0,
				"it waits at a barrier that thread %d will never reach: that has ended", ended.first))
		}
		e.phase++
		for _, w := range e.warps {
			w.waiting = false
		}
	}
}

func (w *warp) top() *way { return &w.ways[len(w.ways)-1] }

// run runs a warp up to a barrier or its end.
func (w *warp) run() error {
	program := w.e.k.program
	for len(w.ways) > 0 {
		t := w.top()
		if t.active == 0 || t.at == t.end {
			w.ways = w.ways[:len(w.ways)-1]
			continue
		}
		i := &program[t.at]
		if w.e.steps++; w.e.steps > maxSteps {
			return w.fault(i, faultf(Endless, bits.TrailingZeros32(t.active), "the block still runs after %d instructions", maxSteps))
		}
		active := t.active
		if i.guard >= 0 {
			if f := w.check(i.guard, active); f != nil {
				return w.fault(i, f)
			}
			for l := range warpSize {
				if (w.registers[i.guard][l] == 1) == i.negated {
					active &^= 1 << l
				}
			}
		}
		t.at++
		switch i.flow {
		case straight:
			if active == 0 {
				break
			}
			if f := i.run(w, active); f != nil {
				return w.fault(i, f)
			}
		case exit:
			for n := range w.ways {
				w.ways[n].active &^= active
			}
		case barrier:
			// All threads of the block take part (section "bar"): none may have gone
			// another way, nor ended.
			if missing := w.started() &^ active; missing != 0 {
				return w.fault(i, faultf(Divergence, bits.TrailingZeros32(active|1<<31), "it waits at a barrier, thread %d doesn't",
					w.first+bits.TrailingZeros32(missing)))
			}
			w.waiting = true
			return nil
		case branch:
			w.branch(i, active)
		}
	}
	return nil
}

// started are the threads that the warp began with.
func (w *warp) started() uint32 { return 1<<min(warpSize, w.e.threads-w.first) - 1 }

// branch sends the taken threads to the target, and the others on.
func (w *warp) branch(i *instruction, taken uint32) {
	t := w.top()
	on := t.active &^ taken
	switch {
	case taken == 0:
	case on == 0:
		t.at = i.target
	default:
		next, end := t.at, t.end
		t.at = i.meet
		if i.meet == end {
			w.ways = w.ways[:len(w.ways)-1] // whoever waits for these threads waits there
		}
		w.ways = append(w.ways, way{next, i.meet, on}, way{i.target, i.meet, taken})
	}
}

// read returns an operand's lanes.
func (w *warp) read(s source, active uint32) (*lanes, *fault) {
	switch {
	case s.lanes != nil:
		return s.lanes, nil
	case s.special != nil:
		return s.special(w), nil
	}
	return &w.registers[s.register], w.check(s.register, active)
}

// check finds reads of registers that were not written.
func (w *warp) check(register int, active uint32) *fault {
	if unset := active &^ w.set[register]; unset != 0 {
		return faultf(Uninitialised, bits.TrailingZeros32(unset), "register %s was never written", w.e.k.registers[register].name)
	}
	return nil
}

func (w *warp) fault(i *instruction, f *fault) error {
	return &Fault{
		Kind: f.kind, Kernel: w.e.k.name, Line: i.line, Text: i.text,
		Block: w.e.at, Thread: w.first + f.lane, Detail: f.detail,
	}
}

// memory makes a load or a store run.
func (k *kernel) memory(op memoryOp, operands []operand) (func(*warp, uint32) *fault, error) {
	if len(operands) != 2 {
		return nil, fmt.Errorf("%d operands, it has 2", len(operands))
	}
	value, place := operands[0], operands[1]
	if op.store {
		value, place = place, value
	}
	if place.kind != addressOperand {
		return nil, fmt.Errorf("the address isn't in brackets")
	}
	parts := []operand{value}
	if value.kind == vectorOperand {
		parts = value.parts
	}
	if len(parts) != op.vector || (value.kind == vectorOperand) != (op.vector > 1) {
		return nil, fmt.Errorf("%d values, it has %d", len(parts), op.vector)
	}
	fits := func(t typ) bool { return t.holds(op.typ) }
	var to []int
	var from []source
	for _, p := range parts {
		if op.store {
			s, err := k.operand(p, op.typ)
			if err != nil {
				return nil, err
			}
			from = append(from, s)
			continue
		}
		d, err := k.destination(p, fits)
		if err != nil {
			return nil, err
		}
		to = append(to, d)
	}
	if op.space == "param" {
		return k.loadParam(op, to[0], place)
	}
	base := source{register: -1, lanes: same(0)}
	if place.name != "" {
		kind := symbolOperand
		if place.name[0] == '%' {
			kind = registerOperand
		}
		address := u64
		if n, ok := k.numbers[place.name]; ok && op.space[0] != 'g' && k.registers[n].typ.bits == 32 {
			address = u32
		}
		var err error
		if base, err = k.operand(operand{kind: kind, name: place.name}, address); err != nil {
			return nil, err
		}
	}
	size := op.typ.size()
	return func(w *warp, active uint32) *fault {
		addresses, f := w.read(base, active)
		if f != nil {
			return f
		}
		var values [4]*lanes
		for i, s := range from {
			if values[i], f = w.read(s, active); f != nil {
				return f
			}
		}
		at := *addresses // a load may overwrite its own address
		list, bits := w.e.mem.regions, uint(globalBits)
		if op.space == "shared" {
			list, bits = w.e.shared, blockBits
		}
		by := newAccess(w.e.mem.launch, w.e.number, w.e.phase, w.first)
		for l := range warpSize {
			if active>>l&1 == 0 {
				continue
			}
			if op.space == "local" {
				list, bits = w.local[l], blockBits
			}
			r, offset, f := find(list, bits, at[l]+place.value, size*op.vector, l)
			if f != nil {
				return f
			}
			by := by + access(l)
			if f := r.check(offset, size*op.vector, op.store, by, l); f != nil {
				return f
			}
			if op.space == "global.nc" {
				if f := r.constant(offset, size*op.vector, by, l); f != nil {
					return f
				}
			}
			for i, d := range to {
				w.registers[d][l] = op.typ.extend(get(r.data[offset+i*size:][:size]), k.registers[d].typ)
			}
			for i := range from {
				put(r.data[offset+i*size:][:size], values[i][l])
			}
		}
		for _, d := range to {
			w.set[d] |= active
		}
		return nil
	}, nil
}

func (k *kernel) loadParam(op memoryOp, to int, place operand) (func(*warp, uint32) *fault, error) {
	for n, p := range k.params {
		if p.name != place.name {
			continue
		}
		if p.typ.bits != op.typ.bits || place.value != 0 {
			return nil, fmt.Errorf("parameter %s is of type %s", p.name, typeName(p.typ))
		}
		return func(w *warp, active uint32) *fault {
			v := op.typ.extend(get(w.e.params[n]), k.registers[to].typ)
			for l := range warpSize {
				if active>>l&1 == 1 {
					w.registers[to][l] = v
				}
			}
			w.set[to] |= active
			return nil
		}, nil
	}
	return nil, fmt.Errorf("there is no parameter %q", place.name)
}

// pack checks and encodes a launch's arguments.
func (k *kernel) pack(args []any) ([][]byte, error) {
	if len(args) != len(k.params) {
		return nil, fmt.Errorf("kernel %s has %d parameters, not %d", k.name, len(k.params), len(args))
	}
	var all [][]byte
	for i, arg := range args {
		var t typ
		var b []byte
		switch v := arg.(type) {
		case Pointer:
			t, b = u64, binary.LittleEndian.AppendUint64(nil, uint64(v))
		case uint64:
			t, b = u64, binary.LittleEndian.AppendUint64(nil, v)
		case uint32:
			t, b = u32, binary.LittleEndian.AppendUint32(nil, v)
		case int32:
			t, b = u32, binary.LittleEndian.AppendUint32(nil, uint32(v))
		case float32:
			t, b = f32, binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))
		default:
			return nil, fmt.Errorf("kernel %s, argument %d: type %T isn't known", k.name, i, arg)
		}
		if !t.agrees(k.params[i].typ) {
			return nil, fmt.Errorf("kernel %s, argument %d is a %T, but parameter %s is .%s",
				k.name, i, arg, k.params[i].name, typeName(k.params[i].typ))
		}
		all = append(all, b)
	}
	return all, nil
}
