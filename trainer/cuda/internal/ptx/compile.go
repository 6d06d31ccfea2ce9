package ptx

import (
	"fmt"
	"slices"
	"strings"
)

// An instruction is one that can run.
type instruction struct {
	line    int
	text    string
	guard   int // register, or -1
	negated bool
	flow    flow
	target  int // of a branch
	meet    int // where the ways of a branch come together again; the program's length: at its end
	run     func(w *warp, active uint32) *fault
}

type flow uint8

const (
	straight flow = iota
	branch
	exit
	barrier
)

// A source is where an instruction takes an operand from.
type source struct {
	register int                // or -1
	lanes    *lanes             // else these
	special  func(*warp) *lanes // else those
}

// lanes are a value for each thread of a warp.
type lanes = [warpSize]uint64

// specials are the special registers (section of that name). All are 32 bits.
var specials = map[string]func(*warp) *lanes{}

func init() {
	for axis, name := range []string{"x", "y", "z"} {
		specials["%tid."+name] = func(w *warp) *lanes { return &w.tid[axis] }
		specials["%ntid."+name] = func(w *warp) *lanes { return same(uint64(w.e.dim[axis])) }
		specials["%ctaid."+name] = func(w *warp) *lanes { return same(uint64(w.e.at[axis])) }
		specials["%nctaid."+name] = func(w *warp) *lanes { return same(uint64(w.e.grid[axis])) }
	}
}

// same is one value for all lanes.
func same(v uint64) *lanes {
	l := &lanes{}
	for i := range l {
		l[i] = v
	}
	return l
}

// compile makes the program of a kernel.
func (k *kernel) compile() error {
	total := 0
	for _, v := range k.shared {
		total += v.size
	}
	if total > maxShared {
		return fmt.Errorf("kernel %s has %d bytes of shared memory, of which it may have %d", k.name, total, maxShared)
	}
	for _, s := range k.source {
		i, err := k.instruction(s)
		if err != nil {
			return fmt.Errorf("PTX line %d: %s: %w", s.line, s.text, err)
		}
		k.program = append(k.program, i)
	}
	last := len(k.program) - 1
	if last < 0 || k.program[last].guard >= 0 || k.program[last].flow != exit && k.program[last].flow != branch {
		return fmt.Errorf("kernel %s doesn't end with ret or a branch", k.name)
	}
	k.meet()
	k.source = nil
	return nil
}

func (k *kernel) instruction(s statement) (i instruction, err error) {
	i = instruction{line: s.line, text: s.text, guard: -1, negated: s.negated}
	if s.guard != "" {
		if i.guard, err = k.register(s.guard, pred.agrees); err != nil {
			return i, err
		}
	}
	switch s.op {
	case "bra", "bra.uni":
		i.flow = branch
		if len(s.operands) != 1 || s.operands[0].kind != symbolOperand {
			return i, fmt.Errorf("a branch has one label")
		}
		target, ok := k.labels[s.operands[0].name]
		if !ok || target >= len(k.source) {
			return i, fmt.Errorf("there is no instruction at label %s", s.operands[0].name)
		}
		i.target = target
		if s.op == "bra.uni" && s.guard != "" {
			return i, fmt.Errorf("a uniform branch with a guard isn't known")
		}
		return i, nil
	case "ret":
		i.flow = exit
		if len(s.operands) != 0 {
			return i, fmt.Errorf("ret has no operands")
		}
		return i, nil
	case "bar.sync":
		i.flow = barrier
		if len(s.operands) != 1 || s.operands[0].kind != constantOperand || s.operands[0].value != 0 {
			return i, fmt.Errorf("only barrier 0 is known")
		}
		return i, nil
	case "shfl.sync.bfly.b32":
		i.run, err = k.shuffle(s.operands)
	case "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32":
		i.run, err = k.mma(s.operands)
	default:
		if p, ok := pures[s.op]; ok {
			i.run, err = k.pure(p, s.operands)
		} else if a, ok := parseMemoryOp(s.op); ok {
			i.run, err = k.memory(a, s.operands)
		} else {
			err = fmt.Errorf("instruction %s isn't known", s.op)
		}
	}
	return i, err
}

