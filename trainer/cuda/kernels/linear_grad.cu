// linear_grad computes the gradients of the linear layer's weights and bias, for
// parts of 512 images: dw is [part][classes*512 + classes]. One thread for each
// value of a part.
//
// Cost for each image: 2*513*classes FLOP; its 2 KB of features are read by each
// class, from caches. Bound by latency.
#include "device.h"

KERNEL(128) linear_grad(float *dw, const float *grad, const float *features, int images, int classes) {
  int i = index(128), part = blockY(), c = i / 512, f = i % 512;
  if (i >= classes * 513) return;
  bool bias = i >= classes * 512;
  if (bias) c = i - classes * 512;
  int end = min((part + 1) * 512, images);
  float sum = 0;
  for (int n = part * 512; n < end; n++) sum = fma(bias ? 1 : features[n * 512 + f], grad[n * classes + c], sum);
  dw[u64(part) * classes * 513 + i] = sum;
}
