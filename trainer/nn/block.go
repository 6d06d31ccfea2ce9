package nn

import (
	"fmt"

	"github.com/berthdev/berth/trainer/gemm"
)

// A block is a residual block and the Haar transform before it.
//
// Batch norm needs sums over the whole batch, so a block's forward pass has
// two phases, each up to the sums of one layer of batch norms; likewise the
// backward pass. Between those points the passes over the pixels are fused
// and work on a few images at a time, which stay in the cache. Activations
// are not stored where they are a cheap function of what is.
type block struct {
	net    *Network
	index  int
	prev   *block
	side   int // height and width in pixels
	pixels int

	conv1, conv2, convS *conv
	bn1, bn2, bnS       *batchNorm

	x, a1      gemm.Planes // inputs of conv1 and convS, and of conv2
	y1, y2, yS gemm.Planes // outputs; then their gradients
	g          gemm.Planes // gradient of bn2's and bnS's outputs, then of bn1's
	sum        []gemm.Vec  // bn2.shift + bnS.shift

	forward1, forward2, backward2, backward1 func(worker, part int)
}

func newBlock(n *Network, index int, prev *block, in, out, side int) *block {
	b := &block{net: n, index: index, prev: prev, side: side, pixels: side * side}
	name, ps := fmt.Sprintf("block%d.", index+1), &n.params
	b.conv1 = newConv(ps, name+"conv1", in, out, side, 3)
	b.bn1 = newBatchNorm(ps, name+"bn1", out)
	b.conv2 = newConv(ps, name+"conv2", out, out, side, 3)
	b.bn2 = newBatchNorm(ps, name+"bn2", out)
	b.convS = newConv(ps, name+"shortcut.conv", in, out, side, 1)
	b.bnS = newBatchNorm(ps, name+"shortcut.bn", out)
	b.conv2.w.flip = true
	b.conv1.w.flip, b.convS.w.flip = prev != nil, prev != nil
	b.sum = make([]gemm.Vec, b.conv1.out)
	b.forward1, b.forward2 = b.runForward1, b.runForward2
	b.backward1, b.backward2 = b.runBackward1, b.runBackward2
	return b
}

// partImages is the number of images in a part of a phase: few enough to stay
// in the cache, enough to use the weights well.
func (b *block) partImages() int { return 128 / b.side }

// parts is the number of parts of the batch in work.
func (b *block) parts() int {
	return (len(b.net.labels) + b.partImages() - 1) / b.partImages()
}

// part returns the first image of a part and their number.
func (b *block) part(i int) (first, images int) {
	first = i * b.partImages()
	return first, min(b.partImages(), len(b.net.labels)-first)
}

// rows is the number of pixels of the batch in work.
func (b *block) rows() int { return len(b.net.labels) * b.pixels }

func (b *block) reserve(images int) {
	rows := images * b.pixels
	b.x = gemm.NewPlanes(b.conv1.in, rows)
	for _, p := range []*gemm.Planes{&b.a1, &b.y1, &b.y2, &b.yS, &b.g} {
		*p = gemm.NewPlanes(b.conv1.out, rows)
	}
	for _, c := range []*conv{b.conv1, b.conv2, b.convS} {
		c.reserve(images)
	}
	parts := (images + b.partImages() - 1) / b.partImages()
	for _, n := range []*batchNorm{b.bn1, b.bn2, b.bnS} {
		n.reserve(parts)
	}
}

// runForward1 computes the block's input and the convolutions that read it.
func (b *block) runForward1(worker, part int) {
	s := &b.net.scratch[worker]
	first, images := b.part(part)
	row := first * b.pixels
	if b.prev == nil {
		for i := range images {
			b.transformInput(first + i)
		}
	} else {
		b.transformPrevious(s.line, first, images)
	}
	x := b.x.From(row)
	b.conv1.forward(&s.mul, b.y1.From(row), x, images, false)
	b.convS.forward(&s.mul, b.yS.From(row), x, images, false)
	if b.net.training {
		for p := range b.conv1.out {
			b.bn1.measure(part, p, b.y1.Plane(p, row, images*b.pixels))
			b.bnS.measure(part, p, b.yS.Plane(p, row, images*b.pixels))
		}
	}
}

