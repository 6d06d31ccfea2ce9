// A stand-in for NVIDIA's driver, for tests: memory is the host's. Linked with kernels.cc it
// runs the kernels, else it only notes that they were launched. It keeps the driver's rules: a
// context per thread, modules before functions, no copies while launches are captured.
// FAKE_CUDA says what is wrong with it, FAKE_CUDA_AFTER after how many launches that begins.
// FAKE_CUDA_LOG is a file for what was called.
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __thread CUcontext current;
static int launches;

static int wrong(const char *what) {
  const char *s = getenv("FAKE_CUDA"), *after = getenv("FAKE_CUDA_AFTER");
  return s && !strcmp(s, what) && launches >= (after ? atoi(after) : 0);
}

// run runs a kernel, of which params are the ints' and pointers' values and the floats.
__attribute__((weak)) void run(const char *name, const unsigned *grid, unsigned threads, const unsigned long long *ints, const float *floats);

typedef struct Launch {
  struct Launch *next;
  char name[64];
  unsigned grid[3], threads;
  unsigned long long ints[24];
  float floats[4];
} Launch;

// A graph, which is also each of the executable ones made of it.
typedef struct CUgraph_handle {
  Launch *first;
  int uses;
} Graph;

// What is being captured.
static int capturing;
static Graph *captured;
static Launch **last;

static void note(const char *text) {
  const char *name = getenv("FAKE_CUDA_LOG");
  FILE *f = name ? fopen(name, "a") : NULL;
  if (!f) return;
  fprintf(f, "%s\n", text);
  fclose(f);
}

#define NEEDS_CONTEXT \
  if (!current) return CUDA_ERROR_INVALID_CONTEXT; \
  if (wrong("lost")) return CUDA_ERROR_ECC_UNCORRECTABLE

