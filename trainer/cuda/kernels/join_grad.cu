// join_grad takes the gradient of a block's output back through the ReLU, and adds
// up what the two batch norms before it need. If haar is set, dx is the gradient
// of the next block's input, [row][4*channels] of images of half the size, and goes
// back through the Haar transform first; else it is that of the output itself.
//
// g is [row][channels]. sums is [tile][3][channels] for tiles of 64 rows: sums of
// g, of g times y's distance to its mean, and of g times s's. A block for each tile
// and 16 channels.
//
// Cost for each value: 16 bytes, 14 FLOP. Bound by memory.
#include "join.h"

KERNEL(128) join_grad(float *g, float *sums, const float *dx, const float *y, const float *s, const float *norm, const float *norm_s,
                      int rows, int channels, int log, int haar) {
  __shared__ float part[3][8][16];
  int lane = threadX() % 16, line = threadX() / 16;
  int c = blockY() * 16 + lane, first = blockX() * TileRows, side = 1 << log;
  Join j = join(norm, norm_s, channels, c);
  float mean_y = norm[2 * channels + c], mean_s = norm_s[2 * channels + c], sum = 0, dot_y = 0, dot_s = 0;
  for (int r = line; r < TileRows; r += 8) {
    int row = first + r;
    if (row >= rows) break;
    u64 at = u64(row) * channels + c;
    float v, y_at = y[at], s_at = s[at];
    if (haar) {
      int px = row % side, py = row / side;
      const float *d = dx + (u64(py / 2) * (side / 2) + px / 2) * 4 * channels + c;
      float ll = d[0], lh = d[channels], hl = d[2 * channels], hh = d[3 * channels];
      float p = px % 2 ? ll - lh : ll + lh, q = px % 2 ? hl - hh : hl + hh;
      v = (py % 2 ? p - q : p + q) * 0.5f;
    } else {
      v = dx[at];
    }
    if (!(j.sum(y_at, s_at) > 0)) v = 0;
    g[at] = v;
    sum += v;
    dot_y = fma(v, y_at - mean_y, dot_y);
    dot_s = fma(v, s_at - mean_s, dot_s);
  }
  part[0][line][lane] = sum;
  part[1][line][lane] = dot_y;
  part[2][line][lane] = dot_s;
  barrier();
  if (line >= 3) return;
  float total = 0;
  for (int i = 0; i < 8; i++) total += part[line][i][lane];
  sums[(u64(blockX()) * 3 + line) * channels + c] = total;
}