// register is the number of a register whose type fits.
func (k *kernel) register(name string, fits func(typ) bool) (int, error) {
	n, ok := k.numbers[name]
	if !ok {
		return 0, fmt.Errorf("there is no register %s", name)
	}
	if t := k.registers[n].typ; !fits(t) {
		return 0, fmt.Errorf("register %s has type %s, which doesn't fit", name, typeName(t))
	}
	return n, nil
}

// destination is the number of a register that is to be written.
func (k *kernel) destination(o operand, fits func(typ) bool) (int, error) {
	if o.kind != registerOperand {
		return 0, fmt.Errorf("the destination is no register")
	}
	return k.register(o.name, fits)
}

// source is an operand of a type.
func (k *kernel) operand(o operand, t typ) (source, error) {
	s := source{register: -1}
	switch o.kind {
	case registerOperand:
		if f, ok := specials[o.name]; ok {
			if !t.agrees(u32) {
				return s, fmt.Errorf("special registers have 32 bits")
			}
			s.special = f
			return s, nil
		}
		var err error
		s.register, err = k.register(o.name, t.agrees)
		return s, err
	case constantOperand:
		if o.float != (typ{}) && o.float != t || o.float == (typ{}) && t.kind == 'f' {
			return s, fmt.Errorf("a constant is not of type %s", typeName(t))
		}
		// An integer is one of 64 bits, and may be negative (section "Integer Constants").
		signed := typ{'s', t.bits}.extend(o.value, s64)
		if t.kind != 'f' && o.value != o.value&t.mask() && o.value != signed {
			return s, fmt.Errorf("the constant %d doesn't fit into type %s", int64(o.value), typeName(t))
		}
		s.lanes = same(o.value & t.mask())
		return s, nil
	case symbolOperand:
		for _, space := range [][]variable{k.shared, k.local} {
			n := slices.IndexFunc(space, func(v variable) bool { return v.name == o.name })
			if n >= 0 && (t.agrees(u32) || t.agrees(u64)) {
				s.lanes = same(uint64(n+1) << blockBits)
				return s, nil
			}
		}
		return s, fmt.Errorf("there is no variable %s", o.name)
	}
	return s, fmt.Errorf("an operand of this kind isn't known here")
}

func (k *kernel) pure(p pure, operands []operand) (func(*warp, uint32) *fault, error) {
	if len(operands) != 1+len(p.src) {
		return nil, fmt.Errorf("%d operands, it has %d", len(operands), 1+len(p.src))
	}
	d, err := k.destination(operands[0], p.dst.agrees)
	if err != nil {
		return nil, err
	}
	src := [3]source{{register: -1, lanes: &lanes{}}, {register: -1, lanes: &lanes{}}, {register: -1, lanes: &lanes{}}}
	for i, t := range p.src {
		if src[i], err = k.operand(operands[1+i], t); err != nil {
			return nil, err
		}
	}
	return func(w *warp, active uint32) *fault {
		var v [3]*lanes
		for i := range src {
			var f *fault
			if v[i], f = w.read(src[i], active); f != nil {
				return f
			}
		}
		a, b, c, dst := v[0], v[1], v[2], &w.registers[d]
		w.set[d] |= active
		if active == 1<<warpSize-1 && p.bad == nil {
			for l := range dst {
				dst[l] = p.f(a[l], b[l], c[l])
			}
			return nil
		}
		for l := range dst {
			if active>>l&1 == 0 {
				continue
			}
			if p.bad != nil {
				if why := p.bad(a[l], b[l], c[l]); why != "" {
					return faultf(Operand, l, "%s", why)
				}
			}
			dst[l] = p.f(a[l], b[l], c[l])
		}
		return nil
	}, nil
}

