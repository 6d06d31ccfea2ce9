package gemm

//go:noescape
func moments(x *float32, n int, shift, sum, squares *Vec)

//go:noescape
func affineReLU(dst, x *float32, n int, scale, shift *Vec)

//go:noescape
func affine2(dst, x, y *float32, n int, a, b, c *Vec)

//go:noescape
func affine2ReLU(dst, x, y *float32, n int, a, b, c *Vec)

//go:noescape
func reluGrad(dst, grad, x, y *float32, n int, p *ReLUGradArgs)

//go:noescape
func scaleGrad(dst, grad, act, x *float32, n int, scale, mean, sum, dot *Vec)

//go:noescape
func haar(ll, lh, hl, hh, top, bottom *float32, n int)

//go:noescape
func haarInverse(top, bottom, ll, lh, hl, hh *float32, n int)

//go:noescape
func adam(w, m, v, grad *float32, n int, p *AdamArgs)

//go:noescape
func add(dst, x *float32, n int)
