package doctor

import (
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/trouble"
)

// fixedToolkit is the version of the toolkit whose runtime tells the container engine of
// the devices that it adds (docs/gpu-runners.md says more).
const fixedToolkit = "1.18.0"

// controlGroups is whether running containers lose their GPUs when systemd sets up their
// control groups anew: it does so from what Docker told it, and what NVIDIA's hook added
// isn't in that (NVIDIA/nvidia-container-toolkit#48).
func controlGroups(h Host) Finding {
	method, err := h.way()
	if h.Docker.Info.Snap() && method == gpu.Hook {
		return Finding{} // no GPU gets in
	}
	if !h.passesHere() || err != nil || h.Docker.Info.Podman() ||
		h.Docker.Info.Rootless() { // whose control groups keep nobody from a device
		return Finding{}
	}
	is := "set up by " + h.Docker.Info.CgroupDriver + ", GPUs by " + string(method)
	hidden := method == gpu.Hook || method == gpu.Runtime && before(h.GPU.Toolkit, fixedToolkit)
	if h.Docker.Info.CgroupDriver == "systemd" && hidden {
		if method == gpu.Runtime {
			is += " of toolkit " + h.GPU.Toolkit
		}
		return found(trouble.GPUsVanish, is)
	}
	return fine(is)
}
