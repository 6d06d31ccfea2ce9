// Gradients that lie in parts.
#pragma once
#include "device.h"

// Piece is up to 256 neighbouring parameters whose gradients are sums of equally many
// parts.
struct Piece {
  int first, count;   // of the parameters
  int gradient;       // place of the first part of the gradient of the first one
  int parts, stride;  // how many parts there are, and how far apart

  // sum adds the parts of parameter i, in their order.
  __device__ float sum(const float *gradients, int i) const {
    const float *part = gradients + gradient + i;
    float g = part[0];
    for (int k = 1; k < parts; k++) g += part[u64(k) * stride];
    return g;
  }
};
