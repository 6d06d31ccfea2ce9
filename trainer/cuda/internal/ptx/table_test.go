package ptx

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// examples are operands and results of pure instructions, written as values of their
// types: min and max are the limits of the first type, and floats may be in hex.
const examples = `
add.s32 2147483647 1 = -2147483648
add.u32 4294967295 2 = 1
add.s64 9223372036854775807 1 = -9223372036854775808
add.u64 18446744073709551615 2 = 1
sub.s32 -2147483648 1 = 2147483647
sub.u32 1 2 = 4294967295
sub.s64 3 5 = -2
sub.u64 3 5 = 18446744073709551614
mul.lo.s32 65536 65537 = 65536
mul.lo.u32 4294967295 4294967295 = 1
mul.lo.s64 -3 5 = -15
mul.lo.u64 18446744073709551615 7 = 18446744073709551609
mad.lo.s32 -3 5 4 = -11
mad.lo.u32 65536 65536 4 = 4
mad.lo.s64 -3 5 4 = -11
mad.lo.u64 4294967296 4294967296 4 = 4
min.s32 -1 1 = -1
min.u32 4294967295 1 = 1
min.s64 1 -1 = -1
min.u64 18446744073709551615 1 = 1
max.s32 -1 1 = 1
max.u32 4294967295 1 = 4294967295
max.s64 1 -1 = 1
max.u64 18446744073709551615 1 = 18446744073709551615
shr.s32 -8 1 = -4
shr.s32 -8 99 = -1
shr.u32 4294967288 1 = 2147483644
shr.u32 4294967288 32 = 0
shr.s64 -8 1 = -4
shr.s64 -8 64 = -1
shr.u64 18446744073709551608 60 = 15
shr.u64 18446744073709551608 64 = 0
neg.s32 -2147483648 = -2147483648
neg.s64 5 = -5
mul.wide.s32 -2147483648 2147483647 = -4611686016279904256
mul.wide.u32 4294967295 4294967295 = 18446744065119617025
mul.hi.s32 -2147483648 2147483647 = -1073741824
mul.hi.u32 4294967295 4294967295 = 4294967294
div.s32 -7 2 = -3
div.s32 -2147483648 -1 = -2147483648
div.u32 4294967295 2 = 2147483647
rem.s32 -7 2 = -1
rem.u32 4294967295 10 = 5
bfe.u32 0xabcd1234 8 12 = 0xd12
bfe.u32 0xabcd1234 24 32 = 0xab
bfe.u32 0xabcd1234 40 8 = 0
bfe.u32 0xabcd1234 0 99 = 0xabcd1234
and.pred 1 0 = 0
or.pred 1 0 = 1
xor.pred 1 1 = 0
not.pred 1 = 0
not.pred 0 = 1
and.b32 0xff00ff00 0xf0f0f0f0 = 0xf000f000
or.b32 0xff00ff00 0xf0f0f0f0 = 0xfff0fff0
xor.b32 0xff00ff00 0xf0f0f0f0 = 0x0ff00ff0
not.b32 0xff00ff00 = 0x00ff00ff
shl.b32 3 31 = 0x80000000
shl.b32 3 32 = 0
and.b64 0xff00ff00ff00ff00 0xf0f0f0f0f0f0f0f0 = 0xf000f000f000f000
or.b64 0xff00ff00ff00ff00 0xf0f0f0f0f0f0f0f0 = 0xfff0fff0fff0fff0
xor.b64 0xff00ff00ff00ff00 0xf0f0f0f0f0f0f0f0 = 0x0ff00ff00ff00ff0
not.b64 0xff00ff00ff00ff00 = 0x00ff00ff00ff00ff
shl.b64 3 63 = 0x8000000000000000
shl.b64 3 64 = 0
popc.b32 0xf00f0001 = 9
add.rn.f32 1 0x1p-24 = 1
add.rn.f32 1 0x1.8p-24 = 0x1.000002p0
add.rn.f32 0x1p-149 0x1p-149 = 0x1p-148
add.rn.f32 +Inf -Inf = NaN
sub.rn.f32 1 0x1p-25 = 1
mul.rn.f32 0x1.000002p0 0x1.000002p0 = 0x1.000004p0
mul.rn.f32 0x1p-100 0x1p-49 = 0x1p-149
div.rn.f32 1 3 = 0x1.555556p-2
div.rn.f32 -1 0 = -Inf
add.rn.f64 1 0x1p-53 = 1
sub.rn.f64 1 0x1p-54 = 1
mul.rn.f64 0x1.0000000000001p0 0x1.0000000000001p0 = 0x1.0000000000002p0
div.rn.f64 1 3 = 0x1.5555555555555p-2
fma.rn.f32 0x1.000002p0 0x1.000002p0 -0x1.000004p0 = 0x1p-46
fma.rn.f64 0x1.0000000000001p0 0x1.0000000000001p0 -0x1.0000000000002p0 = 0x1p-104
sqrt.rn.f32 2 = 0x1.6a09e6p0
sqrt.rn.f64 2 = 0x1.6a09e667f3bcdp0
sqrt.rn.f32 -1 = NaN
rcp.rn.f32 3 = 0x1.555556p-2
rcp.rn.f64 3 = 0x1.5555555555555p-2
neg.f32 0 = -0
neg.f64 -0 = 0
abs.f32 -2 = 2
abs.f64 -0 = 0
mov.pred 1 = 1
mov.b16 0xfedc = 0xfedc
mov.u16 0xfedc = 0xfedc
mov.b32 0xfedcba98 = 0xfedcba98
mov.u32 0xfedcba98 = 0xfedcba98
mov.s32 -5 = -5
mov.f32 0x1p-149 = 0x1p-149
mov.b64 0xfedcba9876543210 = 0xfedcba9876543210
mov.u64 0xfedcba9876543210 = 0xfedcba9876543210
mov.s64 -5 = -5
mov.f64 0x1p-1074 = 0x1p-1074
cvta.to.global.u64 0x100000000 = 0x100000000
cvt.s32.u16 65535 = 65535
cvt.u32.u16 65535 = 65535
cvt.s64.u16 65535 = 65535
cvt.u64.u16 65535 = 65535
cvt.u16.s32 -2 = 65534
cvt.u32.s32 -2 = 4294967294
cvt.s64.s32 -2 = -2
cvt.u64.s32 -2 = 18446744073709551614
cvt.u16.u32 0x12345 = 0x2345
cvt.s32.u32 4294967294 = -2
cvt.s64.u32 4294967294 = 4294967294
cvt.u64.u32 4294967294 = 4294967294
cvt.u16.s64 -2 = 65534
cvt.s32.s64 0x1fffffffe = -2
cvt.u32.s64 -2 = 4294967294
cvt.u64.s64 -2 = 18446744073709551614
cvt.u16.u64 0x12345 = 0x2345
cvt.s32.u64 0x1fffffffe = -2
cvt.u32.u64 0x1fffffffe = 4294967294
cvt.s64.u64 18446744073709551614 = -2
cvt.rn.f32.u16 65535 = 65535
cvt.rn.f64.u16 65535 = 65535
cvt.rn.f32.s32 -16777217 = -16777216
cvt.rn.f64.s32 -16777217 = -16777217
cvt.rn.f32.u32 4294967295 = 4294967296
cvt.rn.f64.u32 4294967295 = 4294967295
cvt.rn.f32.s64 0x4000004000000001 = 0x1.000002p62
cvt.rn.f64.s64 9007199254740993 = 9007199254740992
cvt.f64.f32 0x1p-149 = 0x1p-149
cvt.rn.f32.f64 0x1.0000010000001p0 = 0x1.000002p0
cvt.rn.f32.f64 1e300 = +Inf
cvt.rmi.f64.f64 -1.5 = -2
cvt.rmi.f64.f64 1.5 = 1
cvt.rzi.s32.f64 -1.9 = -1
cvt.rzi.s32.f64 1e300 = 2147483647
cvt.rzi.s32.f64 -1e300 = -2147483648
cvt.rzi.s32.f64 NaN = 0
`

