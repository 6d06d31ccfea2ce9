// head is the end of the network, a block of 128 threads for each image: the last
// block's two batch norms, their sum and ReLU; the linear layer; softmax and
// cross-entropy; and in training their gradients.
//
// y and s are [image][4][128]. features, [image][512], and logits,
// [image][classes], are for the gradient of the weights, [class][512]: the order
// of the 512 is pixel, channel. logits becomes the gradient of the mean loss of
// a whole batch. df is the gradient of the features; without it nothing of the
// training is done.
//
// Exponential and logarithm are those of the CPU, in float64.
//
// Cost for each image: 12 KB, and 20 KB of weights from caches; 4*512*classes
// FLOP. Bound by latency.
#include "join.h"

constexpr int MaxClasses = 256;

// exponential returns e^x for x <= 0. See the package nn.
__device__ static double exponential(double x) {
  if (x < -700 || x != x) return x - x;
  double k = __builtin_floor(x * 1.44269504088896340736 + 0.5);
  double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double s = 1;
#pragma unroll 1
  for (double i = 14; i >= 1; i--) s = 1 + r / i * s;
  return s * __builtin_bit_cast(double, u64(1023 + int(k)) << 52);
}

// logarithm returns the natural logarithm of x >= 1.
__device__ static double logarithm(double x) {
  u64 bits = __builtin_bit_cast(u64, x);
  int e = int(bits >> 52);
  if (x != x || e == 0x7ff) return x;
  e -= 1022;
  double m = __builtin_bit_cast(double, (bits & 0xfffffffffffff) | u64(1022) << 52);
  if (m < 1.41421356237309504880 / 2) {
    m *= 2;
    e--;
  }
  double f = (m - 1) / (m + 1), q = f * f, s = 0;
#pragma unroll 1
  for (double i = 25; i >= 1; i -= 2) s = 1 / i + q * s;
  return e * 0.69314718055994530942 + 2 * (f * s);
}

KERNEL(128) head(float *features, float *logits, float *df, double *losses, int *hits, const float *y, const float *s, const float *norm,
                 const float *norm_s, const float *weights, const float *bias, const int *labels, int batch, int classes) {
  __shared__ float part[MaxClasses][4], z[MaxClasses];
  __shared__ double e[MaxClasses];
  __shared__ double total;
  __shared__ int best;
  int n = blockX(), t = threadX(), label = labels[n];
  Join j = join(norm, norm_s, 128, t);
  float f[4];
  for (int p = 0; p < 4; p++) {
    u64 at = u64(n) * 512 + p * 128 + t;
    f[p] = relu(j.sum(y[at], s[at]));
    features[at] = f[p];
  }
  for (int c = 0; c < classes; c++) {
    float v = 0;
    for (int p = 0; p < 4; p++) v = fma(f[p], weights[c * 512 + p * 128 + t], v);
    for (int o = 16; o > 0; o /= 2) v += __nvvm_shfl_sync_bfly_f32(0xffffffff, v, o, 31);
    if (t % 32 == 0) part[c][t / 32] = v;
  }
  barrier();
  for (int c = t; c < classes; c += 128) z[c] = bias[c] + ((part[c][0] + part[c][1]) + (part[c][2] + part[c][3]));
  barrier();
  if (t == 0) {
    best = 0;
    for (int c = 1; c < classes; c++)
      if (z[c] > z[best]) best = c;
  }
  barrier();
  double top = z[best];
  for (int c = t; c < classes; c += 128) e[c] = exponential(z[c] - top);
  barrier();
  if (t == 0) {
    total = 0;
    for (int c = 0; c < classes; c++) total += e[c];
    double loss = logarithm(total) - (z[label] - top);
    losses[n] = loss;
    hits[n] = best == label && loss == loss;
  }
  barrier();
  for (int c = t; c < classes; c += 128) {
    if (df) z[c] = float((e[c] / total - (c == label)) / batch);
    logits[n * classes + c] = z[c];
  }
  if (!df) return;
  barrier();
  float g[4] = {0, 0, 0, 0};
  for (int c = 0; c < classes; c++)
    for (int p = 0; p < 4; p++) g[p] = fma(z[c], weights[c * 512 + p * 128 + t], g[p]);
  for (int p = 0; p < 4; p++) df[u64(n) * 512 + p * 128 + t] = g[p];
}
