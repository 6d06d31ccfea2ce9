package ci

import (
	"context"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// Clean removes what killed commands left: temporary folders, containers, ephemeral
// engines with their state, images without a name. It goes by Berth's own records
// alone, so that what is in use, and what isn't Berth's, stays.
func Clean(ctx context.Context) (owned.SweepResult, error) {
	dir, err := cache.Open() // removes temporary folders
	if err != nil {
		return owned.SweepResult{}, err
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return owned.SweepResult{}, err
	}
	defer docker.Close()
	swept, err := owned.Sweep(ctx, dir, docker, true)
	if err != nil {
		return swept, err
	}
	return swept, owned.RemoveUntaggedImages(ctx, dir, docker)
}
