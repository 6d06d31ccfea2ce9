package cuda

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/nn"
)

// A vector is float32 on the device.
type vector struct {
	at   kernels.Pointer
	size int
}

// A param is a trained tensor: a place among all of them.
type param struct {
	name        string
	shape       []int // PyTorch's
	first, size int
	w           kernels.Pointer
	grad        kernels.Pointer // first part of the gradient, for the batch size that is planned
}

// floatSize is the number of bytes of a float32.
const floatSize = 4

func plus(p kernels.Pointer, floats int) kernels.Pointer {
	return p + kernels.Pointer(floats*floatSize)
}

// place allocates what doesn't depend on the size of a batch, and builds the network on it.
func (r *replica) place(list []nn.Tensor) error {
	total, running := 0, 0
	statistics := map[string]vector{}
	for _, t := range list {
		size := 1
		for _, d := range t.Shape {
			size *= d
		}
		switch {
		case strings.HasPrefix(t.Name, "adam."):
		case strings.HasSuffix(t.Name, ".running_mean"), strings.HasSuffix(t.Name, ".running_var"):
			statistics[t.Name] = vector{kernels.Pointer(running * floatSize), size}
			running += size
		default:
			r.params = append(r.params, param{name: t.Name, shape: t.Shape, first: total, size: size})
			total += (size + 3) / 4 * 4 // kernels read four at a time
		}
	}
	rooms := map[string]*vector{"parameters": &r.w, "Adam's m": &r.m, "Adam's v": &r.v, "running statistics": &r.running}
	for name, v := range rooms {
		size := total
		if v == &r.running {
			size = running
		}
		p, err := r.alloc(name, size)
		if err != nil {
			return err
		}
		*v = vector{p, size}
	}
	for i := range r.params {
		r.params[i].w = plus(r.w.at, r.params[i].first)
	}
	for name, v := range statistics {
		r.statistics[name] = vector{r.running.at + v.at, v.size}
	}
	if r.replicas > 1 {
		var err error
		if r.sums, err = r.alloc("sums of gradients", r.replicas*total); err != nil {
			return err
		}
		// What is between parameters is copied with them.
		if err := r.write(r.sums, make([]float32, r.replicas*total)); err != nil {
			return err
		}
	}
	var err error
	if r.state, err = r.dev.Alloc("state", 64); err != nil {
		return err
	}
	in, log := 4*r.cfg.Channels, 4
	for i, out := range []int{16, 32, 64, 128} {
		b := &block{index: i, in: in, out: out, log: log}
		name := fmt.Sprintf("block%d.", i+1)
		b.conv1, b.conv2, b.convS = r.param(name+"conv1.weight"), r.param(name+"conv2.weight"), r.param(name+"shortcut.conv.weight")
		for short, bn := range map[string]*norm{"bn1": &b.bn1, "bn2": &b.bn2, "shortcut.bn": &b.bnS} {
			*bn = norm{
				gamma: r.param(name + short + ".weight"), beta: r.param(name + short + ".bias"),
				mean: r.statistics[name+short+".running_mean"].at, vari: r.statistics[name+short+".running_var"].at,
			}
			if bn.lines, err = r.alloc(name+short, kernels.Norm(out)); err != nil {
				return err
			}
		}
		r.blocks = append(r.blocks, b)
		in, log = 4*out, log-1
	}
	r.linear = linear{r.param("linear.weight"), r.param("linear.bias")}
	return nil
}

func (r *replica) alloc(name string, floats int) (kernels.Pointer, error) {
	return r.dev.Alloc(name, floats*floatSize)
}

// param is one by its name.
func (r *replica) param(name string) *param {
	for i := range r.params {
		if r.params[i].name == name {
			return &r.params[i]
		}
	}
	panic("there is no parameter " + name)
}

// stored is where a tensor of a state is, and in which order: value i of it, in PyTorch's
// order, is at index(i).
func (r *replica) stored(t nn.Tensor) (v vector, index func(i int) int) {
	same := func(i int) int { return i }
	if v, ok := r.statistics[t.Name]; ok {
		return v, same
	}
	all, name := r.w, t.Name
	if rest, ok := strings.CutPrefix(t.Name, "adam.m."); ok {
		all, name = r.m, rest
	} else if rest, ok := strings.CutPrefix(t.Name, "adam.v."); ok {
		all, name = r.v, rest
	}
	p := r.param(name)
	v = vector{plus(all.at, p.first), p.size}
	switch {
	case len(p.shape) == 4: // [out][in][tap] is [tap][in][out] here
		out, in, taps := p.shape[0], p.shape[1], p.shape[2]*p.shape[3]
		return v, func(i int) int { return (i%taps*in+i/taps%in)*out + i/taps/in }
	case len(p.shape) == 2: // [class][channel][pixel] is [class][pixel][channel] here
		const pixels, channels = 4, kernels.Features / 4
		return v, func(i int) int {
			f := i % kernels.Features
			return i - f + f%pixels*channels + f/pixels
		}
	}
	return v, same
}

// reserve makes room for a batch, and plans the sums of its gradients' parts.
func (n *Network) reserve(images int) error {
	if images > n.capacity {
		n.capacity = 0
		n.reserved++
		for _, r := range n.replicas {
			if err := r.allocate(images); err != nil {
				return fmt.Errorf("memory for a batch of %d images: %w", images, err)
			}
		}
		n.capacity = images
	}
	for _, r := range n.replicas {
		if err := r.plan(images); err != nil {
			return err
		}
	}
	return nil
}

// A part is what a replica has of a batch.
type part struct{ batch, first, images int }

