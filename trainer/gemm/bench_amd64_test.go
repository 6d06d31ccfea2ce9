package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/gemm/internal/peak"
)

// layers are the convolutions of package nn's network.
var layers = []struct{ in, out, side int }{
	{12, 16, 16}, {16, 16, 16}, {64, 32, 8}, {32, 32, 8}, {128, 64, 4}, {64, 64, 4}, {256, 128, 2}, {128, 128, 2},
}

// benchLayer is one circular 3x3 convolution over as many images as a part
// of a batch has.
func benchLayer(in, out, side int) *Product {
	rows := 128 * side
	pixels := side * side
	period := max(1, 256/pixels) * pixels
	if period%24 != 0 && period > pixels {
		period = period / 24 * 24 / pixels * pixels
	}
	planes := (in + Lanes - 1) / Lanes
	p := &Product{
		Dst: NewPlanes(out/Lanes, rows), DstPlanes: out / Lanes, DstStep: 1,
		Src: NewPlanes(planes, rows), SrcPlanes: planes, Columns: min(in, Lanes),
		Weights: Aligned(out / Lanes * planes * 9 * TileSize), Rows: rows,
		Gather: NewGather(9, period, period, func(t, r int) int {
			y, x := (r%pixels/side+t/3-1+side)%side, (r%side+t%3-1+side)%side
			return r/pixels*pixels + y*side + x
		}),
	}
	rng := rand.New(rand.NewPCG(1, 1))
	random(rng, p.Src.Data)
	random(rng, p.Weights)
	return p
}

// BenchmarkConvolution measures one core, against its measured peak.
func BenchmarkConvolution(b *testing.B) {
	if Kernel() == Go {
		testenv.Skip(b, testenv.VectorKernel, "this processor has none")
	}
	best := peak.GFLOPS(Kernel() == AVX512)
	for _, l := range layers {
		name := fmt.Sprintf("%dto%dat%d", l.in, l.out, l.side)
		p := benchLayer(l.in, l.out, l.side)
		flops := float64(2 * 9 * l.in * l.out * p.Rows)
		report := func(b *testing.B) {
			rate := flops * float64(b.N) / b.Elapsed().Seconds() / 1e9
			b.ReportMetric(rate, "GFLOP/s")
			b.ReportMetric(100*rate/best, "%peak")
		}
		b.Run(name+"/forward", func(b *testing.B) {
			for range b.N {
				p.Mul()
			}
			report(b)
		})
		b.Run(name+"/weights", func(b *testing.B) {
			dw := Aligned(9 * TileSize)
			for range b.N {
				for i := range p.SrcPlanes {
					for o := range p.DstPlanes {
						Outer(dw, p.Src.Plane(i, 0, p.Rows), p.Dst.Plane(o, 0, p.Rows), p.Columns, p.Gather, p.Rows)
					}
				}
			}
			report(b)
		})
	}
}
