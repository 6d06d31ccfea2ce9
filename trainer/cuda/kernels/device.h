// What CUDA's own headers would declare, as far as these kernels need it: they
// are compiled by clang alone, without NVIDIA's toolkit.
//
// Arithmetic is kept to operations that round correctly (IEEE 754): sums,
// products, fma, division and square root, in the order in which they are
// written (-ffp-contract=off). So a float32 kernel gives the same bits on every
// GPU, and in the interpreter of ../internal/ptx.
//
// Tests compile them for the host, too: ../driver/testdata/host.h has what differs.
#pragma once

#ifdef __CUDA__
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(n) __attribute__((launch_bounds(n)))
#endif

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

__device__ inline int threadX() { return __nvvm_read_ptx_sreg_tid_x(); }
__device__ inline int blockX() { return __nvvm_read_ptx_sreg_ctaid_x(); }
__device__ inline int blockY() { return __nvvm_read_ptx_sreg_ctaid_y(); }
__device__ inline int blockZ() { return __nvvm_read_ptx_sreg_ctaid_z(); }

// index is the number of the thread in the grid, for blocks of the given size.
__device__ inline int index(int threads) { return blockX() * threads + threadX(); }

// barrier waits for all threads of the block.
__device__ inline void barrier() { __syncthreads(); }

__device__ inline int min(int a, int b) { return a < b ? a : b; }

__device__ inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// relu is that of the CPU's kernels: NaN and -0 stay.
__device__ inline float relu(float v) { return 0 > v ? 0 : v; }

// State is what a step leaves to the next one; it stays on the device, so that
// the launches of a whole epoch can be recorded once and replayed.
struct State {
  u64 step;      // steps taken so far
  u64 epoch;     // of the order and the flips
  int first;     // place in the order of the batch's first image
  int correct;   // images classified correctly since the host last cleared it
  double loss;   // mean loss of the last batch
  double sum;    // of the images' losses since the host last cleared it
  int stopped;   // the loss was not finite: nothing is trained any more
  int images;    // since the host last cleared it
};

// mix is the output function of SplitMix64 (Steele, Lea and Flood, 2014), as in
// the packages nn and data: the random streams are those of the CPU.
__device__ inline u64 mix(u64 z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

constexpr u64 golden = 0x9e3779b97f4a7c15;
