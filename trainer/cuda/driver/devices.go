//go:build cuda && cgo && linux && amd64

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"gorgonia.org/cu"
)

// Info describes a GPU.
type Info struct {
	Index        int
	Name         string
	UUID         string // as nvidia-smi writes it
	Memory       int64  // bytes
	Major, Minor int    // compute capability
	Err          error  // why it can't be used, or nil
}

// Devices lists what GPUs there are, those that can't be used included, and describes the
// driver. An error says why there is none.
func Devices() (driver string, all []Info, err error) {
	if err := load(); err != nil {
		return "", nil, err
	}
	driver = version()
	n, err := count()
	if err != nil {
		return driver, nil, err
	}
	for i := range n {
		info := describe(i)
		all = append(all, info)
	}
	return driver, all, nil
}

// version names the driver: the version of its kernel module, where that can be read, and the
// CUDA that it is for.
func version() string {
	v := cu.Version()
	text := fmt.Sprintf("for CUDA %d.%d", v/1000, v%1000/10)
	if module, err := os.ReadFile("/sys/module/nvidia/version"); err == nil {
		text = strings.TrimSpace(string(module)) + ", " + text
	}
	return text
}

func count() (int, error) {
	n, err := cu.NumDevices()
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, failed("cuDeviceGetCount", err))
	case n == 0:
		return 0, fmt.Errorf("%w: the driver sees no GPU", ErrUnavailable)
	}
	return n, nil
}

// describe asks the driver about one of the GPUs that it counts.
func describe(index int) Info {
	i := Info{Index: index}
	defer watch(named(fmt.Sprint("cuda:", index)))()
	d, err := cu.GetDevice(index)
	if i.Err = failed("cuDeviceGet", err); err != nil {
		return i
	}
	var errs [4]error
	i.Name, errs[0] = d.Name()
	i.Memory, errs[1] = d.TotalMem()
	i.UUID, errs[2] = uuidOf(d)
	i.Major, i.Minor, errs[3] = d.ComputeCapability()
	for k, call := range []string{"cuDeviceGetName", "cuDeviceTotalMem", "cuDeviceGetUuid", "cuDeviceGetAttribute"} {
		i.Err = cmp.Or(i.Err, failed(call, errs[k]))
	}
	if i.Err == nil && i.Major < 8 {
		i.Err = fmt.Errorf("it has compute capability %d.%d, it must be 8.0 or later", i.Major, i.Minor)
	}
	return i
}

// uuidOf is the UUID of a GPU or, where the process sees a part of one (MIG), of that: only
// the second version of the function has that, and the first one then another.
func uuidOf(d cu.Device) (string, error) {
	whole, err := d.UUID()
	if err != nil {
		return "", err
	}
	own := whole
	if err := result(C.cuDeviceGetUuid_v2((*C.CUuuid)(unsafe.Pointer(&own)), C.CUdevice(d))); err != nil {
		return "", err
	}
	if own != whole {
		return "MIG-" + own.String(), nil
	}
	return "GPU-" + own.String(), nil
}

// find describes a GPU that can be used.
func find(index int) (i Info, err error) {
	if err := load(); err != nil {
		return i, err
	}
	n, err := count()
	if err != nil {
		return i, err
	}
	if index >= n {
		return i, fmt.Errorf("%w: there is no GPU %d, the last one of %d is %d", ErrUnavailable, index, n, n-1)
	}
	if i = describe(index); i.Err != nil {
		return i, fmt.Errorf("%w: GPU %d: %w", ErrUnavailable, index, i.Err)
	}
	return i, nil
}