// part is what this replica has of a batch: the first replicas have one image more where it
// can't be split evenly.
func (r *replica) part(batch int) part {
	each, more := batch/r.replicas, batch%r.replicas
	p := part{batch, r.index*each + min(r.index, more), each}
	if r.index < more {
		p.images++
	}
	return p
}

// A plan is how Adam gets the gradients of a batch.
type plan struct {
	pieces kernels.Pointer // of the gradients here
	count  int
	sums   kernels.Pointer // pieces of the replicas' sums; the same for one replica
}

// plan plans the sums of a batch's gradients. Plans stay on the device: an epoch's last batch
// may be smaller than the others, and writing would wait for them.
func (r *replica) plan(batch int) error {
	if r.planned.batch == batch {
		return nil
	}
	part := r.part(batch)
	var pieces, sums []kernels.Piece
	all, floats := r.gradientsOf(part.images, kernels.Parts)
	if floats > r.gradients.size {
		return fmt.Errorf("gradients of %d images take %d values, and there is room for %d: this is a defect of the trainer. "+
			"Another batch size may do", part.images, floats, r.gradients.size)
	}
	at := 0
	for _, t := range all {
		for k, p := range t.params {
			p.grad = plus(r.gradients.at, at+t.offsets[k])
			for i := 0; i < p.size; i += kernels.PieceSize {
				piece := kernels.Piece{
					First: int32(p.first + i), Count: int32(min(kernels.PieceSize, p.size-i)),
					Gradient: int32(at + t.offsets[k] + i), Parts: int32(t.parts), Stride: int32(t.stride),
				}
				pieces = append(pieces, piece)
				piece.Gradient, piece.Parts, piece.Stride = piece.First, int32(min(r.replicas, batch)), int32(r.w.size)
				sums = append(sums, piece)
			}
		}
		at += t.parts * t.stride
	}
	p, ok := r.plans[batch]
	if !ok {
		p.count = len(pieces)
		var err error
		if p.pieces, err = r.table("pieces", pieces); err != nil {
			return err
		}
		if p.sums = p.pieces; r.replicas > 1 {
			if p.sums, err = r.table("pieces of sums", sums); err != nil {
				return err
			}
		}
		r.plans[batch] = p
	}
	r.planned, r.current = part, p
	return nil
}

// table puts pieces on the device, for as long as the memory for batches lasts.
func (r *replica) table(name string, pieces []kernels.Piece) (kernels.Pointer, error) {
	p, err := r.dev.Alloc(name, binary.Size(pieces))
	if err != nil {
		return 0, err
	}
	r.owned = append(r.owned, p)
	return p, r.write(p, pieces)
}

// A gradient is that of tensors which one kernel computes, in parts.
type gradient struct {
	params        []*param
	offsets       []int // in each part
	parts, stride int
}

// gradientsOf are the gradients of a batch, in their order in memory, and how many float32
// they take there. parts is how many a convolution's has.
func (r *replica) gradientsOf(images int, parts func(rows int) int) (all []gradient, floats int) {
	one := func(p *param, parts int) { all = append(all, gradient{[]*param{p}, []int{0}, parts, p.size}) }
	for _, b := range r.blocks {
		for _, c := range []*param{b.conv1, b.conv2, b.convS} {
			one(c, parts(b.rows(images)))
		}
		for _, bn := range []*norm{&b.bn1, &b.bn2, &b.bnS} {
			one(bn.gamma, 1)
			one(bn.beta, 1)
		}
	}
	w, b := r.linear.weight, r.linear.bias
	all = append(all, gradient{[]*param{w, b}, []int{0, w.size}, kernels.LinearParts(images), w.size + b.size})
	for _, t := range all {
		floats += t.parts * t.stride
	}
	return all, floats
}

// allocate makes room for the parts of batches of up to so many images, in place of what
// there was.
func (r *replica) allocate(batch int) error {
	for len(r.owned) > 0 {
		if err := r.dev.Free(r.owned[0]); err != nil {
			return err
		}
		r.owned = r.owned[1:]
	}
	r.planned = part{}
	clear(r.plans)
	images := max(1, r.part(batch).images)
	var moments, dx int
	for _, b := range r.blocks {
		rows := b.rows(images)
		moments = max(moments, kernels.Tiles(rows)*3*b.out)
		if b.index > 0 {
			dx = max(dx, rows*b.in)
		}
	}
	_, r.gradients.size = r.gradientsOf(images, kernels.MostParts) // a smaller batch may have more parts
	type room struct {
		name   string
		at     *kernels.Pointer
		floats int
	}
	rooms := []room{
		{"images", &r.images, images * r.cfg.Channels * nn.Size * nn.Size},
		{"labels", &r.labels, images},
		{"sums of tiles", &r.moments, moments},
		{"gradient of an input", &r.dx, dx},
		{"gradients", &r.gradients.at, r.gradients.size},
		{"features", &r.features, images * kernels.Features},
		{"logits", &r.logits, images * r.cfg.Classes},
		{"gradient of the features", &r.df, images * kernels.Features},
		{"losses", &r.losses, 2 * batch},
		{"hits", &r.hits, batch},
	}
	for _, b := range r.blocks {
		rows := b.rows(images)
		rooms = append(rooms, room{fmt.Sprintf("input of block %d", b.index+1), &b.x, rows * b.in})
		for name, p := range map[string]*kernels.Pointer{"y1": &b.y1, "a1": &b.a1, "y2": &b.y2, "yS": &b.yS, "g": &b.g} {
			rooms = append(rooms, room{fmt.Sprintf("%s of block %d", name, b.index+1), p, rows * b.out})
		}
	}
	for _, c := range rooms {
		p, err := r.alloc(c.name, c.floats)
		if err != nil {
			return err
		}
		*c.at = p
		r.owned = append(r.owned, p)
	}
	return nil
}
