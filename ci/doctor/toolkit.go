package doctor

import (
	"errors"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// toolkit is whether NVIDIA's Container Toolkit is installed. Docker elsewhere has its own,
// and where Docker says that it has CDI devices or NVIDIA's runtime, it has that from
// somewhere, too: NixOS and Docker Desktop keep the programs out of sight. Without either,
// Docker needs the hook, which the package nvidia-container-toolkit-base lacks.
func toolkit(h Host) Finding {
	if !h.GPU.there() || h.Docker.API != "" && !h.Docker.Local {
		return Finding{}
	}
	_, err := h.way()
	fault := (*gpu.Fault)(nil)
	lacksHook := h.Docker.API != "" && errors.As(err, &fault) && fault.Row == trouble.NoToolkit
	switch version := h.GPU.Toolkit; {
	case version != "" && lacksHook:
		return found(trouble.NoToolkit, "version "+version+", but no nvidia-container-runtime-hook")
	case version != "":
		return fine("version " + version)
	case h.GPU.Machine.Toolkit:
		return fine("installed, of a version that doesn't tell which")
	case h.Docker.API != "" && err == nil:
		return Finding{}
	}
	return found(trouble.NoToolkit, "")
}
