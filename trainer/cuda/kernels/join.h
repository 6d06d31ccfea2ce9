// The end of a residual block: the sum of its two batch norms, and a ReLU.
#pragma once
#include "norm.h"

// Join is a sum of two batch norms in one channel.
struct Join {
  float a, b, shift;

  __device__ float sum(float y, float s) const { return fma(y, a, fma(s, b, shift)); }
};

__device__ inline Join join(const float *norm, const float *norm_s, int channels, int c) {
  Norm a = {const_cast<float *>(norm), channels}, b = {const_cast<float *>(norm_s), channels};
  return {a.scale()[c], b.scale()[c], a.shift()[c] + b.shift()[c]};
}
