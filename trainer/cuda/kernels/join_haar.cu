// join_haar makes the input of a block from the previous block's last two
// convolutions: two batch norms, their sum, ReLU, Haar transform. One thread for
// each input pixel and channel of the previous block.
//
// y and s are [row][channels] of images of (2 << log) squared, x is
// [row][4*channels] of images of (1 << log) squared.
//
// Cost for each value of x: 12 bytes, 10 FLOP. Bound by memory.
#include "join.h"

KERNEL(256) join_haar(float *x, const float *y, const float *s, const float *norm, const float *norm_s, int rows, int channels, int log) {
  int i = index(256);
  if (i >= rows * channels) return;
  int c = i % channels, row = i / channels, side = 1 << log;
  int px = row % side, py = row / side; // lines of all images
  Join j = join(norm, norm_s, channels, c);
  u64 at = (u64(2 * py) * 2 * side + 2 * px) * channels + c, below = u64(2 * side) * channels;
  float p = relu(j.sum(y[at], s[at])), q = relu(j.sum(y[at + channels], s[at + channels]));
  at += below;
  float r = relu(j.sum(y[at], s[at])), t = relu(j.sum(y[at + channels], s[at + channels]));
  float *out = x + u64(row) * 4 * channels + c;
  float a = p + q, b = r + t, d = p - q, e = r - t;
  out[0] = (a + b) * 0.5f;
  out[channels] = (d + e) * 0.5f;
  out[2 * channels] = (a - b) * 0.5f;
  out[3 * channels] = (d - e) * 0.5f;
}
