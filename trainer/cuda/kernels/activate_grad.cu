// activate_grad takes the gradient of a block's second convolution's input back
// through dropout and ReLU, and adds up what the batch norm before them needs. What
// passed on the way forward is what is above zero in a.
//
// All arrays are [row][channels]; g replaces grad. sums is [tile][3][channels] for
// tiles of 64 rows: sums of g, of g times y's distance to its mean, and nothing. A
// block for each tile and 16 channels.
//
// Cost for each value: 16 bytes, 5 FLOP. Bound by memory.
#include "norm.h"

KERNEL(128) activate_grad(float *g, float *sums, const float *a, const float *y, const float *norm, float keep, int rows, int channels) {
  __shared__ float part[2][8][16];
  int lane = threadX() % 16, line = threadX() / 16;
  int c = blockY() * 16 + lane, first = blockX() * TileRows;
  float mean = Norm{const_cast<float *>(norm), channels}.mean()[c], sum = 0, dot = 0;
  for (int r = line; r < TileRows; r += 8) {
    if (first + r >= rows) break;
    u64 at = u64(first + r) * channels + c;
    float y_at = y[at], v = a[at] > 0 ? g[at] * keep : 0;
    g[at] = v;
    sum += v;
    dot = fma(v, y_at - mean, dot);
  }
  part[0][line][lane] = sum;
  part[1][line][lane] = dot;
  barrier();
  if (line >= 2) return;
  float total = 0;
  for (int i = 0; i < 8; i++) total += part[line][i][lane];
  sums[(u64(blockX()) * 3 + line) * channels + c] = total;
}