// transformInput sets x to the Haar transform of one image of the batch.
func (b *block) transformInput(image int) {
	channels := b.net.cfg.Channels
	in := b.net.images[image*channels*Size*Size:][:channels*Size*Size]
	x := b.x.Plane(0, image*b.pixels, b.pixels)
	for c := range channels {
		for i := range Size / 2 {
			top := in[(c*Size+2*i)*Size:][:Size]
			bottom := in[(c*Size+2*i+1)*Size:][:Size]
			for j := range Size / 2 {
				out := x[(i*Size/2+j)*gemm.Lanes:][:gemm.Lanes]
				out[c], out[channels+c], out[2*channels+c], out[3*channels+c] =
					gemm.Haar1(top[2*j], top[2*j+1], bottom[2*j], bottom[2*j+1])
			}
		}
	}
}

// transformPrevious sets x to the Haar transform of the previous block's
// output, which is stored for one image and plane at a time only.
func (b *block) transformPrevious(line []float32, first, images int) {
	planes, width := b.prev.conv1.out, b.prev.side*gemm.Lanes
	for i := first; i < first+images; i++ {
		for p := range planes {
			out := line[:b.prev.pixels*gemm.Lanes]
			b.prev.output(out, p, i*b.prev.pixels)
			for y := range b.side {
				row := i*b.pixels + y*b.side
				gemm.Haar(
					b.x.Plane(p, row, b.side), b.x.Plane(planes+p, row, b.side),
					b.x.Plane(2*planes+p, row, b.side), b.x.Plane(3*planes+p, row, b.side),
					out[2*y*width:][:width], out[(2*y+1)*width:][:width])
			}
		}
	}
}

// sumShift prepares output, once the batch norms are known.
func (b *block) sumShift() {
	for p := range b.sum {
		for j := range b.sum[p] {
			b.sum[p][j] = b.bn2.shift[p][j] + b.bnS.shift[p][j]
		}
	}
}

// output computes rows of one plane of the block's output.
func (b *block) output(dst []float32, plane, row int) {
	n := len(dst) / gemm.Lanes
	gemm.Affine2ReLU(dst, b.y2.Plane(plane, row, n), b.yS.Plane(plane, row, n),
		&b.bn2.scale[plane], &b.bnS.scale[plane], &b.sum[plane])
}

// runForward2 computes bn1, ReLU, dropout and conv2.
func (b *block) runForward2(worker, part int) {
	s := &b.net.scratch[worker]
	first, images := b.part(part)
	row, rows := first*b.pixels, images*b.pixels
	if drop := b.net.cfg.Dropout; b.net.training && drop > 0 {
		for i := first; i < first+images; i++ {
			b.dropout(s, i)
		}
	} else {
		for p := range b.conv2.in {
			gemm.AffineReLU(b.a1.Plane(p, row, rows), b.y1.Plane(p, row, rows), &b.bn1.scale[p], &b.bn1.shift[p])
		}
	}
	b.conv2.forward(&s.mul, b.y2.From(row), b.a1.From(row), images, false)
	if b.net.training {
		for p := range b.conv2.out {
			b.bn2.measure(part, p, b.y2.Plane(p, row, rows))
		}
	}
}

// dropout sets a1 for one image. Whole channels are dropped (Tompson et al.,
// 2015), others scaled by 1/(1-p): both are part of bn1's line, since a
// factor that is not negative commutes with ReLU.
func (b *block) dropout(s *scratch, image int) {
	cfg := &b.net.cfg
	keep := keepScale(cfg.Dropout)
	limit := uint64(float64(cfg.Dropout) * (1 << 32))
	random := stream(cfg.Seed, uint64(b.net.step), uint64(b.index), uint64(image))
	for p := range b.conv2.in {
		for j := range s.scale {
			f := keep
			if uint64(draw(random, p*gemm.Lanes+j)) < limit {
				f = 0
			}
			s.scale[j] = b.bn1.scale[p][j] * f
			s.shift[j] = b.bn1.shift[p][j] * f
		}
		row := image * b.pixels
		gemm.AffineReLU(b.a1.Plane(p, row, b.pixels), b.y1.Plane(p, row, b.pixels), &s.scale, &s.shift)
	}
}

// keepScale is the factor of channels that dropout keeps.
func keepScale(p float32) float32 { return float32(1 / (1 - float64(p))) }

