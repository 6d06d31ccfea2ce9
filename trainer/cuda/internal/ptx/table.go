package ptx

import (
	"math"
	"math/bits"
)

// A pure instruction computes a register from up to three operands, lane by lane.
type pure struct {
	dst typ
	src []typ
	f   func(a, b, c uint64) uint64
	// bad says why the ISA leaves the result of these operands open; may be nil.
	bad func(a, b, c uint64) string
}

// pures are the pure instructions that are known, by their whole names.
var pures = func() map[string]pure {
	t := map[string]pure{}
	op := func(name string, dst typ, f func(a, b, c uint64) uint64, src ...typ) {
		t[name] = pure{dst: dst, src: src, f: f}
	}
	integers(op)
	floats(op)
	comparisons(op)
	moves(op)
	for name, p := range t {
		if name == "div.s32" || name == "div.u32" || name == "rem.s32" || name == "rem.u32" {
			p.bad = func(_, b, _ uint64) string {
				if b == 0 {
					return "division by zero"
				}
				return ""
			}
			t[name] = p
		}
	}
	return t
}()

type define func(name string, dst typ, f func(a, b, c uint64) uint64, src ...typ)

// integers are those of the sections "Integer Arithmetic Instructions" and "Logic
// and Shift Instructions".
func integers(op define) {
	for _, t := range []typ{s32, u32, s64, u64} {
		name, mask := "."+string(t.kind)+map[int]string{32: "32", 64: "64"}[t.bits], t.mask()
		wide := func(v uint64) int64 { return int64(t.extend(v, u64)) }
		less := func(a, b uint64) bool { return a < b }
		if t.kind == 's' {
			less = func(a, b uint64) bool { return wide(a) < wide(b) }
		}
		op("add"+name, t, func(a, b, _ uint64) uint64 { return (a + b) & mask }, t, t)
		op("sub"+name, t, func(a, b, _ uint64) uint64 { return (a - b) & mask }, t, t)
		op("mul.lo"+name, t, func(a, b, _ uint64) uint64 { return a * b & mask }, t, t)
		op("mad.lo"+name, t, func(a, b, c uint64) uint64 { return (a*b + c) & mask }, t, t, t)
		op("min"+name, t, func(a, b, _ uint64) uint64 {
			if less(b, a) {
				return b
			}
			return a
		}, t, t)
		op("max"+name, t, func(a, b, _ uint64) uint64 {
			if less(a, b) {
				return b
			}
			return a
		}, t, t)
		op("shr"+name, t, func(a, b, _ uint64) uint64 { // of the type's size and more: all signs or zeros
			if t.kind == 's' {
				return uint64(wide(a)>>min(b, 63)) & mask
			}
			return a >> b
		}, t, u32)
	}
	for _, t := range []typ{s32, s64} {
		op("neg."+typeName(t), t, func(a, _, _ uint64) uint64 { return -a & t.mask() }, t)
	}
	op("mul.wide.s32", s64, func(a, b, _ uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) }, s32, s32)
	op("mul.wide.u32", u64, func(a, b, _ uint64) uint64 { return a * b }, u32, u32)
	op("mul.hi.s32", s32, func(a, b, _ uint64) uint64 { return uint64(uint32(int64(int32(a)) * int64(int32(b)) >> 32)) }, s32, s32)
	op("mul.hi.u32", u32, func(a, b, _ uint64) uint64 { return a * b >> 32 }, u32, u32)
	// By zero is a fault; here only for lanes that are not active.
	op("div.s32", s32, func(a, b, _ uint64) uint64 { return uint64(uint32(int64(int32(a)) / int64(nonzero(int32(b))))) }, s32, s32)
	op("div.u32", u32, func(a, b, _ uint64) uint64 { return a / max(b, 1) }, u32, u32)
	op("rem.s32", s32, func(a, b, _ uint64) uint64 { return uint64(uint32(int64(int32(a)) % int64(nonzero(int32(b))))) }, s32, s32)
	op("rem.u32", u32, func(a, b, _ uint64) uint64 { return a % max(b, 1) }, u32, u32)
	op("bfe.u32", u32, func(a, b, c uint64) uint64 { // c bits from bit b on
		return a >> (b & 255) & (1<<min(c&255, 32) - 1)
	}, u32, u32, u32)
	for _, t := range []typ{pred, b32, b64} {
		name, mask := typeName(t), t.mask()
		op("and."+name, t, func(a, b, _ uint64) uint64 { return a & b }, t, t)
		op("or."+name, t, func(a, b, _ uint64) uint64 { return a | b }, t, t)
		op("xor."+name, t, func(a, b, _ uint64) uint64 { return a ^ b }, t, t)
		op("not."+name, t, func(a, _, _ uint64) uint64 { return ^a & mask }, t)
		if t != pred {
			op("shl."+name, t, func(a, b, _ uint64) uint64 { return a << b & mask }, t, u32)
		}
	}
	op("popc.b32", u32, func(a, _, _ uint64) uint64 { return uint64(bits.OnesCount32(uint32(a))) }, b32)
}

