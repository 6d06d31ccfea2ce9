// Convolutions in float32.
//
// Cost for each row of k values, giving n, with t taps: 2*t*k*n FLOP, 4*(k+n)
// bytes from and to memory; k is read t*n/16 times, mostly from caches. Each
// result is one chain of fma. Bound by arithmetic.
#include "conv.h"

KERNEL(Threads) conv_forward_fp32(float *out, const float *in, const float *w, float *moments, int rows, int k, int n, int width, int log) {
  convolve<Exact, false>(out, in, w, moments, rows, k, n, width, log, 0);
}

KERNEL(Threads) conv_backward_fp32(float *out, const float *in, const float *w, int rows, int k, int n, int width, int log, int add) {
  convolve<Exact, true>(out, in, w, nullptr, rows, k, n, width, log, add);
}