// outputGrad takes the gradient of the block's output, for rows of one plane
// and part, through the ReLU: it sets g and adds to the batch norms' sums.
func (b *block) outputGrad(a *gemm.ReLUGradArgs, plane, row int, grad []float32) {
	n := len(grad) / gemm.Lanes
	gemm.ReLUGrad(b.g.Plane(plane, row, n), grad, b.y2.Plane(plane, row, n), b.yS.Plane(plane, row, n), a)
}

// beginGrad and endGrad stand around the calls of outputGrad for one plane
// and part.
func (b *block) beginGrad(a *gemm.ReLUGradArgs, plane int) {
	*a = gemm.ReLUGradArgs{
		A: b.bn2.scale[plane], B: b.bnS.scale[plane], C: b.sum[plane],
		MeanX: b.bn2.batchMean[plane], MeanY: b.bnS.batchMean[plane],
	}
}

func (b *block) endGrad(a *gemm.ReLUGradArgs, plane, part int) {
	i := part*b.bn2.planes + plane
	b.bn2.grads[i] = gradSum{a.Sum, a.DotX}
	b.bnS.grads[i] = gradSum{a.Sum, a.DotY}
}

// sumGrads finishes the gradients of the last batch norms from parts.
func (b *block) sumGrads(parts int) {
	b.bn2.finishGrad(parts, b.rows())
	b.bnS.finishGrad(parts, b.rows())
}

// runBackward2 goes back through bn2, bnS, conv2, dropout and ReLU.
func (b *block) runBackward2(worker, part int) {
	s := &b.net.scratch[worker]
	first, images := b.part(part)
	row, rows := first*b.pixels, images*b.pixels
	for p := range b.conv2.out {
		g, y2, yS := b.g.Plane(p, row, rows), b.y2.Plane(p, row, rows), b.yS.Plane(p, row, rows)
		gemm.Affine2(y2, g, y2, &b.bn2.gradG[p], &b.bn2.gradY[p], &b.bn2.gradC[p])
		gemm.Affine2(yS, g, yS, &b.bnS.gradG[p], &b.bnS.gradY[p], &b.bnS.gradC[p])
	}
	s.grad.Stride = rows * gemm.Lanes
	b.conv2.backward(&s.mul, s.grad, b.y2.From(row), images, false)
	for j := range s.scale {
		s.scale[j] = keepScale(b.net.cfg.Dropout)
	}
	for p := range b.conv2.in {
		sums := &b.bn1.grads[part*b.bn1.planes+p]
		*sums = gradSum{}
		gemm.ScaleGrad(b.g.Plane(p, row, rows), s.grad.Plane(p, 0, rows), b.a1.Plane(p, row, rows),
			b.y1.Plane(p, row, rows), &s.scale, &b.bn1.batchMean[p], &sums.sum, &sums.dot)
	}
}

// runBackward1 goes back through bn1, conv1 and convS, and on through the
// Haar transform to the previous block's batch norms.
func (b *block) runBackward1(worker, part int) {
	s := &b.net.scratch[worker]
	first, images := b.part(part)
	row, rows := first*b.pixels, images*b.pixels
	for p := range b.conv1.out {
		y1 := b.y1.Plane(p, row, rows)
		gemm.Affine2(y1, b.g.Plane(p, row, rows), y1, &b.bn1.gradG[p], &b.bn1.gradY[p], &b.bn1.gradC[p])
	}
	if b.prev == nil {
		return
	}
	s.grad.Stride = rows * gemm.Lanes
	b.conv1.backward(&s.mul, s.grad, b.y1.From(row), images, false)
	b.convS.backward(&s.mul, s.grad, b.yS.From(row), images, true)
	planes, width := b.prev.conv1.out, b.prev.side*gemm.Lanes
	grad := s.line[:b.prev.pixels*gemm.Lanes]
	for p := range planes {
		b.prev.beginGrad(&s.relu, p)
		for i := range images {
			for y := range b.side {
				r := i*b.pixels + y*b.side
				gemm.HaarInverse(grad[2*y*width:][:width], grad[(2*y+1)*width:][:width],
					s.grad.Plane(p, r, b.side), s.grad.Plane(planes+p, r, b.side),
					s.grad.Plane(2*planes+p, r, b.side), s.grad.Plane(3*planes+p, r, b.side))
			}
			b.prev.outputGrad(&s.relu, p, (first+i)*b.prev.pixels, grad)
		}
		b.prev.endGrad(&s.relu, p, part)
	}
}