func nonzero(v int32) int32 {
	if v == 0 {
		return 1
	}
	return v
}

// floats are those of the section "Floating Point Instructions". Without .ftz,
// subnormal numbers stay.
func floats(op define) {
	unary32 := func(name string, f func(a float32) float32) {
		op(name, f32, func(a, _, _ uint64) uint64 { return bits32(f(float(a))) }, f32)
	}
	binary32 := func(name string, f func(a, b float32) float32) {
		op(name, f32, func(a, b, _ uint64) uint64 { return bits32(f(float(a), float(b))) }, f32, f32)
	}
	unary64 := func(name string, f func(a float64) float64) {
		op(name, f64, func(a, _, _ uint64) uint64 { return bits64(f(double(a))) }, f64)
	}
	binary64 := func(name string, f func(a, b float64) float64) {
		op(name, f64, func(a, b, _ uint64) uint64 { return bits64(f(double(a), double(b))) }, f64, f64)
	}
	binary32("add.rn.f32", func(a, b float32) float32 { return a + b })
	binary32("sub.rn.f32", func(a, b float32) float32 { return a - b })
	binary32("mul.rn.f32", func(a, b float32) float32 { return a * b })
	binary32("div.rn.f32", func(a, b float32) float32 { return a / b })
	binary64("add.rn.f64", func(a, b float64) float64 { return a + b })
	binary64("sub.rn.f64", func(a, b float64) float64 { return a - b })
	binary64("mul.rn.f64", func(a, b float64) float64 { return a * b })
	binary64("div.rn.f64", func(a, b float64) float64 { return a / b })
	op("fma.rn.f32", f32, func(a, b, c uint64) uint64 { return bits32(fma32(float(a), float(b), float(c))) }, f32, f32, f32)
	op("fma.rn.f64", f64, func(a, b, c uint64) uint64 { return bits64(math.FMA(double(a), double(b), double(c))) }, f64, f64, f64)
	unary32("sqrt.rn.f32", func(a float32) float32 { return float32(math.Sqrt(float64(a))) })
	unary64("sqrt.rn.f64", math.Sqrt)
	unary32("rcp.rn.f32", func(a float32) float32 { return 1 / a })
	unary64("rcp.rn.f64", func(a float64) float64 { return 1 / a })
	op("neg.f32", f32, func(a, _, _ uint64) uint64 { return a ^ 1<<31 }, f32)
	op("neg.f64", f64, func(a, _, _ uint64) uint64 { return a ^ 1<<63 }, f64)
	op("abs.f32", f32, func(a, _, _ uint64) uint64 { return a &^ (1 << 31) }, f32)
	op("abs.f64", f64, func(a, _, _ uint64) uint64 { return a &^ (1 << 63) }, f64)
}

