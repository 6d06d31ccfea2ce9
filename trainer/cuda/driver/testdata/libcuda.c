// A stand-in for NVIDIA's driver, for tests: memory is the host's. Linked with kernels.cc it
// runs the kernels, else it only notes that they were launched. It keeps the driver's rules: a
// context per thread, modules before functions, no copies while launches are captured, and
// nothing of one context's in another one.
//
// What is put on a stream is done when something waits for it, and nothing before that: each
// device is as far behind the others as it may be. FAKE_CUDA_LEADER is the one that is ahead.
//
// FAKE_CUDA says what is wrong with it, FAKE_CUDA_DEVICE with which device alone, FAKE_CUDA_AFTER
// after how many launches that begins. FAKE_CUDA_GPUS is how many there are, FAKE_CUDA_LOG a file
// for what was called.
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { most = 8 };

// A context has one stream.
struct CUcontext_handle {
  int device;
  CUresult failed; // what all calls come back with from then on
  CUstream stream;
  int peers[most]; // by device
};

static __thread CUcontext current;
static CUcontext contexts[most]; // by device
static int launches;

static int number(const char *variable, int otherwise) {
  const char *s = getenv(variable);
  return s ? atoi(s) : otherwise;
}

static int wrong_on(const char *what, int device) {
  const char *s = getenv("FAKE_CUDA");
  return s && !strcmp(s, what) && launches >= number("FAKE_CUDA_AFTER", 0) && device == number("FAKE_CUDA_DEVICE", device);
}

static int wrong(const char *what) { return wrong_on(what, current ? current->device : number("FAKE_CUDA_DEVICE", 0)); }

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

// Memory belongs to a context.
typedef struct Memory {
  struct Memory *next;
  CUdeviceptr at;
  size_t size;
  CUcontext context;
} Memory;

static Memory *memory;

// owner is the context of the memory that so many bytes are in, or NULL.
static CUcontext owner(CUdeviceptr at, size_t size) {
  for (Memory *m = memory; m; m = m->next)
    if (at >= m->at && at - m->at < m->size && m->size - (at - m->at) >= size) return m->context;
  return NULL;
}

// An operation of a stream: a launch, a copy, or one of the two halves of an event.
typedef struct Operation {
  struct Operation *next;
  enum { LAUNCH, COPY, MARK, FOLLOW } kind;
  Launch launch;
  CUdeviceptr to, from;
  size_t size;
  CUevent event;
  int mark;
} Operation;

struct CUstream_handle {
  CUcontext context;
  Operation *first, **last;
};

struct CUevent_handle {
  CUcontext context;
  CUstream stream; // where it was recorded
  int asked, done; // how often that was asked for and done
};

static void put(CUstream s, Operation o) {
  *s->last = (Operation *)malloc(sizeof o);
  **s->last = o;
  s->last = &(*s->last)->next;
}

