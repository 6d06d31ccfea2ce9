// The gradients of the convolutions' weights.
#pragma once
#include "tile.h"

// weigh computes dw, [part][tap][k][n]: the sum over the rows of one part of the
// products of what each tap reads of in, [row][k], with grad, [row][n]. part is
// the number of rows in each, a multiple of 16. The parts' sum is the gradient:
// Adam adds them up, in their order. k and n must be multiples of 4.
template <class Accumulator>
__device__ void weigh(float *dw, const float *in, const float *grad, int rows, int k, int n, int width, int log, int part) {
  __shared__ float4 shared[(Depth * StrideT + Depth * StrideB) / 4];
  float *a = (float *)shared, *b = a + Depth * StrideT;
  int line = blockX() * Lines, column = blockY() * Columns, lines = width * width * k;
  int end = min((blockZ() + 1) * part, rows);
  Accumulator sum;
  for (int first = blockZ() * part; first < end; first += Depth) {
#pragma unroll
    for (int j = 0; j < Depth * Lines / 4; j += Threads) {
      int i = j + threadX(), r = i / 16, l = i % 16 * 4;
      float4 v = {0, 0, 0, 0};
      if (first + r < end && line + l < lines)
        v = load4(in + u64(neighbour(first + r, (line + l) / k, width, log)) * k + (line + l) % k);
      store4(a + r * StrideT + l, v);
    }
    if (threadX() < Depth * Columns / 4) {
      int r = threadX() / 4, c = threadX() % 4 * 4;
      float4 v = {0, 0, 0, 0};
      if (first + r < end && column + c < n) v = load4(grad + u64(first + r) * n + column + c);
      store4(b + r * StrideB + c, v);
    }
    barrier();
    sum.multiplyT(a, b);
    barrier();
  }
  dw += u64(blockZ()) * lines * n;
  sum.each([&](int l, int c, float v0, float v1) {
    if (line + l < lines && column + c < n) *(float2 *)(dw + u64(line + l) * n + column + c) = {v0, v1};
  });
}
