// adam takes a step (Kingma and Ba, 2015) on all parameters at once. A block for
// each piece. Every operation is rounded by itself, as on the CPU.
//
// Nothing happens once the loss was not finite.
//
// Cost for each parameter: 24 bytes and 4 for each part, 12 FLOP. Bound by memory.
#include "piece.h"

// power returns x^n.
__device__ static double power(double x, u64 n) {
  double p = 1;
  for (; n > 0; n >>= 1) {
    if (n & 1) p *= x;
    x *= x;
  }
  return p;
}

KERNEL(256) adam(float *w, float *m, float *v, const float *gradients, const Piece *pieces, const State *state, float lr) {
  __shared__ float step, correction;
  if (state->stopped) return;
  if (threadX() == 0) {
    step = float(lr / (1 - power(0.9, state->step)));
    correction = float(__builtin_sqrt(1 - power(0.999, state->step)));
  }
  barrier();
  Piece p = pieces[blockX()];
  if (threadX() >= p.count) return;
  int i = p.first + threadX();
  float g = p.sum(gradients, threadX());
  float a = m[i] * 0.9f + g * 0.1f;
  float b = v[i] * 0.999f + g * g * 0.001f;
  m[i] = a;
  v[i] = b;
  w[i] -= step * a / (__builtin_sqrtf(b) / correction + 1e-8f);
}
