// The convolutions, 3x3 or 1x1 with circular padding and without bias, as
// products of gathered rows with weights.
#pragma once
#include "tile.h"

// convolve computes rows of out, [row][n], from in, [row][k], and the weights w,
// [tap][k][n]; if add is set it adds to out. If backward is set it computes the
// gradient of the input: w is [tap][n][k] then, and its taps are reversed, since
// what tap t of an output pixel reads, the opposite tap of that input pixel gets
// its gradient from. k and n must be multiples of 4.
//
// If moments is given, it gets the sums that batch norm needs of each tile of 64
// rows: [tile][3][n], the first row, and the sums of the distances to it and of
// their squares. Every sum has a fixed order.
//
// The order of the products is that of the CPU: by 16 channels, tap, channel.
template <class Accumulator, bool backward>
__device__ void convolve(float *out, const float *in, const float *w, float *moments, int rows, int k, int n, int width, int log, int add) {
  __shared__ float4 shared[(Lines * StrideA + Depth * StrideB) / 4];
  float *a = (float *)shared, *b = a + Lines * StrideA;
  int first = blockX() * Lines, column = blockY() * Columns, taps = width * width;
  Accumulator sum;
  if (add) {
    sum.each([&](int l, int c, float &v0, float &v1) {
      if (first + l < rows && column + c < n) {
        float2 v = *(const float2 *)(out + u64(first + l) * n + column + c);
        v0 = v.x;
        v1 = v.y;
      }
    });
  }
  for (int channel = 0; channel < k; channel += Depth) {
    for (int tap = 0; tap < taps; tap++) {
#pragma unroll
      for (int j = 0; j < Lines * Depth / 4; j += Threads) {
        int i = j + threadX(), l = i / 4, kk = i % 4 * 4;
        float4 v = {0, 0, 0, 0};
        if (first + l < rows && channel + kk < k) v = load4(in + u64(neighbour(first + l, tap, width, log)) * k + channel + kk);
        store4(a + l * StrideA + kk, v);
      }
#pragma unroll
      for (int j = 0; j < Depth * Columns; j += Threads) {
        // Neighbouring threads read neighbouring weights.
        int i = j + threadX(), kk = backward ? i % 16 : i / 16, c = backward ? i / 16 : i % 16;
        float v = 0;
        if (channel + kk < k && column + c < n)
          v = backward ? w[((taps - 1 - tap) * n + column + c) * k + channel + kk] : w[(tap * k + channel + kk) * n + column + c];
        b[kk * StrideB + c] = v;
      }
      barrier();
      sum.multiply(a, b);
      barrier();
    }
  }
  float *c = a; // [line][StrideC]
  sum.each([&](int l, int j, float v0, float v1) { *(float2 *)(c + l * StrideC + j) = {v0, v1}; });
  barrier();
#pragma unroll
  for (int at = 0; at < Lines * Columns / 4; at += Threads) {
    int i = at + threadX(), l = i / 4, j = i % 4 * 4;
    if (first + l < rows && column + j < n) store4(out + u64(first + l) * n + column + j, load4(c + l * StrideC + j));
  }
  if (!moments) return;
  // Eight neighbouring threads for each column, eight rows for each of them.
  int j = threadX() / 8;
  float shift = c[j], total = 0, squares = 0;
  for (int l = threadX() % 8; l < Lines; l += 8) {
    if (first + l >= rows) break;
    float d = c[l * StrideC + j] - shift;
    total += d;
    squares = fma(d, d, squares);
  }
  for (int o = 4; o > 0; o /= 2) {
    total += __nvvm_shfl_sync_bfly_f32(0xffffffff, total, o, 31);
    squares += __nvvm_shfl_sync_bfly_f32(0xffffffff, squares, o, 31);
  }
  if (threadX() % 8 == 0 && column + j < n) {
    float *m = moments + u64(blockX()) * 3 * n + column + j;
    m[0] = shift;
    m[n] = total;
    m[2 * n] = squares;
  }
}
