// What kernels need in order to be compiled for the host and run there by kernels.cc, a thread
// at a time.
#pragma once

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(n)

extern int host_thread, host_block[3];
extern "C" void host_barrier();
extern "C" float host_shuffle(float v, int mask);
extern "C" unsigned host_tf32(float v);
extern "C" void host_mma(float *c, const unsigned *a, const unsigned *b);

inline int __nvvm_read_ptx_sreg_tid_x() { return host_thread; }
inline int __nvvm_read_ptx_sreg_ctaid_x() { return host_block[0]; }
inline int __nvvm_read_ptx_sreg_ctaid_y() { return host_block[1]; }
inline int __nvvm_read_ptx_sreg_ctaid_z() { return host_block[2]; }
inline void __syncthreads() { host_barrier(); }
inline float __nvvm_shfl_sync_bfly_f32(unsigned, float v, int mask, int) { return host_shuffle(v, mask); }