#define NEEDS_NO_CAPTURE \
  NEEDS_CONTEXT; \
  if (capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED

#undef cuInit
CUresult cuInit(unsigned int flags) {
  (void)flags;
  return wrong("nodevice") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_NO_DEVICE           ? "no CUDA-capable device is detected"
          : error == CUDA_ERROR_OUT_OF_MEMORY     ? "out of memory"
          : error == CUDA_ERROR_ECC_UNCORRECTABLE ? "uncorrectable ECC error encountered"
                                                  : NULL;
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == CUDA_ERROR_ECC_UNCORRECTABLE ? "CUDA_ERROR_ECC_UNCORRECTABLE" : NULL;
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDriverGetVersion(int *version) {
  *version = wrong("old") ? 11040 : 12040;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  *count = wrong("zero") ? 0 : 2;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  snprintf(name, size, "Fake GPU %d", device);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
  for (int i = 0; i < 16; i++) ((unsigned char *)uuid)[i] = 16 * device + i;
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  *bytes = (size_t)(device + 1) << 34;
  return wrong("total") ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  (void)device;
  *value = 0;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = wrong("small") ? 7 : 9;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = wrong("small") ? 5 : 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device) {
  (void)flags;
  char text[64];
  snprintf(text, sizeof text, "context on %d", device);
  note(text);
  *context = current = (CUcontext)malloc(1);
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  current = context;
  return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t *free, size_t *total) {
  NEEDS_NO_CAPTURE;
  *free = 1000;
  *total = 2000;
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *at, size_t size) {
  NEEDS_NO_CAPTURE;
  if (wrong("memory")) return CUDA_ERROR_OUT_OF_MEMORY;
  *at = (CUdeviceptr)aligned_alloc(256, (size + 255) / 256 * 256);
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr at) {
  NEEDS_NO_CAPTURE;
  free((void *)at);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
  NEEDS_NO_CAPTURE;
  memcpy((void *)to, from, size);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
  NEEDS_NO_CAPTURE;
  while (wrong("hang")) sleep(1);
  memcpy(to, (const void *)from, size);
  if (wrong("wrong") && size > 1000) ((float *)to)[7] += 1;
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int options, CUjit_option *option, void **value) {
  NEEDS_NO_CAPTURE;
  if (wrong("ptx")) {
    for (unsigned int i = 0; i < options; i++)
      if (option[i] == CU_JIT_ERROR_LOG_BUFFER) strcpy(value[i], "ptxas fatal: line 1");
    return CUDA_ERROR_INVALID_PTX;
  }
  *module = (CUmodule)strdup(image);
  return CUDA_SUCCESS;
}

// A function is the place of its entry in the PTX, which says how large its parameters are.
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  NEEDS_NO_CAPTURE;
  char entry[256];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  *function = (CUfunction)strstr((const char *)module, entry);
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
  NEEDS_CONTEXT;
  (void)flags;
  *stream = (CUstream)malloc(1);
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
                        unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra) {
  NEEDS_CONTEXT;
  (void)extra;
  if (wrong("launch")) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  if (!stream) return CUDA_ERROR_INVALID_HANDLE; // it could not be captured
  launches++;
  Launch l = {.grid = {gx, gy, gz}, .threads = bx};
  const char *at = (const char *)function + strlen(".entry "), *end = strchr(at, ')');
  snprintf(l.name, sizeof l.name, "%.*s", (int)(strchr(at, '(') - at), at);
  char text[1024];
  int n = snprintf(text, sizeof text, "%s %u %u %u x %u %u %u, %u:", l.name, gx, gy, gz, bx, by, bz, shared), ints = 0, floats = 0;
  for (int i = 0; (at = strstr(at, ".param .")) && at < end; i++) {
    at += strlen(".param .");
    if (!strncmp(at, "u64", 3)) n += snprintf(text + n, sizeof text - n, " %llx", l.ints[ints++] = *(unsigned long long *)params[i]);
    if (!strncmp(at, "u32", 3)) n += snprintf(text + n, sizeof text - n, " %d", (int)(l.ints[ints++] = *(unsigned *)params[i]));
    if (!strncmp(at, "f32", 3)) n += snprintf(text + n, sizeof text - n, " %g", l.floats[floats++] = *(float *)params[i]);
  }
  if (capturing) {
    *last = (Launch *)malloc(sizeof l);
    **last = l;
    last = &(*last)->next;
    return CUDA_SUCCESS;
  }
  note(text);
  if (run) run(l.name, l.grid, l.threads, l.ints, l.floats);
  return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
  NEEDS_NO_CAPTURE;
  (void)mode;
  if (!stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  capturing = 1;
  captured = (Graph *)calloc(1, sizeof *captured);
  captured->uses = 1;
  last = &captured->first;
  return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
  NEEDS_CONTEXT;
  (void)stream;
  if (!capturing) return CUDA_ERROR_ILLEGAL_STATE;
  capturing = 0;
  *graph = captured;
  note("graph");
  return CUDA_SUCCESS;
}

static void destroy(Graph *g) {
  if (--g->uses > 0) return;
  for (Launch *l = g->first, *next; l; l = next) {
    next = l->next;
    free(l);
  }
  free(g);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
  NEEDS_NO_CAPTURE;
  (void)flags;
  if (wrong("graph")) return CUDA_ERROR_NOT_SUPPORTED;
  graph->uses++;
  *exec = (CUgraphExec)graph;
  note("recording");
  return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
  NEEDS_NO_CAPTURE;
  destroy(graph);
  note("graph destroyed");
  return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
  NEEDS_NO_CAPTURE;
  destroy((Graph *)exec);
  note("recording destroyed");
  return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  NEEDS_NO_CAPTURE;
  (void)stream;
  note("replay");
  for (Launch *l = ((Graph *)exec)->first; l; l = l->next) {
    launches++;
    if (run) run(l->name, l->grid, l->threads, l->ints, l->floats);
  }
  return CUDA_SUCCESS;
}
