// norm_batch makes the statistics of a batch norm from the sums of tiles that the
// convolution left (see conv.h), and updates the running ones. A block for each
// channel, a thread for each 128th tile; all in float64 and in a fixed order
// (Chan, Golub and LeVeque, 1983).
//
// Cost for each tile and channel: 12 bytes, 20 FLOP. Bound by latency.
#include "norm.h"

struct Moment {
  double n, mean, m2;

  __device__ void add(const Moment &o) {
    if (o.n == 0) return;
    double delta = o.mean - mean, share = o.n / (n + o.n);
    m2 += o.m2 + delta * delta * (n * share);
    mean += delta * share;
    n += o.n;
  }
};

KERNEL(128) norm_batch(float *norm, float *running_mean, float *running_var, const float *moments, const float *gamma,
                       const float *beta, const State *state, int rows, int channels) {
  __shared__ Moment all[128];
  int c = blockX(), t = threadX();
  Moment m = {0, 0, 0};
  for (int tile = t; tile * TileRows < rows; tile += 128) {
    const float *p = moments + u64(tile) * 3 * channels + c;
    double k = min(TileRows, rows - tile * TileRows), sum = p[channels], d = sum / k;
    m.add({k, p[0] + d, p[2 * channels] - sum * d});
  }
  all[t] = m;
  for (int half = 64; half > 0; half /= 2) {
    barrier();
    if (t < half) all[t].add(all[t + half]);
  }
  if (t != 0 || state->stopped) return;
  m = all[0];
  double sum = m.m2 > 0 ? m.m2 : m.m2 <= 0 ? 0 : m.m2; // NaN stays
  Norm{norm, channels}.line(c, gamma[c], beta[c], m.mean, sum / m.n);
  float variance = float(rows > 1 ? sum / (m.n - 1) : sum / m.n);
  running_mean[c] += 0.1f * (float(m.mean) - running_mean[c]);
  running_var[c] += 0.1f * (variance - running_var[c]);
}
