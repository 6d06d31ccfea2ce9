package nn

import "math"

// The reference is the same network in float64, written from the layers'
// definitions on plain [image][channel][line][column] arrays, one loop nest
// each, with nothing of the package but its parameters' names and dropout
// decisions.

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

// tensor64 is a trained tensor, its gradient and Adam's moments.
type tensor64 struct{ w, g, m, v []float64 }

func newTensor64(w []float64) *tensor64 {
	return &tensor64{w, make([]float64, len(w)), make([]float64, len(w)), make([]float64, len(w))}
}

// conv64 is a circular convolution with a k x k kernel and no bias.
type conv64 struct {
	w       *tensor64 // [out][in][k][k]
	in, out int
	k       int
	x       *array
}

// each calls f for every weight and the lines that it connects: pixel x of
// the output line reads pixel (x+shift) mod s of the input line.
func (l *conv64) each(x *array, f func(w, in, out, shift int)) {
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

func (l *conv64) forward(x *array) *array {
	l.x = x
	y := newArray(x.n, l.out, x.s)
	l.each(x, func(w, in, out, shift int) {
		v, src, dst := l.w.w[w], x.d[in:][:x.s], y.d[out:][:x.s]
		for i := range dst {
			dst[i] += v * src[(i+shift)%x.s]
		}
	})
	return y
}

func (l *conv64) backward(g *array) *array {
	dx := newArray(l.x.n, l.in, l.x.s)
	s := l.x.s
	l.each(l.x, func(w, in, out, shift int) {
		v, src, dsrc, grad := l.w.w[w], l.x.d[in:][:s], dx.d[in:][:s], g.d[out:][:s]
		sum := 0.0
		for i, d := range grad {
			j := (i + shift) % s
			sum += src[j] * d
			dsrc[j] += v * d
		}
		l.w.g[w] += sum
	})
	return dx
}

// norm64 is batch norm over images and pixels.
type norm64 struct {
	gamma, beta *tensor64
	mean, vari  []float64 // running
	eval        bool
	y           *array // normalised input
	inv         []float64
}

func (l *norm64) forward(x *array) *array {
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
			out.d[i] = y.d[i]*l.gamma.w[c] + l.beta.w[c]
		})
	}
	l.y = y
	return out
}

func (l *norm64) pixels(x *array, c int, f func(i int)) {
	p := x.s * x.s
	for n := range x.n {
		for i := range p {
			f((n*x.c+c)*p + i)
		}
	}
}

func (l *norm64) backward(g *array) *array {
	dx := newArray(g.n, g.c, g.s)
	n := float64(g.n * g.s * g.s)
	for c := range g.c {
		var sum, dot float64
		l.pixels(g, c, func(i int) { sum += g.d[i]; dot += g.d[i] * l.y.d[i] })
		l.beta.g[c] += sum
		l.gamma.g[c] += dot
		l.pixels(g, c, func(i int) {
			dx.d[i] = l.gamma.w[c] * l.inv[c] * (g.d[i] - sum/n - l.y.d[i]*dot/n)
		})
	}
	return dx
}

// relu64 is max(x, 0). It keeps the smallest magnitude of an input: near
// zero the gradient of the float32 network may rightly be the other one.
type relu64 struct {
	x    *array
	near float64
}

func (l *relu64) forward(x *array) *array {
	l.x, l.near = x, math.Inf(1)
	y := newArray(x.n, x.c, x.s)
	for i, v := range x.d {
		l.near = math.Min(l.near, math.Abs(v))
		y.d[i] = math.Max(v, 0)
	}
	return y
}

func (l *relu64) backward(g *array) *array {
	dx := newArray(g.n, g.c, g.s)
	for i, v := range l.x.d {
		if v > 0 {
			dx.d[i] = g.d[i]
		}
	}
	return dx
}

// dropout64 multiplies channel c of image n by factor(n, c).
type dropout64 struct{ factor func(n, c int) float64 }

func (l *dropout64) forward(x *array) *array {
	y := newArray(x.n, x.c, x.s)
	p := x.s * x.s
	for i, v := range x.d {
		y.d[i] = v * l.factor(i/p/x.c, i/p%x.c)
	}
	return y
}

func (l *dropout64) backward(g *array) *array { return l.forward(g) }

// haar64 is the 2x2 Haar transform as four products with its basis: output
// channel q*C + c is the correlation of channel c with basis q.
type haar64 struct{}

var haarBasis = [4][2][2]float64{
	{{.5, .5}, {.5, .5}}, {{.5, -.5}, {.5, -.5}}, {{.5, .5}, {-.5, -.5}}, {{.5, -.5}, {-.5, .5}},
}

