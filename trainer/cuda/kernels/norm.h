// What a batch norm (Ioffe and Szegedy, 2015) is to the passes over the pixels:
// lines of one value for each channel.
#pragma once
#include "device.h"

constexpr int TileRows = 64; // rows whose sums are taken at once

// Norm points at the lines of a batch norm, [8][channels]: scale and shift for
// the way forward, y*scale + shift; the batch's mean; and for the way back
// g*gradG + y*gradY + gradC; the last two are 1/sqrt(variance) in float64.
struct Norm {
  float *p;
  int channels;
  __device__ float *scale() const { return p; }
  __device__ float *shift() const { return p + channels; }
  __device__ float *mean() const { return p + 2 * channels; }
  __device__ float *gradG() const { return p + 3 * channels; }
  __device__ float *gradY() const { return p + 4 * channels; }
  __device__ float *gradC() const { return p + 5 * channels; }
  __device__ double *inverse() const { return (double *)(p + 6 * channels); }

  __device__ void line(int c, float gamma, float beta, double average, double variance) const {
    double inv = 1 / __builtin_sqrt(variance + 1e-5);
    double s = gamma * inv;
    inverse()[c] = inv;
    mean()[c] = float(average);
    scale()[c] = float(s);
    shift()[c] = float(beta - average * s);
  }
};
