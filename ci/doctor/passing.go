package doctor

import (
	"errors"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// way is how a launch would have Docker pass all GPUs on.
func (h Host) way() (gpu.Method, error) {
	i, err := gpu.Inject(gpu.Request{All: true}, h.GPU.Machine, h.Docker.Info, h.Docker.Local)
	return i.Method, err
}

// passesHere reports whether there are GPUs, and a Docker on this machine to pass them on.
func (h Host) passesHere() bool {
	return h.Docker.API != "" && h.Docker.Local && len(h.GPU.Machine.GPUs) > 0
}

// passingOn is how Docker passes GPUs on.
func passingOn(h Host) Finding {
	if !h.passesHere() {
		return Finding{}
	}
	method, err := h.way()
	if fault := (*gpu.Fault)(nil); errors.As(err, &fault) {
		if fault.Row == trouble.NoToolkit {
			return Finding{} // the check before this says so
		}
		return found(fault.Row, "")
	}
	switch method {
	case gpu.CDI:
		return fine("by CDI")
	case gpu.Runtime:
		return fine("by NVIDIA's runtime")
	}
	switch info := h.Docker.Info; {
	case info.Snap():
		return found(trouble.SnapHook, "")
	case info.Rootless():
		return found(trouble.NoWayRootless, "")
	}
	return found(trouble.NoWay, "")
}
