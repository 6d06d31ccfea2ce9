// haar is the Haar transform of images that come as floats, [image][channel][32][32]:
// the input of the network, [image][16][16][4*channels]. One thread for each value of
// a quarter of them.
//
// Cost for each value: 8 bytes, 2 FLOP. Bound by memory.
#include "device.h"

KERNEL(256) haar(float *x, const float *in, int channels) {
  int i = index(256); // as many blocks as there are channels of images
  int k = i % channels, row = i / channels, px = row % 16, py = row / 16 % 16, n = row / 256;
  const float *p = in + ((n * channels + k) * 32 + 2 * py) * 32 + 2 * px;
  float *out = x + row * 4 * channels + k;
  float s = p[0] + p[1], t = p[32] + p[33], u = p[0] - p[1], v = p[32] - p[33];
  out[0] = (s + t) * 0.5f;
  out[channels] = (u + v) * 0.5f;
  out[2 * channels] = (s - t) * 0.5f;
  out[3 * channels] = (u - v) * 0.5f;
}
