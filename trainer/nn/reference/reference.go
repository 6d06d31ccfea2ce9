// Package reference is the network of package nn in float64, for tests that hold others
// against it: written from the layers' definitions on plain [image][channel][line][column]
// arrays, one loop nest each, and as slow as that. It takes nothing from package nn.
package reference

import (
	"fmt"
	"math"
)

// Size is the height and width of an image.
const Size = 32

type array struct {
	n, c, s int // images, channels, height and width
	d       []float64
}

func newArray(n, c, s int) *array { return &array{n, c, s, make([]float64, n*c*s*s)} }

func (a *array) at(n, c, y, x int) *float64 {
	return &a.d[((n*a.c+c)*a.s+y)*a.s+x]
}

// A layer computes its output and keeps what its gradient needs.
type layer interface {
	forward(x *array) *array
	// backward returns the gradient of the input, and adds to those of the
	// layer's tensors.
	backward(g *array) *array
}

// A Tensor is a trained one: its values, their gradients and Adam's moments.
type Tensor struct{ W, G, M, V []float64 }

func newTensor(w []float64) *Tensor {
	return &Tensor{w, make([]float64, len(w)), make([]float64, len(w)), make([]float64, len(w))}
}

// conv is a circular convolution with a k x k kernel and no bias.
type conv struct {
	w       *Tensor // [out][in][k][k]
	in, out int
	k       int
	x       *array
}

// each calls f for every weight and the lines that it connects: pixel x of
// the output line reads pixel (x+shift) mod s of the input line.
func (l *conv) each(x *array, f func(w, in, out, shift int)) {
	s := x.s
	for n := range x.n {
		for o := range l.out {
			for i := range l.in {
				for ky := range l.k {
					for kx := range l.k {
						for y := range s {
							yy := (y + ky - l.k/2 + s) % s
							f(((o*l.in+i)*l.k+ky)*l.k+kx, ((n*x.c+i)*s+yy)*s, ((n*l.out+o)*s+y)*s, kx-l.k/2+s)
						}
					}
				}
			}
		}
	}
}

func (l *conv) forward(x *array) *array {
	l.x = x
	y := newArray(x.n, l.out, x.s)
	l.each(x, func(w, in, out, shift int) {
		v, src, dst := l.w.W[w], x.d[in:][:x.s], y.d[out:][:x.s]
		for i := range dst {
			dst[i] += v * src[(i+shift)%x.s]
		}
	})
	return y
}

func (l *conv) backward(g *array) *array {
	dx := newArray(l.x.n, l.in, l.x.s)
	s := l.x.s
	l.each(l.x, func(w, in, out, shift int) {
		v, src, dsrc, grad := l.w.W[w], l.x.d[in:][:s], dx.d[in:][:s], g.d[out:][:s]
		sum := 0.0
		for i, d := range grad {
			j := (i + shift) % s
			sum += src[j] * d
			dsrc[j] += v * d
		}
		l.w.G[w] += sum
	})
	return dx
}

// norm is batch norm over images and pixels.
type norm struct {
	gamma, beta *Tensor
	mean, vari  []float64 // running
	eval        bool
	y           *array // normalised input
	inv         []float64
}

func (l *norm) forward(x *array) *array {
	y, out := newArray(x.n, x.c, x.s), newArray(x.n, x.c, x.s)
	l.inv = make([]float64, x.c)
	p := x.s * x.s
	n := float64(x.n * p)
	for c := range x.c {
		var mean, vari float64
		l.pixels(x, c, func(i int) { mean += x.d[i] / n })
		l.pixels(x, c, func(i int) { vari += (x.d[i] - mean) * (x.d[i] - mean) / n })
		if l.eval {
			mean, vari = l.mean[c], l.vari[c]
		} else {
			l.mean[c] = 0.9*l.mean[c] + 0.1*mean
			l.vari[c] = 0.9*l.vari[c] + 0.1*vari*n/(n-1)
		}
		l.inv[c] = 1 / math.Sqrt(vari+1e-5)
		l.pixels(x, c, func(i int) {
			y.d[i] = (x.d[i] - mean) * l.inv[c]
			out.d[i] = y.d[i]*l.gamma.W[c] + l.beta.W[c]
		})
	}
	l.y = y
	return out
}

func (l *norm) pixels(x *array, c int, f func(i int)) {
	p := x.s * x.s
	for n := range x.n {
		for i := range p {
			f((n*x.c+c)*p + i)
		}
	}
}

func (l *norm) backward(g *array) *array {
	dx := newArray(g.n, g.c, g.s)
	n := float64(g.n * g.s * g.s)
	for c := range g.c {
		var sum, dot float64
		l.pixels(g, c, func(i int) { sum += g.d[i]; dot += g.d[i] * l.y.d[i] })
		l.beta.G[c] += sum
		l.gamma.G[c] += dot
		l.pixels(g, c, func(i int) {
			dx.d[i] = l.gamma.W[c] * l.inv[c] * (g.d[i] - sum/n - l.y.d[i]*dot/n)
		})
	}
	return dx
}

