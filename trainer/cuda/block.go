package cuda

import (
	"errors"

	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// A block is a residual block and the Haar transform before it. Its images are 1<<log
// squared.
type block struct {
	index, in, out, log int
	conv1, conv2, convS *param
	bn1, bn2, bnS       norm

	x, a1      kernels.Pointer // inputs of conv1 and convS, and of conv2
	y1, y2, yS kernels.Pointer // outputs; then their gradients
	g          kernels.Pointer // gradients of the batch norms' outputs
}

type norm struct {
	gamma, beta *param
	mean, vari  kernels.Pointer // running
	lines       kernels.Pointer
}

type linear struct{ weight, bias *param }

// rows is the number of pixels of so many images.
func (b *block) rows(images int) int { return images << (2 * b.log) }

// shape is that of the convolutions: conv1, conv2 or convS.
func (b *block) shape(c *param, images int) kernels.Shape {
	return kernels.Shape{Rows: b.rows(images), K: c.shape[1], N: c.shape[0], Width: c.shape[2], Log: b.log}
}

// normalise makes the lines of a batch norm: from the sums that a convolution left, or in
// evaluation from the running statistics.
func (r *replica) normalise(bn *norm, rows, channels int, train bool) error {
	if !train {
		return r.set.NormRunning(bn.lines, bn.mean, bn.vari, bn.gamma.w, bn.beta.w, channels)
	}
	return r.set.NormBatch(bn.lines, bn.mean, bn.vari, r.moments, bn.gamma.w, bn.beta.w, r.state, rows, channels)
}

// forward takes a part of a batch from the first block's input to its losses.
func (r *replica) forward(p part, train bool) (err error) {
	s, images := r.set, p.images
	for i, b := range r.blocks {
		rows := b.rows(images)
		conv := func(out, in kernels.Pointer, c *param, bn *norm) error {
			sums := r.moments
			if !train {
				sums = 0
			}
			return errors.Join(s.ConvForward(out, in, c.w, sums, b.shape(c, images)), r.normalise(bn, rows, b.out, train))
		}
		drop := kernels.Dropout{Seed: r.cfg.Seed, Block: i, First: p.first}
		if train {
			drop.Probability = r.cfg.Dropout
		}
		err = errors.Join(err,
			conv(b.y1, b.x, b.conv1, &b.bn1),
			conv(b.yS, b.x, b.convS, &b.bnS),
			s.Activate(b.a1, b.y1, b.bn1.lines, r.state, drop, rows, b.out, b.log),
			conv(b.y2, b.a1, b.conv2, &b.bn2))
		if i+1 < len(r.blocks) {
			next := r.blocks[i+1]
			err = errors.Join(err, s.JoinHaar(next.x, b.y2, b.yS, b.bn2.lines, b.bnS.lines, next.rows(images), b.out, next.log))
			continue
		}
		h := kernels.Head{
			Features: r.features, Logits: r.logits, Losses: plus(r.losses, 2*p.first), Hits: plus(r.hits, p.first),
			Y: b.y2, Shortcut: b.yS, Norm: b.bn2.lines, NormS: b.bnS.lines,
			Weights: r.linear.weight.w, Bias: r.linear.bias.w, Labels: r.labels,
		}
		if train {
			h.DFeatures = r.df
		}
		err = errors.Join(err, s.Head(h, images, p.batch, r.cfg.Classes))
	}
	return err
}

// backward computes all gradients of a part.
func (r *replica) backward(p part) error {
	s, images := r.set, p.images
	err := s.LinearGrad(r.linear.weight.grad, r.logits, r.features, images, r.cfg.Classes)
	for i := len(r.blocks) - 1; i >= 0; i-- {
		b := r.blocks[i]
		rows, last, dx := b.rows(images), i == len(r.blocks)-1, r.dx
		if last {
			dx = r.df
		}
		shape := func(c *param) kernels.Shape { return b.shape(c, images) }
		// through takes the gradient g through a batch norm: y becomes its input's.
		through := func(y kernels.Pointer, bn *norm, dot int) error {
			return errors.Join(
				s.NormGrad(bn.lines, bn.gamma.grad, bn.beta.grad, r.moments, bn.gamma.w, rows, b.out, dot),
				s.NormApply(y, b.g, bn.lines, rows, b.out))
		}
		drop := kernels.Dropout{Probability: r.cfg.Dropout}
		err = errors.Join(err,
			s.JoinGrad(b.g, r.moments, dx, b.y2, b.yS, b.bn2.lines, b.bnS.lines, rows, b.out, b.log, !last),
			through(b.y2, &b.bn2, 1),
			through(b.yS, &b.bnS, 2),
			s.ConvWeight(b.conv2.grad, b.a1, b.y2, shape(b.conv2)),
			s.ConvWeight(b.convS.grad, b.x, b.yS, shape(b.convS)),
			s.ConvBackward(b.g, b.y2, b.conv2.w, shape(b.conv2), false),
			s.ActivateGrad(b.g, r.moments, b.a1, b.y1, b.bn1.lines, drop, rows, b.out),
			through(b.y1, &b.bn1, 1),
			s.ConvWeight(b.conv1.grad, b.x, b.y1, shape(b.conv1)))
		if i > 0 {
			err = errors.Join(err,
				s.ConvBackward(r.dx, b.y1, b.conv1.w, shape(b.conv1), false),
				s.ConvBackward(r.dx, b.yS, b.convS.w, shape(b.convS), true))
		}
	}
	return err
}
