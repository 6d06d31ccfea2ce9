package doctor

import (
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// toolkit is whether NVIDIA's Container Toolkit is installed. Docker elsewhere has its own,
// and where Docker says that it has CDI devices or NVIDIA's runtime, it has that from
// somewhere, too: NixOS and Docker Desktop keep the programs out of sight.
func toolkit(h Host) Finding {
	if !h.GPU.there() || h.Docker.API != "" && !h.Docker.Local {
		return Finding{}
	}
	switch {
	case h.GPU.Toolkit != "":
		return fine("version " + h.GPU.Toolkit)
	case h.GPU.Machine.Toolkit:
		return fine("installed, of a version that doesn't tell which")
	}
	if method, err := h.way(); h.Docker.API != "" && err == nil && (method == gpu.CDI || method == gpu.Runtime) {
		return Finding{}
	}
	return found(trouble.NoToolkit, "")
}