// relu is max(x, 0). It keeps the smallest magnitude of an input: near
// zero the gradient of the float32 network may rightly be the other one.
type relu struct {
	x    *array
	near float64
}

func (l *relu) forward(x *array) *array {
	l.x, l.near = x, math.Inf(1)
	y := newArray(x.n, x.c, x.s)
	for i, v := range x.d {
		l.near = math.Min(l.near, math.Abs(v))
		y.d[i] = math.Max(v, 0)
	}
	return y
}

func (l *relu) backward(g *array) *array {
	dx := newArray(g.n, g.c, g.s)
	for i, v := range l.x.d {
		if v > 0 {
			dx.d[i] = g.d[i]
		}
	}
	return dx
}

// dropout multiplies channel c of image n by factor(n, c).
type dropout struct{ factor func(n, c int) float64 }

func (l *dropout) forward(x *array) *array {
	y := newArray(x.n, x.c, x.s)
	p := x.s * x.s
	for i, v := range x.d {
		y.d[i] = v * l.factor(i/p/x.c, i/p%x.c)
	}
	return y
}

func (l *dropout) backward(g *array) *array { return l.forward(g) }

// haar is the 2x2 Haar transform as four products with its basis: output
// channel q*C + c is the correlation of channel c with basis q.
type haar struct{}

var haarBasis = [4][2][2]float64{
	{{.5, .5}, {.5, .5}}, {{.5, -.5}, {.5, -.5}}, {{.5, .5}, {-.5, -.5}}, {{.5, -.5}, {-.5, .5}},
}

func (haar) each(n, c, s int, f func(n, c, q, y, x, dy, dx int, b float64)) {
	for n := range n {
		for c := range c {
			for q, basis := range haarBasis {
				for y := range s / 2 {
					for x := range s / 2 {
						for dy := range 2 {
							for dx := range 2 {
								f(n, c, q, y, x, dy, dx, basis[dy][dx])
							}
						}
					}
				}
			}
		}
	}
}

func (l haar) forward(x *array) *array {
	out := newArray(x.n, 4*x.c, x.s/2)
	l.each(x.n, x.c, x.s, func(n, c, q, y, xx, dy, dx int, b float64) {
		*out.at(n, q*x.c+c, y, xx) += b * *x.at(n, c, 2*y+dy, 2*xx+dx)
	})
	return out
}

func (l haar) backward(g *array) *array {
	out := newArray(g.n, g.c/4, 2*g.s)
	l.each(g.n, out.c, out.s, func(n, c, q, y, x, dy, dx int, b float64) {
		*out.at(n, c, 2*y+dy, 2*x+dx) += b * *g.at(n, q*out.c+c, y, x)
	})
	return out
}

// linear flattens [channel][line][column] and has a bias.
type linear struct {
	w, b *Tensor
	out  int
	x    *array
}

func (l *linear) forward(x *array) *array {
	l.x = x
	k := x.c * x.s * x.s
	y := newArray(x.n, l.out, 1)
	for n := range x.n {
		for o := range l.out {
			y.d[n*l.out+o] = l.b.W[o]
			for i := range k {
				y.d[n*l.out+o] += l.w.W[o*k+i] * x.d[n*k+i]
			}
		}
	}
	return y
}

func (l *linear) backward(g *array) *array {
	dx := newArray(l.x.n, l.x.c, l.x.s)
	k := l.x.c * l.x.s * l.x.s
	for n := range g.n {
		for o := range l.out {
			v := g.d[n*l.out+o]
			l.b.G[o] += v
			for i := range k {
				l.w.G[o*k+i] += v * l.x.d[n*k+i]
				dx.d[n*k+i] += v * l.w.W[o*k+i]
			}
		}
	}
	return dx
}

// crossEntropy returns the mean loss and its gradient.
func crossEntropy(z *array, labels []uint8) (float64, *array) {
	g := newArray(z.n, z.c, 1)
	loss := 0.0
	for n := range z.n {
		row := z.d[n*z.c:][:z.c]
		sum := 0.0
		for _, v := range row {
			sum += math.Exp(v)
		}
		loss += math.Log(sum) - row[labels[n]]
		for c, v := range row {
			g.d[n*z.c+c] = math.Exp(v) / sum / float64(z.n)
		}
		g.d[n*z.c+int(labels[n])] -= 1 / float64(z.n)
	}
	return loss / float64(z.n), g
}

// chain runs layers one after the other.
type chain []layer

func (l chain) forward(x *array) *array {
	for _, k := range l {
		x = k.forward(x)
	}
	return x
}

func (l chain) backward(g *array) *array {
	for i := len(l) - 1; i >= 0; i-- {
		g = l[i].backward(g)
	}
	return g
}

// sum is the sum of two branches.
type sum struct{ a, b layer }

func (l sum) forward(x *array) *array { return plus(l.a.forward(x), l.b.forward(x)) }

func (l sum) backward(g *array) *array { return plus(l.a.backward(g), l.b.backward(g)) }

func plus(a, b *array) *array {
	y := newArray(a.n, a.c, a.s)
	for i := range y.d {
		y.d[i] = a.d[i] + b.d[i]
	}
	return y
}

