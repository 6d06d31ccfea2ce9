package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Check is the outcome of one self-check.
type Check struct {
	Name string
	// MaxErr is the largest error found, in units of the rounding error that
	// the definition allows: up to 1 is right.
	MaxErr float64
	Err    error // nil if the kernel is right
}

// SelfCheck compares every kernel of this processor with float64 arithmetic,
// on products like those of the network, and with the portable kernel, whose
// bits it must give. It takes well under a second, and must not run beside
// products, since it selects one kernel after the other.
func SelfCheck() []Check {
	before := kernel
	defer func() { kernel = before }()
	var checks []Check
	for _, k := range Kernels() {
		for _, s := range []struct {
			name                   string
			src, dst, columns, row int
		}{
			{"12 to 16 channels", 1, 1, 12, 64},
			{"64 to 32 channels", 4, 2, 16, 92},
			{"32 to 48 channels", 2, 3, 16, 28},
		} {
			c := Check{Name: fmt.Sprintf("%s: convolution, %s, %d pixels", k, s.name, s.row)}
			c.MaxErr, c.Err = checkMul(k, s.src, s.dst, s.columns, s.row)
			checks = append(checks, c)
			c = Check{Name: fmt.Sprintf("%s: weight gradient, %s, %d pixels", k, s.name, s.row)}
			c.MaxErr, c.Err = checkOuter(k, s.columns, s.row)
			checks = append(checks, c)
		}
	}
	return checks
}

// checkGather is a list of nine taps that wraps around.
func checkGather(rows int) *Gather {
	return NewGather(9, rows, rows, func(t, r int) int { return (r + 7*t) % rows })
}

// random fills s with normally distributed values.
func random(rng *rand.Rand, s []float32) {
	for i := range s {
		s[i] = float32(rng.NormFloat64())
	}
}

func checkMul(k string, src, dst, columns, rows int) (float64, error) {
	rng := rand.New(rand.NewPCG(1, uint64(rows)))
	p := Product{
		Dst: NewPlanes(dst, rows), DstPlanes: dst, DstStep: 1,
		Src: NewPlanes(src, rows), SrcPlanes: src, Columns: columns,
		Weights: Aligned(dst * src * 9 * TileSize), Gather: checkGather(rows), Rows: rows,
	}
	random(rng, p.Src.Data)
	random(rng, p.Weights)
	portable := p
	portable.Dst = NewPlanes(dst, rows)
	kernel = Go
	portable.Mul()
	kernel = k
	p.Mul()
	worst := 0.0
	for o := range dst * Lanes {
		for r := range rows {
			var sum, size float64
			for c := range src {
				for t := range 9 {
					x := p.Src.Plane(c, (r+7*t)%rows, 1)
					w := p.Weights[((o/Lanes*src+c)*9+t)*TileSize:]
					for j := range columns {
						v := float64(x[j]) * float64(w[j*Lanes+o%Lanes])
						sum += v
						size += math.Abs(v)
					}
				}
			}
			got := p.Dst.Plane(o/Lanes, r, 1)[o%Lanes]
			worst = checkWorst(worst, float64(got)-sum, size*float64(src*9*columns))
		}
	}
	return worst, checkError(worst, p.Dst.Data, portable.Dst.Data)
}

func checkOuter(k string, columns, rows int) (float64, error) {
	rng := rand.New(rand.NewPCG(2, uint64(rows)))
	src, grad := Aligned(rows*Lanes), Aligned(rows*Lanes)
	random(rng, src)
	random(rng, grad)
	for i := range src {
		if i%Lanes >= columns {
			src[i] = 0
		}
	}
	g := checkGather(rows)
	dw, portable := Aligned(9*TileSize), Aligned(9*TileSize)
	kernel = Go
	Outer(portable, src, grad, columns, g, rows)
	kernel = k
	Outer(dw, src, grad, columns, g, rows)
	worst := 0.0
	for i, got := range dw {
		var sum, size float64
		for r := range rows {
			v := float64(src[(r+7*(i/TileSize))%rows*Lanes+i%TileSize/Lanes]) * float64(grad[r*Lanes+i%Lanes])
			sum += v
			size += math.Abs(v)
		}
		worst = checkWorst(worst, float64(got)-sum, size*float64(rows))
	}
	return worst, checkError(worst, dw, portable)
}

// checkWorst returns the larger of worst and err, in units of the rounding
// error that a sum of values of the given size may have: half a unit in the
// last place for each addition.
func checkWorst(worst, err, size float64) float64 {
	err = math.Abs(err)
	if err == 0 {
		return worst
	}
	return max(worst, err/(size*0x1p-24)) // NaN stays NaN
}

func checkError(worst float64, got, portable []float32) error {
	if !(worst <= 1) {
		return fmt.Errorf("the result is off by %.3g times the rounding error that is allowed; this processor or build is not fit for training", worst)
	}
	for i, v := range got {
		if math.Float32bits(v) != math.Float32bits(portable[i]) {
			return fmt.Errorf("element %d is %b, the portable kernel gives %b: results would differ between machines", i, v, portable[i])
		}
	}
	return nil
}
