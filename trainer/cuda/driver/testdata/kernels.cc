// The kernels, compiled for the host: blocks run one after the other, and each thread of a
// block is a fiber that runs until it waits for others. sources.h includes their files.
#include "host.h"
#include "sources.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int host_thread, host_block[3];

// An argument list as the System V ABI of x86-64 passes it, whatever the order of the types:
// floats in registers of their own, the rest in six registers and then on the stack.
typedef unsigned long long word;
typedef void (*Kernel)(float, float, float, float, word, word, word, word, word, word, word, word, word, word, word, word, word, word, word, word,
                       word, word);

namespace {

constexpr int most = 256, stack = 64 << 10;

// swap saves where it is to *from, and goes on where to was saved.
__attribute__((naked, noinline)) void swap(void **, void *) {
  asm("push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret");
}

void *fibers[most], *scheduler; // stack pointers
bool done[most];
int threads, live;

struct Barrier {
  int count, turn;
} block, warps[most / 32];

Kernel kernel;
const word *ints;
const float *floats;

// next gives another thread its turn.
void next() {
  int from = host_thread;
  if (live == 0) {
    swap(&fibers[from], scheduler);
    return;
  }
  do host_thread = (host_thread + 1) % threads;
  while (done[host_thread]);
  if (host_thread != from) swap(&fibers[from], fibers[host_thread]);
}

void wait(Barrier &b, int all) {
  int turn = b.turn;
  if (++b.count == all) {
    b.count = 0;
    b.turn++;
    return;
  }
  while (b.turn == turn) next();
}

void fiber() {
  for (;;) {
    const word *i = ints;
    kernel(floats[0], floats[1], floats[2], floats[3], i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11], i[12], i[13],
           i[14], i[15], i[16], i[17]);
    done[host_thread] = true;
    live--;
    if (live > 0 && block.count == live) { // threads that have ended don't count
      block.count = 0;
      block.turn++;
    }
    next();
  }
}

void start(int i) {
  void **top = (void **)((char *)aligned_alloc(64, stack) + stack);
  top[-2] = (void *)fiber; // swap returns there, with the stack as after a call
  fibers[i] = top - 8;
}

Barrier &warp() { return warps[host_thread / 32]; }
int lanes() { return threads - host_thread / 32 * 32 < 32 ? threads - host_thread / 32 * 32 : 32; }

float value(unsigned bits) { return __builtin_bit_cast(float, bits); }

} // namespace

extern "C" void host_barrier() { wait(block, live); }

extern "C" float host_shuffle(float v, int mask) {
  static float given[most];
  given[host_thread] = v;
  wait(warp(), lanes());
  v = given[host_thread ^ mask];
  wait(warp(), lanes());
  return v;
}

// half is half a unit of the last of tf32's 10 bits of fraction; of bf16's 7, if that is wrong.
static const unsigned half = getenv("FAKE_CUDA") && !strcmp(getenv("FAKE_CUDA"), "coarse") ? 1 << 15 : 1 << 12;

// host_tf32 rounds to tf32, ties away from zero.
extern "C" unsigned host_tf32(float v) {
  unsigned bits = __builtin_bit_cast(unsigned, v);
  return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + half) & ~(2 * half - 1);
}

// host_mma is mma.sync.m16n8k8 of tf32: see the PTX ISA, "Matrix Fragments for mma.m16n8k8".
extern "C" void host_mma(float *c, const unsigned *a, const unsigned *b) {
  static unsigned as[most][4], bs[most][2];
  memcpy(as[host_thread], a, sizeof *as);
  memcpy(bs[host_thread], b, sizeof *bs);
  wait(warp(), lanes());
  int first = host_thread / 32 * 32, group = host_thread % 32 / 4, member = host_thread % 4;
  for (int i = 0; i < 4; i++) {
    int high = i / 2, column = member * 2 + i % 2; // row group + 8 * high
    float sum = c[i];
    for (int k = 0; k < 8; k++)
      sum += value(as[first + group * 4 + k % 4][high + k / 4 * 2]) * value(bs[first + column * 4 + k % 4][k / 4]);
    c[i] = sum;
  }
  wait(warp(), lanes());
}

extern "C" void run(const char *name, const unsigned *grid, unsigned count, const word *i, const float *f) {
  static void *self;
  if (!self) {
    Dl_info info;
    dladdr((void *)run, &info);
    self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }
  kernel = (Kernel)dlsym(self, name);
  if (!kernel || count > most) {
    fprintf(stderr, "no kernel %s of %u threads\n", name, count);
    abort();
  }
  ints = i, floats = f;
  for (static int started; started < most; started++) start(started);
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        host_block[0] = x, host_block[1] = y, host_block[2] = z;
        memset(done, 0, sizeof done);
        memset(warps, 0, sizeof warps);
        block = {0, 0};
        threads = live = count;
        host_thread = 0;
        swap(&scheduler, fibers[0]);
      }
}