// Config is that of package nn.
type Config struct {
	Channels, Classes int
	Seed              uint64
	LR, Dropout       float32
}

// A Network is the whole network. Its values have the names that they have in a state of package nn.
type Network struct {
	Tensors map[string]*Tensor
	Running map[string][]float64 // statistics of batch norm
	Eval    bool                 // normalise by these, and drop nothing
	Step    int

	cfg    Config
	layers chain
	norms  []*norm
	relus  []*relu
}

// New makes a network of a state's values.
func New(cfg Config, values map[string][]float32) *Network {
	n := &Network{cfg: cfg, Tensors: map[string]*Tensor{}, Running: map[string][]float64{}}
	copied := func(name string) []float64 {
		w := make([]float64, len(values[name]))
		for i, v := range values[name] {
			w[i] = float64(v)
		}
		return w
	}
	tensor := func(name string) *Tensor {
		n.Tensors[name] = newTensor(copied(name))
		return n.Tensors[name]
	}
	running := func(name string) []float64 {
		n.Running[name] = copied(name)
		return n.Running[name]
	}
	convolve := func(name string, in, out, k int) layer {
		return &conv{w: tensor(name + ".weight"), in: in, out: out, k: k}
	}
	normalise := func(name string) layer {
		l := &norm{
			gamma: tensor(name + ".weight"), beta: tensor(name + ".bias"), mean: running(name + ".running_mean"), vari: running(name + ".running_var"),
		}
		n.norms = append(n.norms, l)
		return l
	}
	rectify := func() layer {
		l := &relu{}
		n.relus = append(n.relus, l)
		return l
	}
	in := 4 * cfg.Channels
	for b, out := range []int{16, 32, 64, 128} {
		name := fmt.Sprintf("block%d.", b+1)
		n.layers = append(n.layers, haar{},
			sum{
				chain{
					convolve(name+"conv1", in, out, 3), normalise(name + "bn1"), rectify(),
					&dropout{n.keep(b)}, convolve(name+"conv2", out, out, 3), normalise(name + "bn2"),
				},
				chain{convolve(name+"shortcut.conv", in, out, 1), normalise(name + "shortcut.bn")},
			}, rectify())
		in = 4 * out
	}
	n.layers = append(n.layers, &linear{w: tensor("linear.weight"), b: tensor("linear.bias"), out: cfg.Classes})
	return n
}

// keep is by what dropout multiplies the channels of images in a block. The random numbers are
// SplitMix64's (Steele, Lea and Flood, 2014), counted from a place that step, block and image give.
func (n *Network) keep(block int) func(image, channel int) float64 {
	const golden = 0x9e3779b97f4a7c15
	mix := func(z uint64) uint64 {
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return z ^ z>>31
	}
	return func(image, channel int) float64 {
		if n.Eval {
			return 1
		}
		s := mix(n.cfg.Seed + golden)
		for _, key := range []int{n.Step, block, image} {
			s = mix(s + uint64(key+1)*golden)
		}
		if float64(mix(s+uint64(channel+1)*golden)>>32) < float64(n.cfg.Dropout)*(1<<32) {
			return 0
		}
		return 1 / (1 - float64(n.cfg.Dropout))
	}
}

// Loss takes images through the network, and returns their mean loss.
func (n *Network) Loss(images []float32, labels []uint8) float64 {
	loss, _ := n.loss(images, labels)
	return loss
}

func (n *Network) loss(images []float32, labels []uint8) (loss float64, gradient *array) {
	x := newArray(len(labels), n.cfg.Channels, Size)
	for i, v := range images {
		x.d[i] = float64(v)
	}
	for _, l := range n.norms {
		l.eval = n.Eval
	}
	return crossEntropy(n.layers.forward(x), labels)
}

// Nearest is how near to zero an input of a ReLU came in the last pass: there the gradient of
// whoever rounds may rightly be the other one.
func (n *Network) Nearest() float64 {
	near := math.Inf(1)
	for _, l := range n.relus {
		near = math.Min(near, l.near)
	}
	return near
}

// Train takes a step, and returns the mean loss before it.
func (n *Network) Train(images []float32, labels []uint8) float64 {
	loss, g := n.loss(images, labels)
	for _, t := range n.Tensors {
		clear(t.G)
	}
	n.layers.backward(g)
	n.Adam()
	return loss
}

// Adam takes a step along the gradients: Algorithm 1 of Kingma and Ba, 2015.
func (n *Network) Adam() {
	n.Step++
	t := float64(n.Step)
	for _, p := range n.Tensors {
		for i, g := range p.G {
			p.M[i] = 0.9*p.M[i] + (1-0.9)*g
			p.V[i] = 0.999*p.V[i] + (1-0.999)*g*g
			m, v := p.M[i]/(1-math.Pow(0.9, t)), p.V[i]/(1-math.Pow(0.999, t))
			p.W[i] -= float64(n.cfg.LR) * m / (math.Sqrt(v) + 1e-8)
		}
	}
}
