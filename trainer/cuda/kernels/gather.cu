// gather makes the input of the network from images that stay on the GPU as
// bytes: chosen by the order of the epoch, padded to 32x32, flipped, normalised,
// and Haar transformed. One thread makes all channels of one output pixel.
//
// x is [image][16][16][4*channels], labels has the batch's labels.
//
// Cost for each image of 1x28x28: 784 bytes read, 4 KB written, 4 FLOP and a
// division a pixel. Bound by memory.
#include "device.h"

// pixel is normalised as torchvision's ToTensor and Normalize(0.5, 0.5) do it.
__device__ static float pixel(const u8 *image, int y, int x, int height, int width, bool flip) {
  y -= (32 - height) / 2;
  x -= (32 - width) / 2;
  if (y < 0 || y >= height || x < 0 || x >= width) return -1;
  if (flip) x = width - 1 - x;
  return (float(image[y * width + x]) / 255 - 0.5f) / 0.5f;
}

KERNEL(256) gather(float *x, int *labels, const u8 *pixels, const u8 *classes, const int *order, const State *state,
                   u64 seed, int channels, int height, int width, int augment) {
  int i = index(256); // a block for each image
  int n = i / 256, py = i / 16 % 16 * 2, px = i % 16 * 2;
  int number = order[state->first + n];
  if (i % 256 == 0) labels[n] = classes[number];
  bool flip = augment && mix(mix(mix(seed + golden) + state->epoch + golden) + number + golden) >> 63;
  const u8 *image = pixels + u64(number) * channels * height * width;
  float *out = x + u64(i) * 4 * channels;
  for (int k = 0; k < channels; k++, image += height * width) {
    float a = pixel(image, py, px, height, width, flip), b = pixel(image, py, px + 1, height, width, flip);
    float c = pixel(image, py + 1, px, height, width, flip), d = pixel(image, py + 1, px + 1, height, width, flip);
    float s = a + b, t = c + d, u = a - b, v = c - d;
    out[k] = (s + t) * 0.5f;
    out[channels + k] = (u + v) * 0.5f;
    out[2 * channels + k] = (s - t) * 0.5f;
    out[3 * channels + k] = (u - v) * 0.5f;
  }
}
