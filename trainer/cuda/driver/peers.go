//go:build cuda && cgo && linux && amd64

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// String names the device as the command line does.
func (d *Device) String() string { return fmt.Sprintf("cuda:%d (%s)", d.Index, d.Name) }

// Connect has devices copy each other's memory directly, where the machine has a way for that.
// Else the driver takes it through the host's memory.
func Connect(all []*Device) error {
	for _, d := range all {
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
			if errors.As(err, &e) && e.Code == C.CUDA_ERROR_TOO_MANY_PEERS {
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
