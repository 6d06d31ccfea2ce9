// Products of tiles in shared memory: what the convolutions and their gradients
// have in common. A block of 128 threads computes 64 lines and 16 columns, over
// 16 values of k at a time.
//
// The float32 variant is one chain of fma for each result, in the order of k.
// The tf32 variant does the same on tensor cores, with mma.sync.m16n8k8.
#pragma once
#include "device.h"

constexpr int Threads = 128, Lines = 64, Columns = 16, Depth = 16;

// Strides in floats. They keep rows of float4 aligned, and the 32 values that a
// warp reads for one tensor-core fragment in 32 different banks.
constexpr int StrideA = Depth + 4;   // A is [line][k]
constexpr int StrideT = Lines + 8;   // or transposed, [k][line]
constexpr int StrideB = Columns + 8; // B is [k][column]
constexpr int StrideC = Columns + 4; // the result is [line][column]

__device__ inline float4 load4(const float *p) { return *(const float4 *)p; }
__device__ inline void store4(float *p, float4 v) { *(float4 *)p = v; }

// Exact holds the results of one thread: 4 lines 16 apart, 2 columns.
struct Exact {
  float c[4][2] = {};

  // multiply adds the product of A and B.
  __device__ void multiply(const float *a, const float *b) {
    a += threadX() / 8 * StrideA;
    b += threadX() % 8 * 2;
#pragma unroll
    for (int k = 0; k < Depth; k += 4) {
      float4 v[4];
#pragma unroll
      for (int i = 0; i < 4; i++) v[i] = load4(a + i * 16 * StrideA + k);
#pragma unroll
      for (int kk = 0; kk < 4; kk++) {
        float2 w = *(const float2 *)(b + (k + kk) * StrideB);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float x = kk == 0 ? v[i].x : kk == 1 ? v[i].y : kk == 2 ? v[i].z : v[i].w;
          c[i][0] = fma(x, w.x, c[i][0]);
          c[i][1] = fma(x, w.y, c[i][1]);
        }
      }
    }
  }

  // multiplyT is multiply with A transposed.
  __device__ void multiplyT(const float *a, const float *b) {
    a += threadX() / 8;
    b += threadX() % 8 * 2;
#pragma unroll
    for (int k = 0; k < Depth; k++) {
      float2 w = *(const float2 *)(b + k * StrideB);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float x = a[k * StrideT + i * 16];
        c[i][0] = fma(x, w.x, c[i][0]);
        c[i][1] = fma(x, w.y, c[i][1]);
      }
    }
  }

  // each calls f with each pair of results.
  template <class F> __device__ void each(F f) {
#pragma unroll
    for (int i = 0; i < 4; i++) f(threadX() / 8 + 16 * i, threadX() % 8 * 2, c[i][0], c[i][1]);
  }
};

// tf32 rounds to the 10 bits of fraction that the tensor cores take.
__device__ inline u32 tf32(float v) {
#ifdef __CUDA__
  u32 r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
  return r;
#else
  return host_tf32(v);
#endif
}

// Tensor holds the results of one thread as mma.sync.m16n8k8 hands them out: each
// of the four warps has 16 lines and two times 8 columns. In the ISA's words,
// group is the thread's groupID, and member its threadID_in_group.
struct Tensor {
  float c[2][4] = {};

  __device__ static int warp() { return threadX() / 32; }
  __device__ static int group() { return threadX() % 32 / 4; }
  __device__ static int member() { return threadX() % 4; }

  template <int line, int depth> __device__ void mma(const float *a, const float *b) {
    a += (warp() * 16 + group()) * line + member() * depth;
    b += member() * StrideB + group();
#pragma unroll
    for (int k = 0; k < Depth; k += 8) {
      u32 a0 = tf32(a[k * depth]), a1 = tf32(a[8 * line + k * depth]);
      u32 a2 = tf32(a[(k + 4) * depth]), a3 = tf32(a[8 * line + (k + 4) * depth]);
#pragma unroll
      for (int n = 0; n < 2; n++) {
        u32 b0 = tf32(b[k * StrideB + 8 * n]), b1 = tf32(b[(k + 4) * StrideB + 8 * n]);
#ifdef __CUDA__
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
        u32 all[] = {a0, a1, a2, a3}, both[] = {b0, b1};
        host_mma(c[n], all, both);
#endif
      }
    }
  }

  __device__ void multiply(const float *a, const float *b) { mma<StrideA, 1>(a, b); }
  __device__ void multiplyT(const float *a, const float *b) { mma<1, StrideT>(a, b); }

  template <class F> __device__ void each(F f) {
#pragma unroll
    for (int n = 0; n < 2; n++) {
      f(warp() * 16 + group(), 8 * n + member() * 2, c[n][0], c[n][1]);
      f(warp() * 16 + group() + 8, 8 * n + member() * 2, c[n][2], c[n][3]);
    }
  }
};

// neighbour is the row of the pixel that tap t of a circular kernel of width x
// width reads for a row. A row is a pixel of an image of (1 << log) squared.
__device__ inline int neighbour(int row, int t, int width, int log) {
  int mask = (1 << log) - 1, half = width / 2;
  int x = (row + t % width - half) & mask;
  int y = ((row >> log) + t / width - half) & mask;
  return (row & ~((1 << 2 * log) - 1)) + (y << log) + x;
}