// comparisons are those of the section "Comparison and Selection Instructions". A
// float comparison with NaN is false, or true if its name ends in u.
func comparisons(op define) {
	for _, t := range []typ{b32, b64, s32, s64, u32, u64, f32, f64} {
		order := func(a, b uint64) (less, equal, nan bool) { return a < b, a == b, false }
		switch {
		case t == f32:
			order = func(a, b uint64) (bool, bool, bool) {
				x, y := float(a), float(b)
				return x < y, x == y, x != x || y != y
			}
		case t == f64:
			order = func(a, b uint64) (bool, bool, bool) {
				x, y := double(a), double(b)
				return x < y, x == y, x != x || y != y
			}
		case t.kind == 's':
			order = func(a, b uint64) (bool, bool, bool) {
				x, y := int64(t.extend(a, u64)), int64(t.extend(b, u64))
				return x < y, x == y, false
			}
		}
		set := func(cmp string, f func(less, equal, nan bool) bool) {
			op("setp."+cmp+"."+typeName(t), pred, func(a, b, _ uint64) uint64 { return truth(f(order(a, b))) }, t, t)
		}
		set("eq", func(_, equal, _ bool) bool { return equal })
		set("ne", func(_, equal, nan bool) bool { return !equal && !nan })
		if t.kind != 'b' {
			set("lt", func(less, _, _ bool) bool { return less })
			set("le", func(less, equal, _ bool) bool { return less || equal })
			set("gt", func(less, equal, nan bool) bool { return !less && !equal && !nan })
			set("ge", func(less, _, nan bool) bool { return !less && !nan })
		}
		if t.kind == 'f' {
			set("equ", func(_, equal, nan bool) bool { return equal || nan })
			set("neu", func(_, equal, _ bool) bool { return !equal })
			set("ltu", func(less, _, nan bool) bool { return less || nan })
			set("leu", func(less, equal, nan bool) bool { return less || equal || nan })
			set("gtu", func(less, equal, _ bool) bool { return !less && !equal })
			set("geu", func(less, _, _ bool) bool { return !less })
			set("num", func(_, _, nan bool) bool { return !nan })
			set("nan", func(_, _, nan bool) bool { return nan })
		}
		op("selp."+typeName(t), t, func(a, b, c uint64) uint64 {
			if c != 0 {
				return a
			}
			return b
		}, t, t, pred)
	}
}

// moves are those of the section "Data Movement and Conversion Instructions" that
// touch no memory.
func moves(op define) {
	for _, t := range []typ{pred, b16, u16, b32, u32, s32, f32, b64, u64, s64, f64} {
		op("mov."+typeName(t), t, func(a, _, _ uint64) uint64 { return a }, t)
	}
	// The address spaces of this interpreter don't overlap: a generic address is
	// that of global memory.
	op("cvta.to.global.u64", u64, func(a, _, _ uint64) uint64 { return a }, u64)
	for _, from := range []typ{u16, s32, u32, s64, u64} {
		for _, to := range []typ{u16, s32, u32, s64, u64} {
			if from != to {
				op("cvt."+typeName(to)+"."+typeName(from), to, func(a, _, _ uint64) uint64 { return from.extend(a, u64) & to.mask() }, from)
			}
		}
		number := func(a uint64) int64 { return int64(from.extend(a, u64)) }
		if from != u64 { // whose upper half is no int64
			// float32 of an int64 rounds once, too.
			op("cvt.rn.f32."+typeName(from), f32, func(a, _, _ uint64) uint64 { return bits32(float32(number(a))) }, from)
			op("cvt.rn.f64."+typeName(from), f64, func(a, _, _ uint64) uint64 { return bits64(float64(number(a))) }, from)
		}
	}
	op("cvt.f64.f32", f64, func(a, _, _ uint64) uint64 { return bits64(float64(float(a))) }, f32)
	op("cvt.rn.f32.f64", f32, func(a, _, _ uint64) uint64 { return bits32(float32(double(a))) }, f64)
	op("cvt.rmi.f64.f64", f64, func(a, _, _ uint64) uint64 { return bits64(math.Floor(double(a))) }, f64)
	op("cvt.rzi.s32.f64", s32, func(a, _, _ uint64) uint64 { // clamped; NaN gives zero
		v := math.Trunc(double(a))
		if v != v {
			return 0
		}
		return uint64(uint32(int32(max(math.MinInt32, min(math.MaxInt32, v)))))
	}, f64)
	// To nearest, ties away from zero; infinities and NaN stay.
	op("cvt.rna.tf32.f32", b32, func(a, _, _ uint64) uint64 {
		if a>>23&255 == 255 {
			return a
		}
		return (a + 1<<12) & 0xffffe000
	}, f32)
}

func typeName(t typ) string {
	for name, x := range types {
		if x == t {
			return name
		}
	}
	return ""
}
