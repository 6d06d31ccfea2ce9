package gemm

import "math"

// Vec holds one value for each lane of a plane, usually one per channel.
type Vec = [Lanes]float32

// The functions below go over n rows of 16 lanes. Unless said otherwise they
// work for n = len(dst)/16 rows, dst may be one of the sources, and all
// slices must be at least as long as dst. In the formulas fma(a, b, c) is
// a*b+c with one rounding, max(v) is v where v is above zero, NaN or -0 and 0
// elsewhere, and sums run in the order of the rows, one chain a lane.

// Moments adds to sum and squares, over the rows of x,
//
//	d = x - shift;  sum += d;  squares = fma(d, d, squares)
func Moments(x []float32, shift, sum, squares *Vec) {
	if simd(len(x)) {
		moments(&x[0], len(x)/Lanes, shift, sum, squares)
		return
	}
	for r := 0; r < len(x); r += Lanes {
		for j, v := range (*Vec)(x[r:]) {
			d := v - shift[j]
			sum[j] += d
			squares[j] = fma32(d, d, squares[j])
		}
	}
}

// AffineReLU sets dst = max(fma(x, scale, shift)).
func AffineReLU(dst, x []float32, scale, shift *Vec) {
	x = x[:len(dst)]
	if simd(len(dst)) {
		affineReLU(&dst[0], &x[0], len(dst)/Lanes, scale, shift)
		return
	}
	for r := 0; r < len(dst); r += Lanes {
		d, x := (*Vec)(dst[r:]), (*Vec)(x[r:])
		for j := range d {
			d[j] = relu(fma32(x[j], scale[j], shift[j]))
		}
	}
}

// relu is what the instruction MAXPS computes from 0 and v.
func relu(v float32) float32 {
	if 0 > v {
		return 0
	}
	return v
}

// Affine2 sets dst = fma(x, a, fma(y, b, c)).
func Affine2(dst, x, y []float32, a, b, c *Vec) {
	x, y = x[:len(dst)], y[:len(dst)]
	if simd(len(dst)) {
		affine2(&dst[0], &x[0], &y[0], len(dst)/Lanes, a, b, c)
		return
	}
	for r := 0; r < len(dst); r += Lanes {
		d, x, y := (*Vec)(dst[r:]), (*Vec)(x[r:]), (*Vec)(y[r:])
		for j := range d {
			d[j] = fma32(x[j], a[j], fma32(y[j], b[j], c[j]))
		}
	}
}

// Affine2ReLU sets dst = max(fma(x, a, fma(y, b, c))).
func Affine2ReLU(dst, x, y []float32, a, b, c *Vec) {
	x, y = x[:len(dst)], y[:len(dst)]
	if simd(len(dst)) {
		affine2ReLU(&dst[0], &x[0], &y[0], len(dst)/Lanes, a, b, c)
		return
	}
	for r := 0; r < len(dst); r += Lanes {
		d, x, y := (*Vec)(dst[r:]), (*Vec)(x[r:]), (*Vec)(y[r:])
		for j := range d {
			d[j] = relu(fma32(x[j], a[j], fma32(y[j], b[j], c[j])))
		}
	}
}

// ReLUGrad passes the gradient grad of max(fma(x, a, fma(y, b, c))) where
// that is above zero, and adds up what two batch norms need of it:
//
//	dst = grad where fma(x, a, fma(y, b, c)) > 0, else 0
//	sum += dst;  dotX = fma(dst, x-meanX, dotX);  dotY = fma(dst, y-meanY, dotY)
func ReLUGrad(dst, grad, x, y []float32, p *ReLUGradArgs) {
	grad, x, y = grad[:len(dst)], x[:len(dst)], y[:len(dst)]
	if simd(len(dst)) {
		reluGrad(&dst[0], &grad[0], &x[0], &y[0], len(dst)/Lanes, p)
		return
	}
	for r := 0; r < len(dst); r += Lanes {
		d, g, x, y := (*Vec)(dst[r:]), (*Vec)(grad[r:]), (*Vec)(x[r:]), (*Vec)(y[r:])
		for j := range d {
			v := g[j]
			if !(fma32(x[j], p.A[j], fma32(y[j], p.B[j], p.C[j])) > 0) {
				v = 0
			}
			p.Sum[j] += v
			p.DotX[j] = fma32(v, x[j]-p.MeanX[j], p.DotX[j])
			p.DotY[j] = fma32(v, y[j]-p.MeanY[j], p.DotY[j])
			d[j] = v
		}
	}
}

// ReLUGradArgs are the values for each channel that [ReLUGrad] reads (A, B,
// C, MeanX, MeanY) and adds to (Sum, DotX, DotY).
type ReLUGradArgs struct {
	A, B, C, MeanX, MeanY Vec
	Sum, DotX, DotY       Vec
}

