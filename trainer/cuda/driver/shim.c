//go:build cuda && cgo && linux && amd64

// The program is not linked with the driver's library, which only machines with a GPU have:
// each function of the driver is a jump (see shim_amd64.S) to where a pointer here leads.
// Before the library is loaded that is a function that says that there is no device.

#define _GNU_SOURCE
#include "shim.h"

#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>

static CUresult unloaded(void) { return CUDA_ERROR_NO_DEVICE; }

// absent stands for functions that this driver doesn't have.
static CUresult absent(void) { return CUDA_ERROR_NOT_FOUND; }

#define SYMBOL(name) __attribute__((visibility("hidden"))) void *shim_##name = (void *)unloaded;
#include "abi/symbols.h"
#undef SYMBOL

// gorgonia.org/cu calls this before main, and ends the program if it fails. The library's
// own is called by shim_load.
CUresult cuInit(unsigned int flags) {
  (void)flags;
  return CUDA_SUCCESS;
}

int shim_load(const char *library, char *why, int size) {
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *text = dlerror();
    snprintf(why, size, "%s", text ? text : library);
    return -1;
  }
  CUresult (*init)(unsigned int) = (CUresult(*)(unsigned int))dlsym(handle, "cuInit");
  if (!init) {
    snprintf(why, size, "%s has no cuInit", library);
    return -1;
  }
  CUresult result = init(0);
  if (result != CUDA_SUCCESS) {
    CUresult (*describe)(CUresult, const char **) = (CUresult(*)(CUresult, const char **))dlsym(handle, "cuGetErrorString");
    const char *text = NULL;
    if (describe) describe(result, &text);
    snprintf(why, size, "cuInit: error %d (%s)", (int)result, text ? text : "no description");
    return result;
  }
  void *at;
#define SYMBOL(name) \
  at = dlsym(handle, #name); \
  shim_##name = at ? at : (void *)absent;
#include "abi/symbols.h"
#undef SYMBOL
  return 0;
}
