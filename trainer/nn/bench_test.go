package nn

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/berthdev/berth/trainer/gemm"
)

const benchImages = 500

// BenchmarkTrainStep measures whole steps on colour images.
func BenchmarkTrainStep(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			n := newNetwork(b, Config{Channels: 3, Classes: 10, Workers: workers, Dropout: 0.5})
			x, y := batch(1, benchImages, 3, 10)
			step := func() {
				if _, _, err := n.TrainStep(x, y); err != nil {
					b.Fatal(err)
				}
			}
			step()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				step()
			}
			b.StopTimer()
			b.ReportMetric(benchImages*float64(b.N)/b.Elapsed().Seconds(), "images/s")
			b.ReportMetric(flops(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			if mb := peakMemory(); mb > 0 {
				b.ReportMetric(mb, "peak-MB")
			}
		})
	}
}

// flops counts the operations of a step's convolutions and linear layer: a
// product forward, one for the weights, and one for the input where needed.
func flops(n *Network) float64 {
	sum := 0.0
	add := func(c *conv) {
		products := 2.0
		if c.w.flip {
			products = 3
		}
		sum += products * 2 * float64(c.w.size()*c.outRows) * benchImages
	}
	for _, b := range n.blocks {
		add(b.conv1)
		add(b.conv2)
		add(b.convS)
	}
	add(n.head.linear)
	return sum
}

// peakMemory is the most memory the process has had, in 10^6 bytes, where
// Linux tells it.
func peakMemory() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib * 1024 / 1e6
}

// BenchmarkConvolutions does the products of all 3x3 convolutions of a step,
// once as the network does them and once with gonum's Sgemm on a patch
// matrix. Both split the batch over the same number of workers.
func BenchmarkConvolutions(b *testing.B) {
	for _, workers := range []int{1, 2} {
		n := newNetwork(b, Config{Channels: 3, Classes: 10, Workers: workers})
		x, y := batch(1, benchImages, 3, 10)
		if _, _, err := n.TrainStep(x, y); err != nil {
			b.Fatal(err)
		}
		var own float64
		rate := func(b *testing.B) float64 {
			r := benchImages * float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(r, "images/s")
			return r
		}
		b.Run(fmt.Sprintf("workers=%d/own", workers), func(b *testing.B) {
			for range b.N {
				ownConvolutions(n)
			}
			own = rate(b)
		})
		b.Run(fmt.Sprintf("workers=%d/gonum", workers), func(b *testing.B) {
			g := newGonumConvolutions(n, workers)
			b.ResetTimer()
			for range b.N {
				g.run(n.pool)
			}
			b.ReportMetric(own/rate(b), "own/gonum")
		})
	}
}

// ownConvolutions multiplies what the last step left in the buffers.
func ownConvolutions(n *Network) {
	for _, blk := range n.blocks {
		for _, c := range []*conv{blk.conv1, blk.conv2} {
			src := blk.a1
			if c == blk.conv1 {
				src = blk.x
			}
			n.pool.run(blk.parts(), func(w, part int) {
				s := &n.scratch[w]
				first, images := blk.part(part)
				row := first * blk.pixels
				c.forward(&s.mul, blk.g.From(row), src.From(row), images, false)
				if c.w.flip {
					s.grad.Stride = images * blk.pixels * gemm.Lanes
					c.backward(&s.mul, s.grad, blk.y1.From(row), images, false)
				}
			})
		}
	}
	n.pool.run(len(n.outer), func(w, unit int) {
		if n.outer[unit].c.w.taps == 9 {
			n.runOuter(w, unit)
		}
	})
}

// gonumConvolutions holds one layer after the other as [in*9][pixels] patch
// matrices of a few images.
type gonumConvolutions struct {
	layers  []gonumLayer
	workers []gonumWorker
}

type gonumLayer struct {
	in, out, side int
	first         bool
	w             []float32
}

type gonumWorker struct{ x, cols, y, dw []float32 }

func newGonumConvolutions(n *Network, workers int) *gonumConvolutions {
	g := &gonumConvolutions{workers: make([]gonumWorker, workers)}
	rng := rand.New(rand.NewPCG(1, 1))
	values := func(k int) []float32 {
		s := make([]float32, k)
		for i := range s {
			s[i] = float32(rng.NormFloat64())
		}
		return s
	}
	for _, b := range n.blocks {
		for _, c := range []*conv{b.conv1, b.conv2} {
			s := c.w.shape
			g.layers = append(g.layers, gonumLayer{s[1], s[0], b.side, !c.w.flip, values(s[0] * s[1] * 9)})
		}
	}
	for w := range g.workers {
		g.workers[w] = gonumWorker{
			x: values(16 * 3200), cols: values(256 * 9 * 3200), y: values(128 * 3200), dw: values(256 * 128 * 9),
		}
	}
	return g
}

// images is how many images a patch matrix holds.
func (l *gonumLayer) images() int { return 3200 / (l.side * l.side) }

func (g *gonumConvolutions) run(p *pool) {
	for _, l := range g.layers {
		p.run((benchImages+l.images()-1)/l.images(), func(w, part int) {
			images := min(l.images(), benchImages-part*l.images())
			k, m, s := l.in*9, images*l.side*l.side, &g.workers[w]
			var blasImpl gonum.Implementation
			s.patches(l, images, true)
			blasImpl.Sgemm(blas.NoTrans, blas.NoTrans, l.out, m, k, 1, l.w, k, s.cols, m, 0, s.y, m)
			blasImpl.Sgemm(blas.NoTrans, blas.Trans, l.out, k, m, 1, s.y, m, s.cols, m, 0, s.dw, k)
			if !l.first {
				blasImpl.Sgemm(blas.Trans, blas.NoTrans, k, m, l.out, 1, l.w, k, s.y, m, 0, s.cols, m)
				s.patches(l, images, false)
			}
		})
	}
}

// patches fills the patch matrix from the images, or adds it back to them.
func (s *gonumWorker) patches(l gonumLayer, images int, fill bool) {
	pixels := l.side * l.side
	m := images * pixels
	for i := range l.in * 9 {
		c, dy, dx := i/9, i/3%3-1, i%3-1
		for n := range images {
			src := s.x[(n*16+c%16)*pixels%len(s.x):][:pixels]
			for y := range l.side {
				line := src[(y+dy+l.side)%l.side*l.side:][:l.side]
				out := s.cols[i*m+n*pixels+y*l.side:][:l.side]
				for x := range out {
					at := x + dx
					if at < 0 {
						at += l.side
					} else if at >= l.side {
						at -= l.side
					}
					if fill {
						out[x] = line[at]
					} else {
						line[at] += out[x]
					}
				}
			}
		}
	}
}
