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

	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// ErrUnavailable is in the chain of errors about a link that is missing between the program
// and a GPU.
var ErrUnavailable = errors.New("no CUDA")

// library is what NVIDIA's driver installs, and the container toolkit injects.
const library = "libcuda.so.1"

// oldest is the first version of the driver that takes PTX 7.8: that of CUDA 11.8.
const oldest = 11080

// load loads the driver, once.
var load = sync.OnceValue(func() error {
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

// Probe names the missing link, or returns nil if there is a GPU that can be used.
func Probe() error {
	_, err := find(0)
	return err
}

// find returns a device that can be used.
func find(index int) (d cu.Device, err error) {
	if err := load(); err != nil {
		return d, err
	}
	n, err := cu.NumDevices()
	switch {
	case err != nil:
		return d, fmt.Errorf("%w: cuDeviceGetCount: %w", ErrUnavailable, err)
	case n == 0:
		return d, fmt.Errorf("%w: the driver sees no GPU", ErrUnavailable)
	case index >= n:
		return d, fmt.Errorf("%w: there is no GPU %d, the last one of %d is %d", ErrUnavailable, index, n, n-1)
	}
	if d, err = cu.GetDevice(index); err != nil {
		return d, fmt.Errorf("%w: cuDeviceGet: %w", ErrUnavailable, err)
	}
	major, minor, err := d.ComputeCapability()
	if err != nil {
		return d, fmt.Errorf("%w: compute capability of GPU %d: %w", ErrUnavailable, index, err)
	}
	if major < 8 {
		return d, fmt.Errorf("%w: GPU %d has compute capability %d.%d, it must be 8.0 or later", ErrUnavailable, index, major, minor)
	}
	return d, nil
}

// Device is a GPU with the kernels loaded. It may be used from any goroutine, by one at a
// time.
type Device struct {
	Name string

	context   cu.CUContext
	functions map[string]cu.Function
}

// Open prepares a GPU. An error about what is missing wraps [ErrUnavailable].
func Open(index int) (*Device, error) {
	gpu, err := find(index)
	if err != nil {
		return nil, err
	}
	d := &Device{functions: map[string]cu.Function{}}
	if d.Name, err = gpu.Name(); err != nil {
		return nil, fmt.Errorf("cuDeviceGetName: %w", err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if d.context, err = gpu.MakeContext(cu.SchedAuto); err != nil {
		return nil, fmt.Errorf("cuCtxCreate on %s: %w", d.Name, err)
	}
	all := kernels.PTX()
	for _, file := range slices.Sorted(maps.Keys(all)) {
		log := &cu.JITErrorLogBuffer{Buffer: make([]byte, 8<<10)}
		module, err := cu.LoadDataEx(all[file], log)
		if err != nil {
			return nil, fmt.Errorf("cuModuleLoadDataEx of %s on %s: %w\n%s", file, d.Name, err, text(log.Buffer))
		}
		for _, name := range kernels.Entries(all[file]) {
			if d.functions[name], err = module.Function(name); err != nil {
				return nil, fmt.Errorf("cuModuleGetFunction of %s: %w", name, err)
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

// do calls the driver on a thread on which the device's context is the current one.
func (d *Device) do(what string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cu.SetCurrentContext(d.context); err != nil {
		return fmt.Errorf("cuCtxSetCurrent: %w", err)
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Alloc implements the interface of the package cuda, as the rest does.
func (d *Device) Alloc(name string, bytes int) (p kernels.Pointer, err error) {
	err = d.do("cuMemAlloc", func() error {
		at, err := cu.MemAlloc(int64(bytes))
		if err == nil {
			p = kernels.Pointer(at)
			return nil
		}
		if free, total, e := cu.MemInfo(); e == nil {
			return fmt.Errorf("%d bytes for %s, of which %d are free of %d on %s: %w", bytes, name, free, total, d.Name, err)
		}
		return fmt.Errorf("%d bytes for %s on %s: %w", bytes, name, d.Name, err)
	})
	return p, err
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
		return f.Launch(grid[0], grid[1], grid[2], block[0], block[1], block[2], 0, cu.NoStream, pointers)
	})
}