// parseValue reads the bits of a value of a type.
func parseValue(t *testing.T, typ typ, s string) uint64 {
	t.Helper()
	if typ.kind == 'f' {
		v, err := strconv.ParseFloat(s, typ.bits)
		require.NoError(t, err)
		if typ == f32 {
			return bits32(float32(v))
		}
		return bits64(v)
	}
	if strings.HasPrefix(s, "-") {
		v, err := strconv.ParseInt(s, 0, 64)
		require.NoError(t, err)
		return uint64(v) & typ.mask()
	}
	v, err := strconv.ParseUint(s, 0, 64)
	require.NoError(t, err)
	require.Zero(t, v&^typ.mask(), s)
	return v
}

func requireValue(t *testing.T, typ typ, want, got uint64, what string) {
	t.Helper()
	if typ == f32 && math.IsNaN(float64(float(want))) {
		require.True(t, math.IsNaN(float64(float(got))), what)
	} else if typ == f64 && math.IsNaN(double(want)) {
		require.True(t, math.IsNaN(double(got)), what)
	} else {
		require.Equal(t, want, got, what)
	}
}

// TestPureInstructions also sees that none goes without an example.
func TestPureInstructions(t *testing.T) {
	tried := map[string]bool{}
	for line := range strings.Lines(strings.TrimSpace(examples)) {
		words := strings.Fields(line)
		p, ok := pures[words[0]]
		require.True(t, ok, line)
		tried[words[0]] = true
		require.Len(t, words, 3+len(p.src), line)
		var v [3]uint64
		for i, typ := range p.src {
			v[i] = parseValue(t, typ, words[1+i])
		}
		if p.bad != nil {
			require.Empty(t, p.bad(v[0], v[1], v[2]))
		}
		requireValue(t, p.dst, parseValue(t, p.dst, words[len(words)-1]), p.f(v[0], v[1], v[2]), line)
	}
	for name := range pures {
		switch {
		case strings.HasPrefix(name, "setp."), strings.HasPrefix(name, "selp."), name == "cvt.rna.tf32.f32": // below
		default:
			assert.True(t, tried[name], "no example for %s", name)
		}
	}
}

