package doctor

import (
	"github.com/docker/go-units"

	"github.com/berthdev/berth/internal/trouble"
)

// smallShm is what data loaders of several processes easily fill: Docker's own default is 64 MB.
const smallShm = 1 << 30

// sharedMemory is the machine's /dev/shm, which containers get with -ipc=host alone.
func sharedMemory(h Host) Finding {
	is := units.BytesSize(float64(h.Shm)) + " in /dev/shm, for -ipc=host"
	switch {
	case h.Shm == 0:
		return Finding{}
	case h.Shm < smallShm:
		return found(trouble.SmallShm, is)
	}
	return fine(is)
}
