package nn

import (
	"math"

	"github.com/berthdev/berth/trainer/gemm"
)

// linearTaps is the number of pixels that the linear layer flattens.
const linearTaps = 4

// head is the end of the network: linear layer and softmax cross-entropy.
type head struct {
	net      *Network
	last     *block
	linear   *conv
	bias     *param
	features gemm.Planes // output of the last block
	logits   gemm.Planes // then their gradient
	single   *gemm.Gather
	parts    []headPart
	biases   []gemm.Vec // sums of the logits' gradient, [part][plane]
	run      func(worker, part int)
}

// headPart is the outcome of one part of a batch.
type headPart struct {
	loss    float64
	correct int
}

func newHead(n *Network, last *block) *head {
	features, classes := last.conv1.out*gemm.Lanes*last.pixels, n.cfg.Classes
	h := &head{net: n, last: last}
	h.linear = &conv{
		in: last.conv1.out, out: (classes + gemm.Lanes - 1) / gemm.Lanes,
		columns: gemm.Lanes, inRows: last.pixels, outRows: 1,
		gather: gemm.NewGather(linearTaps, 24, 24*linearTaps, func(t, r int) int { return r*linearTaps + t }),
	}
	h.linear.w = n.params.add(&param{
		name: "linear.weight", shape: []int{classes, features},
		inPlanes: h.linear.in, outPlanes: h.linear.out, taps: linearTaps,
		fanIn: features, flip: true, flat: true,
	})
	h.bias = n.params.add(&param{name: "linear.bias", shape: []int{classes}, fanIn: features})
	h.single = gemm.NewGather(1, 24, 24, func(_, r int) int { return r })
	h.run = h.runPart
	return h
}

func (h *head) reserve(images int) {
	h.features = gemm.NewPlanes(h.linear.in, images*linearTaps)
	h.logits = gemm.NewPlanes(h.linear.out, images)
	h.linear.reserve(images)
	parts := (images + h.last.partImages() - 1) / h.last.partImages()
	h.parts = make([]headPart, parts)
	h.biases = make([]gemm.Vec, parts*h.linear.out)
}

// runPart computes the last block's output, logits and loss of one part, and
// in training goes back to the last block's batch norms.
func (h *head) runPart(worker, part int) {
	s := &h.net.scratch[worker]
	b := h.last
	first, images := b.part(part)
	row, rows := first*b.pixels, images*b.pixels
	for p := range h.linear.in {
		b.output(h.features.Plane(p, row, rows), p, row)
	}
	for o := range h.linear.out {
		logits := h.logits.Plane(o, first, images)
		for i := range images {
			copy(logits[i*gemm.Lanes:][:gemm.Lanes], h.bias.w[o*gemm.Lanes:])
		}
	}
	h.linear.forward(&s.mul, h.logits.From(first), h.features.From(row), images, true)
	r := headPart{}
	for i := first; i < first+images; i++ {
		loss, hit := h.softmax(i)
		r.loss += loss
		if hit {
			r.correct++
		}
	}
	h.parts[part] = r
	if !h.net.training {
		return
	}
	for o := range h.linear.out {
		sum := gemm.Vec{}
		logits := h.logits.Plane(o, first, images)
		for i := range logits {
			sum[i%gemm.Lanes] += logits[i]
		}
		h.biases[part*h.linear.out+o] = sum
	}
	s.grad.Stride = rows * gemm.Lanes
	size := h.linear.in * h.linear.out * gemm.TileSize
	for t := range linearTaps {
		s.mul = gemm.Product{
			Dst: s.grad.From(t), DstPlanes: h.linear.in, DstStep: linearTaps,
			Src: h.logits.From(first), SrcPlanes: h.linear.out, Columns: gemm.Lanes,
			Weights: h.linear.w.flipped[t*size:][:size], Gather: h.single, Rows: images,
		}
		s.mul.Mul()
	}
	for p := range h.linear.in {
		b.beginGrad(&s.relu, p)
		b.outputGrad(&s.relu, p, row, s.grad.Plane(p, 0, rows))
		b.endGrad(&s.relu, p, part)
	}
}

// softmax returns one image's cross-entropy and whether its largest logit is
// that of its label. In training it replaces the logits by the gradient of
// the batch's mean loss.
func (h *head) softmax(image int) (loss float64, hit bool) {
	classes, label := h.net.cfg.Classes, int(h.net.labels[image])
	at := func(c int) *float32 {
		return &h.logits.Data[c/gemm.Lanes*h.logits.Stride+image*gemm.Lanes+c%gemm.Lanes]
	}
	best := 0
	for c := range classes {
		if *at(c) > *at(best) {
			best = c
		}
	}
	top, sum := float64(*at(best)), 0.0
	for c := range classes {
		sum += exp(float64(*at(c)) - top)
	}
	loss = ln(sum) - (float64(*at(label)) - top)
	if h.net.training {
		n := float64(len(h.net.labels))
		for c := range classes {
			p := exp(float64(*at(c))-top) / sum
			if c == label {
				p--
			}
			*at(c) = float32(p / n)
		}
	}
	return loss, best == label && !math.IsNaN(loss)
}

// result sums the parts of the batch in work.
func (h *head) result() (loss float64, correct int) {
	for _, p := range h.parts[:h.last.parts()] {
		loss += p.loss
		correct += p.correct
	}
	return loss, correct
}

// biasGrad sums the gradient of the bias from parts.
func (h *head) biasGrad(parts int) {
	for c := range h.bias.size() {
		sum := 0.0
		for part := range parts {
			sum += float64(h.biases[part*h.linear.out+c/gemm.Lanes][c%gemm.Lanes])
		}
		h.bias.grad[c] = float32(sum)
	}
}
