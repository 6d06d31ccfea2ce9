// sum_parts adds the parts of all gradients, which lie as the parameters do then: what a
// GPU gives to the others that it trains with. A block for each piece.
//
// Cost for each parameter: 4 bytes, and 4 and 1 FLOP for each part. Bound by memory.
#include "piece.h"

KERNEL(256) sum_parts(float *sums, const float *gradients, const Piece *pieces) {
  Piece p = pieces[blockX()];
  if (threadX() < p.count) sums[p.first + threadX()] = p.sum(gradients, threadX());
}
