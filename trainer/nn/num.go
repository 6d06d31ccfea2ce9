package nn

import "math"

// Where a product is added to something, a conversion stands around it: the
// language then forbids to fuse the two, so that all processors give the same
// bits.

// exp returns e^x for x <= 0, to within one unit in the last place or two.
func exp(x float64) float64 {
	if x < -700 || math.IsNaN(x) {
		return x - x // 0, or NaN; also NaN for -Inf, which no finite loss has
	}
	const ln2hi, ln2lo = 6.93147180369123816490e-01, 1.90821492927058770002e-10
	k := math.Floor(float64(x*math.Log2E) + 0.5)
	r := float64(x-float64(k*ln2hi)) - float64(k*ln2lo)
	// Taylor's series, |r| <= ln(2)/2.
	s := 1.0
	for i := 14.0; i >= 1; i-- {
		s = 1 + float64(float64(r/i)*s)
	}
	return math.Ldexp(s, int(k))
}

// ln returns the natural logarithm of x >= 1, by the series of the inverse
// hyperbolic tangent.
func ln(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return x
	}
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	f := (m - 1) / (m + 1)
	q := f * f
	s := 0.0
	for i := 25.0; i >= 1; i -= 2 {
		s = 1/i + float64(q*s)
	}
	return float64(float64(e)*math.Ln2) + float64(2*float64(f*s))
}

// pow returns x^n for n >= 0.
func pow(x float64, n int64) float64 {
	p := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= x
		}
		x *= x
	}
	return p
}

// mix64 is the output function of SplitMix64 (Steele, Lea and Flood, 2014).
func mix64(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// golden is SplitMix64's increment.
const golden = 0x9e3779b97f4a7c15

// stream starts a random stream for one place in the training. The same keys
// give the same stream, whoever asks and when.
func stream(seed, step, layer, sample uint64) uint64 {
	s := mix64(seed + golden)
	for _, key := range [...]uint64{step, layer, sample} {
		s = mix64(s + (key+1)*golden)
	}
	return s
}

// draw returns the stream's value i, uniform in [0, 2^32).
func draw(s uint64, i int) uint32 {
	return uint32(mix64(s+uint64(i+1)*golden) >> 32)
}
