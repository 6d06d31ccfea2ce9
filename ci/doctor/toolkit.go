package doctor

import "github.com/berthdev/berth/internal/trouble"

// toolkit is whether NVIDIA's Container Toolkit is installed. Docker elsewhere has its own.
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
	return found(trouble.NoToolkit, "")
}
