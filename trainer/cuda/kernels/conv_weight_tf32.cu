// The gradient of a convolution's weights in tf32 on tensor cores.
//
// Cost for each row of k inputs and n outputs, with t taps: 2*t*k*n FLOP,
// 4*(k+n) bytes, of which k is read t*n/16 times and n is read t*k/64 times,
// mostly from caches.
// Factors are rounded to 10 bits of fraction, sums are float32. Bound by memory.
#include "conv_weight.h"

KERNEL(Threads) conv_weight_tf32(float *dw, const float *in, const float *grad, int rows, int k, int n, int width, int log, int part) {
  weigh<Tensor>(dw, in, grad, rows, k, n, width, log, part);
}
