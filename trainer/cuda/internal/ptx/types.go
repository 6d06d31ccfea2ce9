package ptx

import "math"

// typ is a fundamental type (section "Fundamental Types").
type typ struct {
	kind byte // 's', 'u', 'f', 'b' or 'p', as its name begins
	bits int
}

func (t typ) size() int { return t.bits / 8 }

var (
	pred = typ{'p', 1}
	b8   = typ{'b', 8}
	u8   = typ{'u', 8}
	b16  = typ{'b', 16}
	u16  = typ{'u', 16}
	b32  = typ{'b', 32}
	s32  = typ{'s', 32}
	u32  = typ{'u', 32}
	f32  = typ{'f', 32}
	b64  = typ{'b', 64}
	s64  = typ{'s', 64}
	u64  = typ{'u', 64}
	f64  = typ{'f', 64}
)

var types = map[string]typ{
	"pred": pred, "b8": b8, "u8": u8, "b16": b16, "u16": u16, "b32": b32, "s32": s32, "u32": u32, "f32": f32,
	"b64": b64, "s64": s64, "u64": u64, "f64": f64,
}

// agrees reports whether a register of type t may be an operand of type want: same
// size, and not a float where an integer is wanted or the other way round (section
// "Operand Type Checking").
func (t typ) agrees(want typ) bool {
	if t.bits != want.bits || (t.kind == 'p') != (want.kind == 'p') {
		return false
	}
	return t.kind == 'b' || want.kind == 'b' || (t.kind == 'f') == (want.kind == 'f')
}

// holds reports whether a register of type t may take a value of type v from memory:
// it may be wider (section "Operand Size Exceeding Instruction-Type Size").
func (t typ) holds(v typ) bool {
	if t.kind == 'p' || v.kind == 'p' {
		return false
	}
	return t.agrees(v) || t.bits > v.bits && t.kind != 'f' && v.kind != 'f'
}

// extend makes a value of type t, which is in the low bits, one of a whole register
// of type to.
func (t typ) extend(v uint64, to typ) uint64 {
	if t.kind == 's' {
		shift := 64 - t.bits
		return uint64(int64(v<<shift)>>shift) & to.mask()
	}
	return v & t.mask()
}

func (t typ) mask() uint64 { return 1<<(t.bits-1)<<1 - 1 }

// Registers hold their bits in the low ones of 64.

func float(v uint64) float32  { return math.Float32frombits(uint32(v)) }
func double(v uint64) float64 { return math.Float64frombits(v) }
func bits32(v float32) uint64 { return uint64(math.Float32bits(v)) }
func bits64(v float64) uint64 { return math.Float64bits(v) }
func truth(b bool) (one uint64) {
	if b {
		one = 1
	}
	return one
}

// fma32 is a*b+c, rounded once. The product is exact in float64; the sum is rounded
// there to odd, so that rounding it again to float32 gives what rounding once does
// (Boldo and Melquiond, 2008).
func fma32(a, b, c float32) float32 {
	p, z := float64(a)*float64(b), float64(c)
	s := p + z
	// Rounding twice goes wrong only where the first one gave a point halfway between two
	// float32, subnormal ones included: all low bits are zero there.
	if math.Float64bits(s)&(1<<28-1) != 0 {
		return float32(s)
	}
	back := float64(s - p)
	e := float64(p-float64(s-back)) + float64(z-back) // what the rounding lost (Knuth's TwoSum)
	if e == 0 || math.IsNaN(e) || math.IsInf(s, 0) {
		return float32(s)
	}
	bits := math.Float64bits(s)
	if bits&1 == 0 {
		if (e > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
	}
	return float32(math.Float64frombits(bits))
}
