package doctor

import "github.com/berthdev/berth/internal/trouble"

// dockerKind is whether the daemon is another one than the machine's own, run by root.
// If it is several of these, the one that takes away most counts.
func dockerKind(h Host) Finding {
	info := h.Docker.Info
	switch {
	case h.Docker.API == "":
		return Finding{}
	case info.Podman():
		return found(trouble.Podman, info.Version+", data in "+info.RootDir)
	case info.Snap():
		return found(trouble.Snap, "data in "+info.RootDir)
	// In WSL, Docker Desktop passes GPUs on.
	case info.Desktop() && !h.GPU.Machine.WSL:
		return found(trouble.Desktop, info.System)
	case info.Rootless():
		return found(trouble.Rootless, "data in "+info.RootDir)
	case !h.Docker.Local:
		return found(trouble.RemoteDocker, h.Docker.Address)
	}
	return fine("this machine's own, data in " + info.RootDir)
}