// meet finds for each branch that may diverge where all of its ways come together
// again at the latest: its immediate post-dominator. There the warp's threads go
// on together. (The ISA leaves open when they do, in "SIMT architecture"; shuffles,
// barriers and tensor-core products here want all threads, so a kernel that depends
// on meeting earlier or elsewhere is found.)
func (k *kernel) meet() {
	n := len(k.program)
	next := func(i int) []int {
		switch in := &k.program[i]; {
		case in.flow == exit && in.guard < 0:
			return []int{n}
		case in.flow == exit:
			return []int{i + 1, n}
		case in.flow == branch && in.guard < 0:
			return []int{in.target}
		case in.flow == branch:
			return []int{i + 1, in.target}
		}
		return []int{i + 1}
	}
	// Post-dominators as in Cooper, Harvey and Kennedy, "A Simple, Fast Dominance
	// Algorithm", on the reversed graph, whose root is the end.
	previous := make([][]int, n+1)
	for i := range n {
		for _, j := range next(i) {
			previous[j] = append(previous[j], i)
		}
	}
	var order []int // reverse post-order from the end
	number := make([]int, n+1)
	seen := make([]bool, n+1)
	type frame struct{ node, child int }
	seen[n] = true
	for stack := []frame{{n, 0}}; len(stack) > 0; {
		top := &stack[len(stack)-1]
		if top.child < len(previous[top.node]) {
			child := previous[top.node][top.child]
			top.child++
			if !seen[child] {
				seen[child] = true
				stack = append(stack, frame{child, 0})
			}
			continue
		}
		number[top.node] = len(order)
		order = append(order, top.node)
		stack = stack[:len(stack)-1]
	}
	slices.Reverse(order)
	dominator := make([]int, n+1)
	for i := range dominator {
		dominator[i] = -1
	}
	dominator[n] = n
	for changed := true; changed; {
		changed = false
		for _, i := range order[1:] {
			d := -1
			for _, j := range next(i) {
				if dominator[j] < 0 {
					continue
				}
				if d < 0 {
					d = j
					continue
				}
				for a := j; a != d; {
					for number[a] < number[d] {
						a = dominator[a]
					}
					for number[d] < number[a] {
						d = dominator[d]
					}
				}
			}
			if d != dominator[i] {
				dominator[i] = d
				changed = true
			}
		}
	}
	for i := range k.program {
		k.program[i].meet = n
		if dominator[i] >= 0 { // else it never ends
			k.program[i].meet = dominator[i]
		}
	}
}

// A memoryOp is a load or a store (sections "ld" and "st").
type memoryOp struct {
	store  bool
	space  string
	vector int
	typ    typ
}

func parseMemoryOp(name string) (op memoryOp, ok bool) {
	words := strings.Split(name, ".")
	if len(words) < 3 || len(words) > 5 {
		return op, false
	}
	op = memoryOp{store: words[0] == "st", space: words[1], vector: 1}
	if !op.store && words[0] != "ld" {
		return op, false
	}
	rest := words[2:]
	if op.space == "global" && rest[0] == "nc" && !op.store {
		op.space, rest = "global.nc", rest[1:]
	}
	if len(rest) == 2 && (rest[0] == "v2" || rest[0] == "v4") {
		op.vector = int(rest[0][1] - '0')
		rest = rest[1:]
	}
	if len(rest) != 1 {
		return op, false
	}
	op.typ, ok = types[rest[0]]
	switch op.space {
	case "param":
		ok = ok && !op.store && op.vector == 1
	case "global", "global.nc", "shared", "local":
	default:
		return op, false
	}
	// What is written is a word at least: that is what races are looked for in.
	ok = ok && op.typ.kind != 'p' && op.typ.size()*op.vector <= 16 && (!op.store || op.typ.size() >= 4)
	return op, ok
}
