//go:build cuda && cgo && linux && amd64

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gorgonia.org/cu"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// String names the device as the command line does.
func (d *Device) String() string { return Names([]*Device{d}) }

// Names names devices as the command line does, in their order.
func Names(all []*Device) string {
	var numbers, names []string
	for _, d := range all {
		numbers, names = append(numbers, strconv.Itoa(d.Index)), append(names, d.Name)
	}
	if len(names) > 1 && len(slices.Compact(slices.Clone(names))) == 1 {
		names = []string{fmt.Sprintf("%d x %s", len(names), names[0])}
	}
	return fmt.Sprintf("cuda:%s (%s)", strings.Join(numbers, ","), strings.Join(names, ", "))
}

// Connect has devices copy each other's memory directly, where the machine has a way for that.
// Else the driver takes it through the host's memory.
func Connect(all []*Device) error {
	for _, d := range all {
		if len(all) > 1 {
			d.together = Names(all)
		}
		for _, other := range all {
			if other == d {
				continue
			}
			var can int
			err := d.do("cuDeviceCanAccessPeer", func() (err error) {
				can, err = d.gpu.CanAccessPeer(other.gpu)
				return err
			})
			if err == nil && can != 0 {
				err = d.do("cuCtxEnablePeerAccess", func() error { return other.context.EnablePeerAccess(0) })
			}
			var e *Error
			// A virtual GPU may say that it can, and then that it doesn't.
			if errors.As(err, &e) && (e.Code == C.CUDA_ERROR_TOO_MANY_PEERS || e.Code == C.CUDA_ERROR_PEER_ACCESS_UNSUPPORTED) {
				err = nil
			}
			if err != nil {
				return fmt.Errorf("access to the memory of %s: %w", other, err)
			}
		}
	}
	return nil
}

// Mark implements [cuda.Peer], as the rest does, by an event.
func (d *Device) Mark() error {
	return d.do("cuEventRecord", func() error { return d.marked.Record(d.stream) })
}

func (d *Device) Follow(other cuda.Peer) error {
	return d.do("cuStreamWaitEvent", func() error { return d.stream.Wait(other.(*Device).marked, 0) })
}

func (d *Device) Fetch(to kernels.Pointer, from cuda.Peer, at kernels.Pointer, bytes int) error {
	o := from.(*Device)
	return d.do("cuMemcpyPeerAsync", func() error {
		return cu.MemcpyPeerAsync(cu.DevicePtr(to), d.context, cu.DevicePtr(at), o.context, int64(bytes), d.stream)
	})
}
