package doctor

import (
	"fmt"

	"github.com/berthdev/berth/internal/trouble"
)

// docker is whether a daemon answers this user.
func docker(h Host) Finding {
	d := h.Docker
	if d.API != "" {
		return fine(fmt.Sprintf("version %s at %s (API %s)", d.Info.Version, d.Address, d.API))
	}
	switch row := d.Row; {
	case row == nil:
		return found(trouble.DockerStopped, d.Err)
	case row == trouble.DockerStopped && !d.Installed && h.Env["DOCKER_HOST"] == "":
		return found(trouble.NoDocker, d.Err)
	case row == trouble.DockerPermission && h.User.DockerGroup && !h.User.InDocker:
		return found(trouble.DockerLogin, d.Err)
	default:
		return found(row, d.Err)
	}
}
