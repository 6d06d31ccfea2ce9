package doctor

import "github.com/berthdev/berth/internal/trouble"

// wsl is whether, in Linux inside Windows, it is Windows' driver that CUDA would find.
func wsl(h Host) Finding {
	switch {
	case !h.GPU.Machine.WSL || len(h.GPU.Machine.GPUs) == 0:
		return Finding{} // no WSL, or no GPU, which gpus says
	case h.GPU.InWSL != "":
		return found(trouble.WSLLinuxDriver, h.GPU.InWSL)
	}
	return fine("Windows' driver, from /usr/lib/wsl/lib")
}