// drain does what is on a stream: all of it or, with an event, until that has been done so often.
static void drain(CUstream s, CUevent until, int mark) {
  while (s && s->first && !(until && until->done >= mark)) {
    Operation o = *s->first;
    free(s->first);
    if (!(s->first = o.next)) s->last = &s->first;
    if (o.kind == FOLLOW) drain(o.event->stream, o.event, o.mark);
    if (o.kind == MARK) o.event->done = o.mark;
    if (s->context->failed) continue;
    if (o.kind == COPY) memcpy((void *)o.to, (const void *)o.from, o.size);
    if (o.kind == COPY && o.size > 100000 && wrong_on("garble", s->context->device)) ((float *)o.to)[7] += 1;
    if (o.kind != LAUNCH) continue;
    for (unsigned i = 0; i < sizeof o.launch.ints / sizeof *o.launch.ints; i++) { // numbers are no addresses
      CUcontext of = owner(o.launch.ints[i], 1);
      if (of && of != s->context) s->context->failed = CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    if (!s->context->failed && run) run(o.launch.name, o.launch.grid, o.launch.threads, o.launch.ints, o.launch.floats);
  }
}

// wait waits for all that was put on the stream of the current context.
static CUresult wait(void) {
  int leader = number("FAKE_CUDA_LEADER", -1);
  if (leader >= 0 && contexts[leader]) drain(contexts[leader]->stream, NULL, 0);
  drain(current->stream, NULL, 0);
  return current->failed;
}

#define NEEDS_CONTEXT \
  if (!current) return CUDA_ERROR_INVALID_CONTEXT; \
  if (current->failed) return current->failed; \
  if (wrong("lost")) return CUDA_ERROR_ECC_UNCORRECTABLE

#define NEEDS_STREAM(s) \
  NEEDS_CONTEXT; \
  if (!(s) || (s)->context != current) return CUDA_ERROR_INVALID_HANDLE

#define NEEDS_NO_CAPTURE \
  NEEDS_CONTEXT; \
  if (capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED

// What waits also does what it waits for.
#define WAITS \
  NEEDS_NO_CAPTURE; \
  if (wait()) return current->failed

#undef cuInit
CUresult cuInit(unsigned int flags) {
  (void)flags;
  while (wrong("hanginit")) sleep(1);
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
  *count = wrong("zero") ? 0 : number("FAKE_CUDA_GPUS", 2);
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

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  cuDeviceGetUuid(uuid, device);
  if (wrong_on("mig", device)) ((unsigned char *)uuid)[15] ^= 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
  *bytes = (size_t)(device + 1) << 34;
  return wrong("total") ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  int small = wrong_on("small", device);
  *value = 0;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) *value = small ? 7 : 9;
  if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) *value = small ? 5 : 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxCreate(CUcontext *context, unsigned int flags, CUdevice device) {
  (void)flags;
  while (wrong_on("hangopen", device)) sleep(1);
  if (wrong_on("exclusive", device) && contexts[device]) return CUDA_ERROR_DEVICE_UNAVAILABLE;
  char text[64];
  snprintf(text, sizeof text, "context on %d", device);
  note(text);
  *context = current = contexts[device] = (CUcontext)calloc(1, sizeof **context);
  current->device = device;
  return CUDA_SUCCESS;
}

// cuCtxDestroy waits, and frees the memory.
CUresult cuCtxDestroy(CUcontext context) {
  WAITS;
  if (context != current) return CUDA_ERROR_INVALID_CONTEXT;
  for (Memory **m = &memory; *m;) {
    Memory *gone = *m;
    if (gone->context != context) {
      m = &gone->next;
      continue;
    }
    *m = gone->next;
    free((void *)gone->at);
    free(gone);
  }
  char text[64];
  snprintf(text, sizeof text, "no context on %d", context->device);
  note(text);
  if (contexts[context->device] == context) contexts[context->device] = NULL;
  current = NULL;
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
  if (!size) return CUDA_ERROR_INVALID_VALUE;
  if (wrong("memory")) return CUDA_ERROR_OUT_OF_MEMORY;
  *at = (CUdeviceptr)aligned_alloc(256, (size + 255) / 256 * 256);
  Memory *m = (Memory *)malloc(sizeof *m);
  *m = (Memory){memory, *at, size, current};
  memory = m;
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr at) {
  WAITS;
  for (Memory **m = &memory; *m; m = &(*m)->next) {
    if ((*m)->at != at || (*m)->context != current) continue;
    Memory *gone = *m;
    *m = gone->next;
    free(gone);
    free((void *)at);
    return CUDA_SUCCESS;
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t size) {
  WAITS;
  if (owner(to, size) != current) return CUDA_ERROR_INVALID_VALUE;
  memcpy((void *)to, from, size);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t size) {
  WAITS;
  if (owner(from, size) != current) return CUDA_ERROR_INVALID_VALUE;
  while (wrong("hang")) sleep(1);
  memcpy(to, (const void *)from, size);
  if (wrong("wrong") && size > 1000) ((float *)to)[7] += 1;
  return CUDA_SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
  *can = device != peer && !wrong("nopeer");
  return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
  NEEDS_NO_CAPTURE;
  (void)flags;
  if (wrong("peers")) return CUDA_ERROR_TOO_MANY_PEERS;
  if (wrong("nopeer") || wrong("novirtual")) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
  if (current->peers[peer->device]++) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
  char text[64];
  snprintf(text, sizeof text, "access from %d to %d", current->device, peer->device);
  note(text);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t size, CUstream stream) {
  NEEDS_STREAM(stream);
  if (capturing) return CUDA_ERROR_NOT_SUPPORTED;
  if (wrong("copy")) return CUDA_ERROR_NVLINK_UNCORRECTABLE;
  if (owner(to, size) != to_context || owner(from, size) != from_context) return CUDA_ERROR_INVALID_VALUE;
  put(stream, (Operation){.kind = COPY, .to = to, .from = from, .size = size});
  return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
  NEEDS_CONTEXT;
  (void)flags;
  *event = (CUevent)calloc(1, sizeof **event);
  (*event)->context = current;
  return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  NEEDS_STREAM(stream);
  if (event->context != current) return CUDA_ERROR_INVALID_HANDLE;
  if (capturing) return CUDA_ERROR_NOT_SUPPORTED;
  event->stream = stream;
  put(stream, (Operation){.kind = MARK, .event = event, .mark = ++event->asked});
  return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags) {
  NEEDS_STREAM(stream);
  (void)flags;
  if (capturing) return CUDA_ERROR_NOT_SUPPORTED;
  put(stream, (Operation){.kind = FOLLOW, .event = event, .mark = event->asked});
  return CUDA_SUCCESS;
}

struct CUmodule_handle {
  CUcontext context;
  char *text;
};

// A function is the place of its entry in the PTX, which says how large its parameters are.
struct CUfunction_handle {
  CUcontext context;
  const char *entry;
};

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int options, CUjit_option *option, void **value) {
  NEEDS_NO_CAPTURE;
  if (wrong("ptx")) {
    for (unsigned int i = 0; i < options; i++)
      if (option[i] == CU_JIT_ERROR_LOG_BUFFER) strcpy(value[i], "ptxas fatal: line 1");
    return CUDA_ERROR_INVALID_PTX;
  }
  *module = (CUmodule)malloc(sizeof **module);
  **module = (struct CUmodule_handle){current, strdup(image)};
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  NEEDS_NO_CAPTURE;
  char entry[256];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  if (module->context != current) return CUDA_ERROR_INVALID_HANDLE;
  *function = (CUfunction)malloc(sizeof **function);
  **function = (struct CUfunction_handle){current, strstr(module->text, entry)};
  return (*function)->entry ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
  NEEDS_CONTEXT;
  (void)flags;
  if (current->stream) return CUDA_ERROR_NOT_SUPPORTED;
  *stream = current->stream = (CUstream)calloc(1, sizeof **stream);
  (*stream)->context = current;
  (*stream)->last = &(*stream)->first;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by,
                        unsigned int bz, unsigned int shared, CUstream stream, void **params, void **extra) {
  NEEDS_CONTEXT;
  (void)extra;
  if (wrong("launch")) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  if (!stream || stream->context != current || function->context != current) return CUDA_ERROR_INVALID_HANDLE;
  launches++;
  Launch l = {.grid = {gx, gy, gz}, .threads = bx};
  const char *at = function->entry + strlen(".entry "), *end = strchr(at, ')');
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
  put(stream, (Operation){.kind = LAUNCH, .launch = l});
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
  if (!stream || stream->context != current) return CUDA_ERROR_INVALID_HANDLE;
  note("replay");
  for (Launch *l = ((Graph *)exec)->first; l; l = l->next) {
    launches++;
    put(stream, (Operation){.kind = LAUNCH, .launch = *l});
  }
  return CUDA_SUCCESS;
}
