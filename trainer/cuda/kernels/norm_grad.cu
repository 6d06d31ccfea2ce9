// norm_grad makes the gradients of a batch norm's gamma and beta from the sums of
// tiles, and how the gradient of its input follows from that of its output:
//
//	gamma*inverse * (g - mean(g) - normalised y * mean(g * normalised y))
//
// sums is [tile][3][channels]: of g, and of g times y's distance to its mean, which
// is number dot. A block for each channel, a thread for each 128th tile; all in
// float64 and in a fixed order.
//
// Cost for each tile and channel: 8 bytes, 2 FLOP. Bound by latency.
#include "norm.h"

KERNEL(128) norm_grad(float *norm, float *dgamma, float *dbeta, const float *sums, const float *gamma, int rows, int channels, int dot) {
  __shared__ double a[128], b[128];
  int c = blockX(), t = threadX();
  double sum = 0, product = 0;
  for (int tile = t; tile * TileRows < rows; tile += 128) {
    sum += sums[u64(tile) * 3 * channels + c];
    product += sums[(u64(tile) * 3 + dot) * channels + c];
  }
  a[t] = sum;
  b[t] = product;
  for (int half = 64; half > 0; half /= 2) {
    barrier();
    if (t < half) {
      a[t] += a[t + half];
      b[t] += b[t + half];
    }
  }
  if (t != 0) return;
  sum = a[0];
  product = b[0];
  Norm p = {norm, channels};
  double inv = p.inverse()[c], g = gamma[c] * inv, y = -g * inv * inv * product / rows;
  dbeta[c] = float(sum);
  dgamma[c] = float(product * inv);
  p.gradG()[c] = float(g);
  p.gradY()[c] = float(y);
  p.gradC()[c] = float(-g * sum / rows - y * p.mean()[c]);
}