// ScaleGrad passes the gradient grad where the activation act is above zero:
//
//	dst = grad * scale where act > 0, else 0
//	sum += dst;  dot = fma(dst, x-mean, dot)
func ScaleGrad(dst, grad, act, x []float32, scale, mean, sum, dot *Vec) {
	grad, act, x = grad[:len(dst)], act[:len(dst)], x[:len(dst)]
	if simd(len(dst)) {
		scaleGrad(&dst[0], &grad[0], &act[0], &x[0], len(dst)/Lanes, scale, mean, sum, dot)
		return
	}
	for r := 0; r < len(dst); r += Lanes {
		d, g, a, x := (*Vec)(dst[r:]), (*Vec)(grad[r:]), (*Vec)(act[r:]), (*Vec)(x[r:])
		for j := range d {
			v := float32(g[j] * scale[j])
			if !(a[j] > 0) {
				v = 0
			}
			sum[j] += v
			dot[j] = fma32(v, x[j]-mean[j], dot[j])
			d[j] = v
		}
	}
}

// Haar computes n output rows of the 2x2 Haar wavelet transform of two lines
// of 2n pixels, top and bottom. With a, b the pixels of the top line and c, d
// those below:
//
//	ll = ((a+b)+(c+d))/2   lh = ((a-b)+(c-d))/2
//	hl = ((a+b)-(c+d))/2   hh = ((a-b)-(c-d))/2
//
// The transform is orthonormal: [HaarInverse] is its inverse and its adjoint.
func Haar(ll, lh, hl, hh, top, bottom []float32) {
	n := len(ll) / Lanes
	lh, hl, hh = lh[:len(ll)], hl[:len(ll)], hh[:len(ll)]
	top, bottom = top[:2*len(ll)], bottom[:2*len(ll)]
	if simd(len(ll)) {
		haar(&ll[0], &lh[0], &hl[0], &hh[0], &top[0], &bottom[0], n)
		return
	}
	for r := range n {
		for j := range Lanes {
			a, b := top[r*2*Lanes+j], top[r*2*Lanes+Lanes+j]
			c, d := bottom[r*2*Lanes+j], bottom[r*2*Lanes+Lanes+j]
			i := r*Lanes + j
			ll[i], lh[i], hl[i], hh[i] = Haar1(a, b, c, d)
		}
	}
}

// Haar1 is [Haar] of four values; it is its own inverse.
func Haar1(a, b, c, d float32) (ll, lh, hl, hh float32) {
	s, t, u, v := a+b, c+d, a-b, c-d
	return float32(s+t) * 0.5, float32(u+v) * 0.5, float32(s-t) * 0.5, float32(u-v) * 0.5
}

// HaarInverse computes two lines of pixels from their transform; see [Haar].
func HaarInverse(top, bottom, ll, lh, hl, hh []float32) {
	n := len(ll) / Lanes
	lh, hl, hh = lh[:len(ll)], hl[:len(ll)], hh[:len(ll)]
	top, bottom = top[:2*len(ll)], bottom[:2*len(ll)]
	if simd(len(ll)) {
		haarInverse(&top[0], &bottom[0], &ll[0], &lh[0], &hl[0], &hh[0], n)
		return
	}
	for r := range n {
		for j := range Lanes {
			i := r*Lanes + j
			a, b, c, d := Haar1(ll[i], lh[i], hl[i], hh[i])
			top[r*2*Lanes+j], top[r*2*Lanes+Lanes+j] = a, b
			bottom[r*2*Lanes+j], bottom[r*2*Lanes+Lanes+j] = c, d
		}
	}
}

// AdamArgs are the constants of one step of [Adam].
type AdamArgs struct {
	Beta1, OneMinusBeta1 float32
	Beta2, OneMinusBeta2 float32
	StepSize             float32 // lr / (1 - beta1^t)
	Correction           float32 // sqrt(1 - beta2^t)
	Epsilon              float32
}

// Adam updates parameters w and their moments m and v by the gradient g
// (Kingma and Ba, 2015; epsilon is added after the bias correction):
//
//	m = m*Beta1 + g*OneMinusBeta1
//	v = v*Beta2 + (g*g)*OneMinusBeta2
//	w = w - StepSize*m / (sqrt(v)/Correction + Epsilon)
//
// Every operation is rounded by itself. The length must be a multiple of 16.
func Adam(w, m, v, g []float32, p *AdamArgs) {
	m, v, g = m[:len(w)], v[:len(w)], g[:len(w)]
	if simd(len(w)) {
		adam(&w[0], &m[0], &v[0], &g[0], len(w)/Lanes, p)
		return
	}
	for i, x := range g {
		m[i] = float32(m[i]*p.Beta1) + float32(x*p.OneMinusBeta1)
		v[i] = float32(v[i]*p.Beta2) + float32(float32(x*x)*p.OneMinusBeta2)
		root := float32(math.Sqrt(float64(v[i])))
		w[i] -= float32(float32(p.StepSize*m[i]) / float32(float32(root/p.Correction)+p.Epsilon))
	}
}

// Add sets dst += x.
func Add(dst, x []float32) {
	x = x[:len(dst)]
	if simd(len(dst)) {
		add(&dst[0], &x[0], len(dst)/Lanes)
		return
	}
	for i, v := range x {
		dst[i] += v
	}
}

// simd says whether to use vector instructions for n values.
func simd(n int) bool { return kernel != Go && n >= Lanes }
