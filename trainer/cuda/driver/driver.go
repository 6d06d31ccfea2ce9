//go:build cuda && cgo && linux && amd64

// Package driver runs kernels on an NVIDIA GPU, through the driver's library and
// gorgonia.org/cu. It is compiled with the tag cuda alone, by
//
//	CGO_CFLAGS=-I$PWD/trainer/cuda/driver/abi CGO_LDFLAGS=-L$PWD/trainer/cuda/driver/abi go build -tags=cuda ./trainer
//
// which needs a C compiler, but neither a toolkit of NVIDIA's nor a driver: the program
// starts on every machine, and loads libcuda.so.1 when it is asked for a GPU.
//
// It has not yet run on a GPU: its tests put a library of their own in the driver's place.
package driver

/*
#cgo CFLAGS: -I${SRCDIR}/abi
#cgo LDFLAGS: -L${SRCDIR}/abi -ldl
#include <cuda.h>
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// library is what NVIDIA's driver installs, and the container toolkit injects.
const library = "libcuda.so.1"

// oldest is the first version of the driver that takes PTX 7.8: that of CUDA 11.8.
const oldest = 11080

// load loads the driver, once.
var load = sync.OnceValue(func() error {
	if _, err := patience(); err != nil {
		return err
	}
	defer watch(named("a GPU"))()
	name := C.CString(library)
	defer C.free(unsafe.Pointer(name))
	var why [512]C.char
	if C.shim_load(name, &why[0], C.int(len(why))) != 0 {
		return fmt.Errorf("%w: %s", ErrUnavailable, C.GoString(&why[0]))
	}
	if v := cu.Version(); v < oldest {
		return fmt.Errorf("%w: the driver is for CUDA %d.%d, which is too old: it must be for 11.8 (driver 520) or later",
			ErrUnavailable, v/1000, v%1000/10)
	}
	return nil
})

// Device is a GPU with the kernels loaded. It may be used from any goroutine, by one at a
// time.
type Device struct {
	Info

	gpu       cu.Device
	context   cu.CUContext
	stream    cu.Stream // one that waits for copies, and they for it
	marked    cu.Event
	functions map[string]cu.Function
	together  string // names all that it works with, if there are others
}

var (
	_ cuda.Recorder = (*Device)(nil)
	_ cuda.Peer     = (*Device)(nil)
)

// Open prepares a GPU, until it is closed. An error about what is missing wraps
// [ErrUnavailable]. Where the GPU is in exclusive mode, nobody else has it meanwhile.
func Open(index int) (_ *Device, err error) {
	info, err := find(index)
	if err != nil {
		return nil, err
	}
	d := &Device{Info: info, functions: map[string]cu.Function{}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer watch(d)()
	if d.gpu, err = cu.GetDevice(index); err != nil {
		return nil, d.failed("cuDeviceGet", err)
	}
	if d.context, err = d.gpu.MakeContext(cu.SchedAuto); err != nil {
		return nil, d.failed("cuCtxCreate", err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.stream, err = cu.MakeStream(cu.DefaultStream); err != nil {
		return nil, d.failed("cuStreamCreate", err)
	}
	if d.marked, err = cu.MakeEvent(cu.DisableTiming); err != nil {
		return nil, d.failed("cuEventCreate", err)
	}
	all := kernels.PTX()
	for _, file := range slices.Sorted(maps.Keys(all)) {
		log := &cu.JITErrorLogBuffer{Buffer: make([]byte, 8<<10)}
		module, err := cu.LoadDataEx(all[file], log)
		if err != nil {
			return nil, fmt.Errorf("kernel %s on %s: %w\n%s", file, d, failed("cuModuleLoadDataEx", err), text(log.Buffer))
		}
		for _, name := range kernels.Entries(all[file]) {
			if d.functions[name], err = module.Function(name); err != nil {
				return nil, fmt.Errorf("kernel %s: %w", name, d.failed("cuModuleGetFunction", err))
			}
		}
	}
	return d, nil
}

// text is what is before the first zero.
func text(b []byte) string {
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Close gives back all that the device holds: its memory, recordings and kernels. None of that
// may be used any more. What is wrong with a device shows elsewhere.
func (d *Device) Close() {
	_ = d.do("cuCtxDestroy", d.context.Destroy)
}

// do calls the driver on a thread on which the device's context is the current one.
func (d *Device) do(call string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer watch(d)()
	if err := cu.SetCurrentContext(d.context); err != nil {
		return d.failed("cuCtxSetCurrent", err)
	}
	return d.failed(call, f())
}

// failed is the error of a call on the device, or nil.
func (d *Device) failed(call string, err error) error {
	if err = failed(call, err); err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	return nil
}

// Alloc implements the interface of the package cuda, as the rest does.
func (d *Device) Alloc(name string, bytes int) (p kernels.Pointer, err error) {
	err = d.do("cuMemAlloc", func() error {
		at, err := cu.MemAlloc(int64(bytes))
		p = kernels.Pointer(at)
		return err
	})
	var e *Error
	if err == nil || !errors.As(err, &e) || e.Code != C.CUDA_ERROR_OUT_OF_MEMORY {
		return p, err
	}
	var free, total int64
	if d.do("cuMemGetInfo", func() (err error) { free, total, err = cu.MemInfo(); return err }) != nil {
		return p, fmt.Errorf("%d bytes for %s: %w", bytes, name, err)
	}
	return p, fmt.Errorf("%d bytes for %s, of which %d are free of %d: %w", bytes, name, free, total, err)
}

func (d *Device) Free(p kernels.Pointer) error {
	return d.do("cuMemFree", func() error { return cu.MemFree(cu.DevicePtr(p)) })
}

func (d *Device) Write(to kernels.Pointer, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	return d.do("cuMemcpyHtoD", func() error { return cu.MemcpyHtoD(cu.DevicePtr(to), unsafe.Pointer(&data[0]), int64(len(data))) })
}

// Read waits for the kernels that were launched before; what they did wrong shows here.
func (d *Device) Read(data []byte, from kernels.Pointer) error {
	if len(data) == 0 {
		return nil
	}
	return d.do("cuMemcpyDtoH", func() error { return cu.MemcpyDtoH(unsafe.Pointer(&data[0]), cu.DevicePtr(from), int64(len(data))) })
}

// Launch doesn't wait.
func (d *Device) Launch(kernel string, grid, block [3]int, args ...any) error {
	f, ok := d.functions[kernel]
	if !ok {
		return fmt.Errorf("there is no kernel %q", kernel)
	}
	// Each argument has eight bytes: as many are copied, whatever its size is.
	values, pointers := make([]uint64, len(args)), make([]unsafe.Pointer, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case kernels.Pointer:
			values[i] = uint64(v)
		case uint64:
			values[i] = v
		case int32:
			values[i] = uint64(uint32(v))
		case float32:
			values[i] = uint64(math.Float32bits(v))
		default:
			return fmt.Errorf("argument %d is a %T", i, a)
		}
		pointers[i] = unsafe.Pointer(&values[i])
	}
	return d.do("cuLaunchKernel", func() error {
		return f.Launch(grid[0], grid[1], grid[2], block[0], block[1], block[2], 0, d.stream, pointers)
	})
}

// Record implements [cuda.Recorder] by a CUDA graph.
func (d *Device) Record(launches func() error) (cuda.Recording, error) {
	runtime.LockOSThread() // a capture ends on the thread on which it began
	defer runtime.UnlockOSThread()
	stream := *(*C.CUstream)(unsafe.Pointer(&d.stream)) // its own type of it is another one to cgo
	err := d.do("cuStreamBeginCapture", func() error {
		return result(C.cuStreamBeginCapture(stream, C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
	})
	if err != nil {
		return nil, err
	}
	launched := launches()
	var graph C.CUgraph
	err = d.do("cuStreamEndCapture", func() error { return result(C.cuStreamEndCapture(stream, &graph)) })
	if launched != nil || err != nil {
		return nil, errors.Join(launched, err, d.destroyGraph(graph))
	}
	r := &recording{device: d, stream: stream}
	err = d.do("cuGraphInstantiateWithFlags", func() error { return result(C.cuGraphInstantiateWithFlags(&r.ready, graph, 0)) })
	if err := errors.Join(err, d.destroyGraph(graph)); err != nil {
		return nil, err
	}
	return r, nil
}

// destroyGraph destroys what a capture left, if anything.
func (d *Device) destroyGraph(graph C.CUgraph) error {
	if graph == nil {
		return nil
	}
	return d.do("cuGraphDestroy", func() error { return result(C.cuGraphDestroy(graph)) })
}

// recording is an executable graph.
type recording struct {
	device *Device
	stream C.CUstream
	ready  C.CUgraphExec
}

func (r *recording) Replay() error {
	return r.device.do("cuGraphLaunch", func() error { return result(C.cuGraphLaunch(r.ready, r.stream)) })
}

// Destroy doesn't wait: the driver frees a graph that still runs when it has ended.
func (r *recording) Destroy() error {
	return r.device.do("cuGraphExecDestroy", func() error { return result(C.cuGraphExecDestroy(r.ready)) })
}
