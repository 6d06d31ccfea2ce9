package nn

import (
	"math"

	"github.com/berthdev/berth/trainer/gemm"
)

// Constants of batch norm, PyTorch's defaults.
const (
	normEpsilon  = 1e-5
	normMomentum = 0.1
)

// batchNorm normalises each channel over all pixels of a batch (Ioffe and
// Szegedy, 2015). Its work on the pixels is done by fused passes elsewhere:
// it only turns sums over parts of a batch into a line y*scale + shift.
type batchNorm struct {
	name        string
	planes      int
	gamma, beta *param
	mean, vari  []float32 // running, as PyTorch's: variance of n-1

	batchMean []gemm.Vec // of the batch in work
	inverse   []float64  // 1/sqrt(variance + epsilon)
	// Forward: y*scale + shift. Backward: gradG*g + gradY*y + gradC.
	scale, shift        []gemm.Vec
	gradG, gradY, gradC []gemm.Vec

	moments []moment  // [part][plane]
	grads   []gradSum // [part][plane]
}

// moment is the first row of a part, and sums of the distances to it.
type moment struct {
	rows                int
	shift, sum, squares gemm.Vec
}

// gradSum sums the output's gradient g: of g, and of g*(y-mean).
type gradSum struct{ sum, dot gemm.Vec }

func newBatchNorm(ps *params, name string, channels int) *batchNorm {
	planes := channels / gemm.Lanes
	vecs := func() []gemm.Vec { return make([]gemm.Vec, planes) }
	b := &batchNorm{
		name: name, planes: planes,
		gamma: ps.add(&param{name: name + ".weight", shape: []int{channels}, fill: 1}),
		beta:  ps.add(&param{name: name + ".bias", shape: []int{channels}}),
		mean:  make([]float32, channels), vari: make([]float32, channels),
		batchMean: vecs(), inverse: make([]float64, channels),
		scale: vecs(), shift: vecs(), gradG: vecs(), gradY: vecs(), gradC: vecs(),
	}
	for i := range b.vari {
		b.vari[i] = 1
	}
	return b
}

func (b *batchNorm) reserve(parts int) {
	b.moments = make([]moment, parts*b.planes)
	b.grads = make([]gradSum, parts*b.planes)
}

// measure sums the rows of one part and plane.
func (b *batchNorm) measure(part, plane int, x []float32) {
	m := &b.moments[part*b.planes+plane]
	*m = moment{rows: len(x) / gemm.Lanes, shift: gemm.Vec(x)}
	gemm.Moments(x, &m.shift, &m.sum, &m.squares)
}

// finish computes the batch's statistics from its parts (Chan, Golub and
// LeVeque, 1983), and updates the running ones.
func (b *batchNorm) finish(parts, rows int) {
	for c := range b.inverse {
		plane, lane := c/gemm.Lanes, c%gemm.Lanes
		var n, mean, m2 float64
		for part := range parts {
			m := &b.moments[part*b.planes+plane]
			k := float64(m.rows)
			d := float64(m.sum[lane]) / k
			delta := float64(m.shift[lane]) + d - mean
			m2 += float64(m.squares[lane]) - float64(float64(m.sum[lane])*d)
			m2 += float64(delta * delta * (float64(n*k) / (n + k)))
			mean += float64(delta * (k / (n + k)))
			n += k
		}
		vari := max(m2, 0) / n
		b.line(c, mean, vari)
		if rows > 1 {
			vari = max(m2, 0) / (n - 1)
		}
		b.mean[c] += float32(normMomentum * float32(float32(mean)-b.mean[c]))
		b.vari[c] += float32(normMomentum * float32(float32(vari)-b.vari[c]))
	}
}

// useRunning normalises by the running statistics.
func (b *batchNorm) useRunning() {
	for c := range b.inverse {
		b.line(c, float64(b.mean[c]), float64(b.vari[c]))
	}
}

func (b *batchNorm) line(c int, mean, vari float64) {
	plane, lane := c/gemm.Lanes, c%gemm.Lanes
	b.inverse[c] = 1 / math.Sqrt(vari+normEpsilon)
	scale := float64(b.gamma.w[c]) * b.inverse[c]
	b.batchMean[plane][lane] = float32(mean)
	b.scale[plane][lane] = float32(scale)
	b.shift[plane][lane] = float32(float64(b.beta.w[c]) - float64(mean*scale))
}

// finishGrad computes the gradients of gamma and beta from the parts' sums,
// and how the gradient of y follows from that of the output:
//
//	gamma*inverse * (g - mean(g) - normalised y * mean(g * normalised y))
func (b *batchNorm) finishGrad(parts, rows int) {
	for c := range b.inverse {
		plane, lane := c/gemm.Lanes, c%gemm.Lanes
		var sum, dot float64
		for part := range parts {
			g := &b.grads[part*b.planes+plane]
			sum += float64(g.sum[lane])
			dot += float64(g.dot[lane])
		}
		inv, n := b.inverse[c], float64(rows)
		b.beta.grad[c] = float32(sum)
		b.gamma.grad[c] = float32(dot * inv)
		g := float64(b.gamma.w[c]) * inv
		y := -g * inv * inv * dot / n
		b.gradG[plane][lane] = float32(g)
		b.gradY[plane][lane] = float32(y)
		b.gradC[plane][lane] = float32(float64(-g*sum/n) - float64(y*float64(b.batchMean[plane][lane])))
	}
}
