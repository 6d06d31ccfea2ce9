// norm_apply takes a gradient back through a batch norm: y, its input, becomes the
// input's gradient. One thread for four channels of a pixel.
//
// Cost for each value: 12 bytes, 4 FLOP. Bound by memory.
#include "norm.h"

KERNEL(256) norm_apply(float *y, const float *g, const float *norm, int rows, int channels) {
  int i = index(256) * 4;
  if (i >= rows * channels) return;
  int c = i % channels;
  Norm p = {const_cast<float *>(norm), channels};
  float4 v = *(float4 *)(y + i), d = *(const float4 *)(g + i);
  float4 a = *(float4 *)(p.gradG() + c), b = *(float4 *)(p.gradY() + c), k = *(float4 *)(p.gradC() + c);
  *(float4 *)(y + i) = {
      fma(d.x, a.x, fma(v.x, b.x, k.x)), fma(d.y, a.y, fma(v.y, b.y, k.y)),
      fma(d.z, a.z, fma(v.z, b.z, k.z)), fma(d.w, a.w, fma(v.w, b.w, k.w))};
}
