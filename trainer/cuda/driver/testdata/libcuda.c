// A stand-in for NVIDIA's driver, for tests: memory is the host's, kernels only note that they
// were launched. It keeps the driver's rules: a context per thread, modules before functions.
// FAKE_CUDA says what is wrong with it, FAKE_CUDA_LOG is a file for what was called.
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread CUcontext current;

static int wrong(const char *what) {
  const char *s = getenv("FAKE_CUDA");
  return s && !strcmp(s, what);
}

static void note(const char *text) {
  const char *name = getenv("FAKE_CUDA_LOG");
  FILE *f = name ? fopen(name, "a") : NULL;
  if (!f) return;
  fprintf(f, "%s\n", text);
  fclose(f);
}

#define NEEDS_CONTEXT \
  if (!current) return CUDA_ERROR_INVALID_CONTEXT

#undef cuInit
CUresult cuInit(unsigned int flags) {
  (void)flags;
  return wrong("nodevice") ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = error == CUDA_ERROR_NO_DEVICE ? "no CUDA-capable device is detected" : "something else";
  return CUDA_SUCCESS;
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
  NEEDS_CONTEXT;
  *free = 1000;
  *total = 2000;
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *at, size_t size) {
  NEEDS_CONTEXT;
  if (wrong("memory")) return CUDA_ERROR_OUT_OF_MEMORY;
  *at = (CUdeviceptr)aligned_alloc(256, (size + 255) / 256 * 256);
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr at) {
  NEEDS_CONTEXT;
  free((void *)at);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
  NEEDS_CONTEXT;
  memcpy((void *)to, from, size);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
  NEEDS_CONTEXT;
  if (wrong("lost")) return CUDA_ERROR_ECC_UNCORRECTABLE;
  memcpy(to, (const void *)from, size);
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int options, CUjit_option *option, void **value) {
  NEEDS_CONTEXT;
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
  NEEDS_CONTEXT;
  char entry[256];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  *function = (CUfunction)strstr((const char *)module, entry);
  return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
                        unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra) {
  NEEDS_CONTEXT;
  (void)stream;
  (void)extra;
  if (wrong("launch")) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  const char *at = (const char *)function + strlen(".entry "), *end = strchr(at, ')');
  char text[1024];
  int n = snprintf(text, sizeof text, "%.*s %u %u %u x %u %u %u, %u:", (int)(strchr(at, '(') - at), at, gx, gy, gz, bx, by, bz, shared);
  for (int i = 0; (at = strstr(at, ".param .")) && at < end; i++) {
    at += strlen(".param .");
    if (!strncmp(at, "u64", 3)) n += snprintf(text + n, sizeof text - n, " %llx", *(unsigned long long *)params[i]);
    if (!strncmp(at, "u32", 3)) n += snprintf(text + n, sizeof text - n, " %d", *(int *)params[i]);
    if (!strncmp(at, "f32", 3)) n += snprintf(text + n, sizeof text - n, " %g", *(float *)params[i]);
  }
  note(text);
  return CUDA_SUCCESS;
}
