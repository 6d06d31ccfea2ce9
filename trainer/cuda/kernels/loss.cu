// loss sums the images' losses and hits, in a fixed order, and moves the state to
// the next batch. If train is set and the loss is finite it counts a step; a loss
// that isn't finite stops the training for good. One block.
//
// Cost for each image: 12 bytes, 2 FLOP. Bound by latency.
#include "device.h"

KERNEL(128) loss(State *state, const double *losses, const int *hits, int images, int train) {
  __shared__ double sum[128];
  __shared__ int hit[128];
  int t = threadX();
  double l = 0;
  int h = 0;
  for (int i = t; i < images; i += 128) {
    l += losses[i];
    h += hits[i];
  }
  sum[t] = l;
  hit[t] = h;
  for (int half = 64; half > 0; half /= 2) {
    barrier();
    if (t < half) {
      sum[t] += sum[t + half];
      hit[t] += hit[t + half];
    }
  }
  if (t != 0 || state->stopped) return;
  l = sum[0];
  state->loss = l / images;
  state->sum += l;
  state->correct += hit[0];
  state->images += images;
  state->first += images;
  if (!(l - l == 0)) state->stopped = 1;
  else if (train) state->step++;
}
