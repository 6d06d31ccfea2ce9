package ptx

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
)

// shuffle makes shfl.sync.bfly.b32 run: d, a, lane mask, clamp and segments, members
// (section "shfl.sync"). Every member must be there at once, and be meant.
func (k *kernel) shuffle(operands []operand) (func(*warp, uint32) *fault, error) {
	if len(operands) != 5 {
		return nil, fmt.Errorf("%d operands, it has 5; with a predicate it isn't known", len(operands))
	}
	d, err := k.destination(operands[0], b32.agrees)
	if err != nil {
		return nil, err
	}
	var src [4]source
	for i := range src {
		if src[i], err = k.operand(operands[1+i], b32); err != nil {
			return nil, err
		}
	}
	return func(w *warp, active uint32) *fault {
		var v [4]*lanes
		for i := range src {
			var f *fault
			if v[i], f = w.read(src[i], active); f != nil {
				return f
			}
		}
		old := *v[0]
		for l := range warpSize {
			if active>>l&1 == 0 {
				continue
			}
			if members := uint32(v[3][l]); members != active {
				return faultf(Divergence, l, "the shuffle is among the lanes %032b of the warp, but those that execute it are %032b", members, active)
			}
			c := int(v[2][l])
			segment := c >> 8 & 31
			last := l&segment | c&31&^segment
			from := l ^ int(v[1][l]&31)
			if from > last {
				from = l
			}
			if active>>from&1 == 0 {
				return faultf(Operand, l, "it takes the value of lane %d, which doesn't take part", from)
			}
			w.registers[d][l] = old[from]
		}
		w.set[d] |= active
		return nil
	}, nil
}

// mma makes mma.sync.m16n8k8 on tf32 run: d, a, b, c (section "Matrix Fragments for
// mma.m16n8k8", .tf32). With group = lane/4 and member = lane%4 a lane has
//
//	a, 16x8: rows group and group+8, each in columns member and then member+4
//	b, 8x8:  rows member and member+4 of column group
//	c and d, 16x8: row group, columns 2*member and 2*member+1; then row group+8
//
// Products are exact. The ISA says of their sum that it has at least the precision of
// single, and leaves order and rounding open: here it is the exact sum, rounded
// towards zero, which is furthest from it of what float32 has. Operands must be tf32
// already: their low 13 bits zero.
func (k *kernel) mma(operands []operand) (func(*warp, uint32) *fault, error) {
	if len(operands) != 4 {
		return nil, fmt.Errorf("%d operands, it has 4", len(operands))
	}
	var to [4]int
	var from [3][]source // a, b, c
	for i, n := range []int{4, 4, 2, 4} {
		if operands[i].kind != vectorOperand || len(operands[i].parts) != n {
			return nil, fmt.Errorf("operand %d is no vector of %d", i, n)
		}
		for j, part := range operands[i].parts {
			var err error
			if i == 0 {
				to[j], err = k.destination(part, f32.agrees)
			} else {
				var s source
				s, err = k.operand(part, []typ{b32, b32, f32}[i-1])
				from[i-1] = append(from[i-1], s)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return func(w *warp, active uint32) *fault {
		if active != 1<<warpSize-1 {
			return faultf(Divergence, bits.TrailingZeros32(active), "a tensor-core product needs all lanes of the warp, not %032b", active)
		}
		var fragments [3][4]*lanes
		for i, list := range from {
			for j, s := range list {
				v, f := w.read(s, active)
				if f != nil {
					return f
				}
				for l, bits := range v {
					if i < 2 && bits&0x1fff != 0 {
						return faultf(Operand, l, "%v is not rounded to tf32", float(bits))
					}
				}
				fragments[i][j] = v
			}
		}
		var a [16][8]float64
		var b [8][8]float64
		var c [16][8]float64
		for l := range warpSize {
			group, member := l/4, l%4
			for i := range 4 {
				a[group+i%2*8][member+i/2*4] = float64(float(fragments[0][i][l]))
				c[group+i/2*8][member*2+i%2] = float64(float(fragments[2][i][l]))
			}
			for i := range 2 {
				b[member+i*4][group] = float64(float(fragments[1][i][l]))
			}
		}
		for l := range warpSize {
			group, member := l/4, l%4
			for i, d := range to {
				row, column := group+i/2*8, member*2+i%2
				terms := [9]float64{8: c[row][column]}
				for j := range 8 {
					terms[j] = a[row][j] * b[j][column] // exact: 11 by 11 bits
				}
				w.registers[d][l] = bits32(sumToZero(terms[:]))
			}
		}
		for _, d := range to {
			w.set[d] |= active
		}
		return nil
	}, nil
}

// sumToZero is the exact sum, rounded towards zero.
func sumToZero(values []float64) float32 {
	sum, exact := 0.0, true
	for _, v := range values {
		next := sum + v
		// Knuth's TwoSum: what the addition lost.
		back := float64(next - sum)
		exact = exact && float64(sum-float64(next-back))+float64(v-back) == 0
		sum = next
	}
	if !exact && !math.IsNaN(sum) && !math.IsInf(sum, 0) {
		all := new(big.Float).SetPrec(1200).SetMode(big.ToZero) // exact for products of float32
		for _, v := range values {
			all.Add(all, new(big.Float).SetFloat64(v))
		}
		f, _ := new(big.Float).SetPrec(24).SetMode(big.ToZero).Set(all).Float32()
		return f
	}
	f := float32(sum)
	if math.Abs(float64(f)) > math.Abs(sum) && !math.IsInf(float64(f), 0) { // what overflows is infinite all the same
		f = math.Nextafter32(f, 0)
	}
	return f
}
