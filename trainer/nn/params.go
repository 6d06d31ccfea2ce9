package nn

import (
	"math"
	"math/rand/v2"

	"github.com/berthdev/berth/trainer/gemm"
)

// A param is a trained tensor: its values, Adam's moments and its gradient,
// all in the order in which the kernels read them. Values beyond the tensor's
// shape pad it to whole tiles; they and their gradients are always zero.
type param struct {
	name  string
	shape []int // PyTorch's

	// Of convolutions and the linear layer: [out][in][tap] in tiles.
	inPlanes, outPlanes, taps int
	fanIn                     int // initial values are uniform in ±1/sqrt(fanIn)
	fill                      float32
	flip                      bool // the input needs a gradient
	flat                      bool // each tap is a product of its own there

	w, m, v, grad []float32
	parts         [][]float32 // further summands of grad
	flipped       []float32   // w with input and output exchanged, for the input's gradient
}

// size is the number of values of the tensor.
func (p *param) size() int {
	n := 1
	for _, d := range p.shape {
		n *= d
	}
	return n
}

// padded is the number of values stored.
func (p *param) padded() int {
	if p.taps > 0 {
		return p.inPlanes * p.outPlanes * p.taps * gemm.TileSize
	}
	return (p.size() + gemm.Lanes - 1) / gemm.Lanes * gemm.Lanes
}

// index is the place where value i of the tensor, in PyTorch's order, is
// stored. Weights of convolutions are [out][in][y][x] there; those of the
// linear layer [out][in*pixel] are the same thing with pixels as taps.
func (p *param) index(i int) int {
	if p.taps == 0 {
		return i
	}
	t := i % p.taps
	in := i / p.taps % (p.size() / p.shape[0] / p.taps)
	out := i / (p.size() / p.shape[0])
	tile := (out/gemm.Lanes*p.inPlanes+in/gemm.Lanes)*p.taps + t
	return tile*gemm.TileSize + in%gemm.Lanes*gemm.Lanes + out%gemm.Lanes
}

// export returns stored values in PyTorch's order.
func (p *param) export(stored []float32) []float32 {
	out := make([]float32, p.size())
	for i := range out {
		out[i] = stored[p.index(i)]
	}
	return out
}

func (p *param) load(stored, values []float32) {
	for i, v := range values {
		stored[p.index(i)] = v
	}
}

// params are the parameters in the order of PyTorch's module tree.
type params struct {
	list  []*param
	tiles []tileJob
}

// A tileJob names the weights from one input plane to one output plane.
type tileJob struct {
	p       *param
	out, in int
}

func (ps *params) add(p *param) *param {
	ps.list = append(ps.list, p)
	return p
}

func (ps *params) allocate() {
	for _, p := range ps.list {
		n := p.padded()
		p.w, p.m, p.v, p.grad = gemm.Aligned(n), gemm.Aligned(n), gemm.Aligned(n), gemm.Aligned(n)
		if p.flip {
			p.flipped = gemm.Aligned(n)
			for o := range p.outPlanes {
				for i := range p.inPlanes {
					ps.tiles = append(ps.tiles, tileJob{p, o, i})
				}
			}
		}
	}
}

// initialise sets initial values; each parameter has its own random stream.
func (ps *params) initialise(seed uint64) {
	for i, p := range ps.list {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		bound := float32(0)
		if p.fanIn > 0 {
			bound = float32(1 / math.Sqrt(float64(p.fanIn)))
		}
		for j := range p.size() {
			v := p.fill
			if p.fanIn > 0 {
				v = float32(2*rng.Float32()-1) * bound
			}
			p.w[p.index(j)] = v
		}
	}
}

// transpose exchanges input and output of the weights of one tile job. Taps
// of a convolution are reversed, since what tap t of an output pixel reads,
// the opposite tap of that input pixel gets its gradient from. The linear
// layer's taps are separate products: its order is [tap][in][out].
func (ps *params) transpose(_, job int) {
	j := ps.tiles[job]
	p := j.p
	for t := range p.taps {
		src := p.w[((j.out*p.inPlanes+j.in)*p.taps+t)*gemm.TileSize:][:gemm.TileSize]
		at := (j.in*p.outPlanes+j.out)*p.taps + p.taps - 1 - t
		if p.flat {
			at = (t*p.inPlanes+j.in)*p.outPlanes + j.out
		}
		dst := p.flipped[at*gemm.TileSize:][:gemm.TileSize]
		for a := range gemm.Lanes {
			row := src[a*gemm.Lanes:][:gemm.Lanes]
			for b, v := range row {
				dst[b*gemm.Lanes+a] = v
			}
		}
	}
}