// TestComparisons has the tables of "Comparisons": what holds of a smaller, an equal and
// a larger first operand, and of NaN.
func TestComparisons(t *testing.T) {
	truths := map[string]string{
		"eq": "0100", "ne": "1010", "lt": "1000", "le": "1100", "gt": "0010", "ge": "0110",
		"equ": "0101", "neu": "1011", "ltu": "1001", "leu": "1101", "gtu": "0011", "geu": "0111", "num": "1110", "nan": "0001",
	}
	values := map[string][2]string{ // a smaller one and a larger one
		"b32": {"1", "2"}, "b64": {"1", "2"}, "s32": {"-1", "1"}, "s64": {"-1", "1"}, "u32": {"1", "4294967295"},
		"u64": {"1", "18446744073709551615"}, "f32": {"-2", "-1"}, "f64": {"-2", "1"},
	}
	seen := 0
	for name, p := range pures {
		words := strings.Split(name, ".")
		if words[0] != "setp" {
			continue
		}
		seen++
		typ := types[words[2]]
		low, high := parseValue(t, typ, values[words[2]][0]), parseValue(t, typ, values[words[2]][1])
		pairs := [][2]uint64{{low, high}, {high, high}, {high, low}}
		if typ.kind == 'f' {
			pairs = append(pairs, [2]uint64{parseValue(t, typ, "NaN"), low}, [2]uint64{low, parseValue(t, typ, "NaN")})
		}
		for i, pair := range pairs {
			assert.EqualValues(t, truths[words[1]][min(i, 3)]-'0', p.f(pair[0], pair[1], 0), "%s %v", name, pair)
		}
	}
	assert.Equal(t, 2*2+4*6+2*14, seen)
	for name, p := range pures {
		if strings.HasPrefix(name, "selp.") {
			assert.EqualValues(t, 5, p.f(5, 6, 1), name)
			assert.EqualValues(t, 6, p.f(5, 6, 0), name)
		}
	}
	zero, minus := bits32(0), bits32(float32(math.Copysign(0, -1)))
	assert.EqualValues(t, 1, pures["setp.eq.f32"].f(zero, minus, 0))
}

// TestFMA compares with arithmetic of any precision, where single roundings of the
// product and of the sum often give something else.
func TestFMA(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	twice := 0
	for range 200000 {
		a := float32(rng.Uint32N(1<<24)) * 0x1p-12
		b := float32(rng.Uint32N(1<<24)) * 0x1p-12
		c := float32(math.Ldexp(float64(rng.Uint32N(1<<24)), -40+int(rng.Uint32N(60))))
		if rng.Uint32N(2) == 0 {
			c = -c
		}
		if rng.Uint32N(2) == 0 { // a sum about halfway between two float32
			a = 0x1p-24 + 0x1p-47*float32(rng.IntN(9)-4)
			b = 1 + 0x1p-23*float32(rng.IntN(9)-4)
			c = 1 + 0x1p-23*float32(rng.IntN(9))
		}
		exact := new(big.Float).SetPrec(300).SetFloat64(float64(a))
		exact.Mul(exact, new(big.Float).SetFloat64(float64(b)))
		exact.Add(exact, new(big.Float).SetFloat64(float64(c)))
		want, _ := exact.Float32()
		require.Equal(t, want, fma32(a, b, c), "%v %v %v", a, b, c)
		if float32(float64(a)*float64(b)+float64(c)) != want {
			twice++
		}
	}
	assert.True(t, math.IsInf(float64(fma32(math.MaxFloat32, 2, 0)), 1))
	assert.Positive(t, twice, "no case that rounding twice gets wrong")
}

func TestTF32(t *testing.T) {
	f := func(v float32) float32 { return float(pures["cvt.rna.tf32.f32"].f(bits32(v), 0, 0)) }
	for _, c := range [][2]float32{
		{1, 1}, {0x1.002p0, 0x1.004p0}, {0x1.001ffep0, 0x1p0}, {-0x1.002p0, -0x1.004p0}, {0x1.ffep0, 2}, {0x1.006p0, 0x1.008p0},
	} {
		assert.Equal(t, c[1], f(c[0]), "%x", c[0])
	}
	assert.True(t, math.IsInf(float64(f(float32(math.Inf(1)))), 1))
	assert.True(t, math.IsNaN(float64(f(float32(math.NaN())))))
}
