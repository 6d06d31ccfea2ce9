package nn

import "github.com/berthdev/berth/trainer/gemm"

// A conv is a convolution, or the linear layer seen as one: a product of the
// gathered input rows of each image with weights.
type conv struct {
	in, out         int // planes
	columns         int // used of each input plane
	inRows, outRows int // of one image
	w               *param
	gather          *gemm.Gather
	all             [][]float32 // parts of the weights' gradient after the first, for the largest batch
}

// newConv returns a convolution of side x side pixels with kernels of
// width x width, circular padding and no bias.
func newConv(ps *params, name string, in, out, side, width int) *conv {
	pixels := side * side
	c := &conv{
		in: (in + gemm.Lanes - 1) / gemm.Lanes, out: out / gemm.Lanes,
		columns: min(in, gemm.Lanes), inRows: pixels, outRows: pixels,
	}
	taps := width * width
	c.w = ps.add(&param{
		name: name + ".weight", shape: []int{out, in, width, width},
		inPlanes: c.in, outPlanes: c.out, taps: taps, fanIn: in * taps,
	})
	// As many whole images as make about 256 rows, a multiple of every
	// kernel's tile where that is possible.
	images := max(1, 256/pixels)
	for images > 1 && images*pixels%24 != 0 {
		images--
	}
	half := width / 2
	c.gather = gemm.NewGather(taps, images*pixels, images*pixels, func(t, r int) int {
		y := (r%pixels/side + t/width - half + side) % side
		x := (r%side + t%width - half + side) % side
		return r/pixels*pixels + y*side + x
	})
	return c
}

// forward sets the rows of dst for some images, the first of which is at the
// start of dst and src.
func (c *conv) forward(p *gemm.Product, dst, src gemm.Planes, images int, add bool) {
	*p = gemm.Product{
		Dst: dst, DstPlanes: c.out, DstStep: 1,
		Src: src, SrcPlanes: c.in, Columns: c.columns,
		Weights: c.w.w, Gather: c.gather, Rows: images * c.outRows, Add: add,
	}
	p.Mul()
}

// backward computes the gradient of the input, like forward. A circular
// convolution is transposed by one with exchanged and reversed weights.
func (c *conv) backward(p *gemm.Product, dst, grad gemm.Planes, images int, add bool) {
	*p = gemm.Product{
		Dst: dst, DstPlanes: c.in, DstStep: 1,
		Src: grad, SrcPlanes: c.out, Columns: gemm.Lanes,
		Weights: c.w.flipped, Gather: c.gather, Rows: images * c.inRows, Add: add,
	}
	p.Mul()
}

// outerRows is how many rows one part of a weight gradient sums: the rows of
// one input and one output plane then stay in the second-level cache, and
// rounding errors do not grow with the batch.
const outerRows = 2048

// outerImages is the number of images in one part of the weight gradient.
func (c *conv) outerImages() int { return max(1, outerRows/c.inRows) }

func (c *conv) reserve(images int) {
	for len(c.all) < (images-1)/c.outerImages() {
		c.all = append(c.all, gemm.Aligned(c.w.padded()))
	}
}

// An outerUnit is a part of the weights' gradient: from one input plane to
// one output plane, over some images.
type outerUnit struct {
	c             *conv
	src, grad     gemm.Planes
	in, out       int
	first, images int
	part          int
}

// outerPlan lists the units for a batch of the given number of images.
func (n *Network) outerPlan(images int) {
	if images == n.outerN {
		return
	}
	n.outerN = images
	n.outer = n.outer[:0]
	for _, b := range n.blocks {
		n.outerAdd(b.conv2, b.a1, b.y2, images)
		n.outerAdd(b.conv1, b.x, b.y1, images)
		n.outerAdd(b.convS, b.x, b.yS, images)
	}
	n.outerAdd(n.head.linear, n.head.features, n.head.logits, images)
}

func (n *Network) outerAdd(c *conv, src, grad gemm.Planes, images int) {
	step := c.outerImages()
	for part := 0; part*step < images; part++ {
		for in := range c.in {
			for out := range c.out {
				n.outer = append(n.outer, outerUnit{
					c: c, src: src, grad: grad, in: in, out: out,
					first: part * step, images: min(step, images-part*step), part: part,
				})
			}
		}
	}
	c.w.parts = c.all[:(images-1)/step]
}

// runOuter computes one unit.
func (n *Network) runOuter(_, unit int) {
	u := &n.outer[unit]
	c := u.c
	dw := c.w.grad
	if u.part > 0 {
		dw = c.all[u.part-1]
	}
	size := c.w.taps * gemm.TileSize
	dw = dw[(u.out*c.in+u.in)*size:][:size]
	clear(dw)
	gemm.Outer(dw,
		u.src.Plane(u.in, u.first*c.inRows, u.images*c.inRows),
		u.grad.Plane(u.out, u.first*c.outRows, u.images*c.outRows),
		c.columns, c.gather, u.images*c.outRows)
}