func (haar64) each(n, c, s int, f func(n, c, q, y, x, dy, dx int, b float64)) {
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

func (l haar64) forward(x *array) *array {
	out := newArray(x.n, 4*x.c, x.s/2)
	l.each(x.n, x.c, x.s, func(n, c, q, y, xx, dy, dx int, b float64) {
		*out.at(n, q*x.c+c, y, xx) += b * *x.at(n, c, 2*y+dy, 2*xx+dx)
	})
	return out
}

func (l haar64) backward(g *array) *array {
	out := newArray(g.n, g.c/4, 2*g.s)
	l.each(g.n, out.c, out.s, func(n, c, q, y, x, dy, dx int, b float64) {
		*out.at(n, c, 2*y+dy, 2*x+dx) += b * *g.at(n, q*out.c+c, y, x)
	})
	return out
}

// linear64 flattens [channel][line][column] and has a bias.
type linear64 struct {
	w, b *tensor64
	out  int
	x    *array
}

func (l *linear64) forward(x *array) *array {
	l.x = x
	k := x.c * x.s * x.s
	y := newArray(x.n, l.out, 1)
	for n := range x.n {
		for o := range l.out {
			y.d[n*l.out+o] = l.b.w[o]
			for i := range k {
				y.d[n*l.out+o] += l.w.w[o*k+i] * x.d[n*k+i]
			}
		}
	}
	return y
}

func (l *linear64) backward(g *array) *array {
	dx := newArray(l.x.n, l.x.c, l.x.s)
	k := l.x.c * l.x.s * l.x.s
	for n := range g.n {
		for o := range l.out {
			v := g.d[n*l.out+o]
			l.b.g[o] += v
			for i := range k {
				l.w.g[o*k+i] += v * l.x.d[n*k+i]
				dx.d[n*k+i] += v * l.w.w[o*k+i]
			}
		}
	}
	return dx
}

// crossEntropy64 returns the mean loss and its gradient.
func crossEntropy64(z *array, labels []uint8) (float64, *array) {
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

// chain64 runs layers one after the other.
type chain64 []layer

func (l chain64) forward(x *array) *array {
	for _, k := range l {
		x = k.forward(x)
	}
	return x
}

func (l chain64) backward(g *array) *array {
	for i := len(l) - 1; i >= 0; i-- {
		g = l[i].backward(g)
	}
	return g
}

// sum64 is the sum of two branches.
type sum64 struct{ a, b layer }

func (l sum64) forward(x *array) *array { return plus(l.a.forward(x), l.b.forward(x)) }

func (l sum64) backward(g *array) *array { return plus(l.a.backward(g), l.b.backward(g)) }

func plus(a, b *array) *array {
	y := newArray(a.n, a.c, a.s)
	for i := range y.d {
		y.d[i] = a.d[i] + b.d[i]
	}
	return y
}

// reference is the whole network.
type reference struct {
	cfg     Config
	step    int
	layers  chain64
	tensors map[string]*tensor64
	running map[string][]float64
	norms   []*norm64
	relus   []*relu64
	logits  *array
	eval    bool
}

// newReference copies the parameters and running statistics of a network.
func newReference(n *Network) *reference {
	r := &reference{cfg: n.cfg, tensors: map[string]*tensor64{}, running: map[string][]float64{}}
	for _, t := range n.State().Tensors {
		w := make([]float64, len(t.Data))
		for i, v := range t.Data {
			w[i] = float64(v)
		}
		r.tensors[t.Name], r.running[t.Name] = newTensor64(w), w
	}
	in := 4 * n.cfg.Channels
	for b, out := range []int{16, 32, 64, 128} {
		name := "block" + string(rune('1'+b)) + "."
		r.layers = append(r.layers, haar64{},
			sum64{
				chain64{
					r.conv(name+"conv1", in, out, 3), r.norm(name + "bn1"), r.relu(),
					&dropout64{r.dropout(b)}, r.conv(name+"conv2", out, out, 3), r.norm(name + "bn2"),
				},
				chain64{r.conv(name+"shortcut.conv", in, out, 1), r.norm(name + "shortcut.bn")},
			}, r.relu())
		in = 4 * out
	}
	r.layers = append(r.layers, &linear64{w: r.tensors["linear.weight"], b: r.tensors["linear.bias"], out: n.cfg.Classes})
	return r
}

func (r *reference) conv(name string, in, out, k int) layer {
	return &conv64{w: r.tensors[name+".weight"], in: in, out: out, k: k}
}

func (r *reference) norm(name string) layer {
	l := &norm64{
		gamma: r.tensors[name+".weight"], beta: r.tensors[name+".bias"],
		mean: r.running[name+".running_mean"], vari: r.running[name+".running_var"],
	}
	r.norms = append(r.norms, l)
	return l
}

func (r *reference) relu() layer {
	l := &relu64{}
	r.relus = append(r.relus, l)
	return l
}

func (r *reference) dropout(block int) func(n, c int) float64 {
	return func(n, c int) float64 {
		if r.eval {
			return 1
		}
		s := stream(r.cfg.Seed, uint64(r.step), uint64(block), uint64(n))
		if float64(draw(s, c)) < float64(r.cfg.Dropout)*(1<<32) {
			return 0
		}
		return 1 / (1 - float64(r.cfg.Dropout))
	}
}

// loss runs the network and returns the mean loss and its gradient.
func (r *reference) loss(images []float32, labels []uint8) (float64, *array) {
	x := newArray(len(labels), r.cfg.Channels, Size)
	for i, v := range images {
		x.d[i] = float64(v)
	}
	for _, n := range r.norms {
		n.eval = r.eval
	}
	r.logits = r.layers.forward(x)
	return crossEntropy64(r.logits, labels)
}

// train takes one step.
func (r *reference) train(images []float32, labels []uint8) float64 {
	loss, g := r.loss(images, labels)
	for _, t := range r.tensors {
		clear(t.g)
	}
	r.layers.backward(g)
	r.adam()
	return loss
}

// adam is Algorithm 1 of Kingma and Ba.
func (r *reference) adam() {
	r.step++
	t := float64(r.step)
	for _, p := range r.tensors {
		for i, g := range p.g {
			p.m[i] = 0.9*p.m[i] + (1-0.9)*g
			p.v[i] = 0.999*p.v[i] + (1-0.999)*g*g
			m, v := p.m[i]/(1-math.Pow(0.9, t)), p.v[i]/(1-math.Pow(0.999, t))
			p.w[i] -= float64(r.cfg.LR) * m / (math.Sqrt(v) + 1e-8)
		}
	}
}
