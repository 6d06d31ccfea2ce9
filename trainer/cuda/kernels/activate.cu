// activate makes the input of a block's second convolution from the output of its
// first: batch norm, ReLU, and dropout of whole channels (Tompson et al., 2015).
// One thread for four channels of a pixel. What is dropped follows from seed,
// step, block, image and channel alone, as on the CPU: image first of the batch is
// the first one here.
//
// Cost for each value: 8 bytes, 4 FLOP and 13 multiplications of 64 bits for the
// random numbers. Bound by memory.
#include "norm.h"

// limit is the probability times 2^32, keep the factor of channels that stay.
KERNEL(256) activate(float *out, const float *y, const float *norm, const State *state, u64 seed, u64 limit, float keep, int block,
                     int first, int rows, int channels, int log) {
  int i = index(256) * 4;
  if (i >= rows * channels) return;
  int c = i % channels, image = i / channels >> 2 * log;
  u64 stream = 0;
  if (limit > 0) {
    stream = mix(seed + golden);
    stream = mix(stream + (state->step + 1) * golden);
    stream = mix(stream + u64(block + 1) * golden);
    stream = mix(stream + u64(first + image + 1) * golden);
  }
  Norm p = {const_cast<float *>(norm), channels};
  float4 v = *(const float4 *)(y + i), s = *(const float4 *)(p.scale() + c), t = *(const float4 *)(p.shift() + c);
  float x[4] = {v.x, v.y, v.z, v.w}, scale[4] = {s.x, s.y, s.z, s.w}, shift[4] = {t.x, t.y, t.z, t.w};
  for (int j = 0; j < 4; j++) {
    float f = keep;
    if (limit > 0 && mix(stream + u64(c + j + 1) * golden) >> 32 < limit) f = 0;
    x[j] = relu(fma(x[j], scale[j] * f, shift[j] * f));
  }
  *(float4 *)(out + i) = {x[0], x[1], x[2], x[3]};
}
