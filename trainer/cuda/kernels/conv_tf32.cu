// Convolutions in tf32 on tensor cores.
//
// Cost for each row of k values, giving n, with t taps: 2*t*k*n FLOP, 4*(k+n)
// bytes from and to memory; k is read t*n/16 times, mostly from caches.
// Factors are rounded to 10 bits of fraction, sums are float32. Bound by memory.
#include "conv.h"

KERNEL(Threads) conv_forward_tf32(float *out, const float *in, const float *w, float *moments, int rows, int k, int n, int width, int log) {
  convolve<Tensor, false>(out, in, w, moments, rows, k, n, width, log, 0);
}

KERNEL(Threads) conv_backward_tf32(float *out, const float *in, const float *w, int rows, int k, int n, int width, int log, int add) {
  convolve<Tensor, true>(out, in, w, nullptr, rows, k, n, width, log, add);
}
