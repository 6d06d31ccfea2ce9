package engine

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/berthdev/berth/ci/debian"
)

// packages fetches the locked packages of the engine's image and unpacks them to
// a tar archive in temp.
func (b *builder) packages(ctx context.Context, temp string) (rootfs string, err error) {
	data, err := fs.ReadFile(b.sources, lockName)
	if err != nil {
		return "", err
	}
	lock, err := debian.ParseLock(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("reading which packages the engine's image has: %w", err)
	}
	packages, err := debian.Fetch(ctx, lock, debian.FetchOptions{
		Options: debian.Options{Mirrors: debian.HostMirrors(), Cache: b.Cache, Progress: b.Report},
	})
	if err != nil {
		return "", err
	}
	for _, d := range packages.Drift {
		b.Report.Printf("The engine's image drifts from its lock: %s", d)
	}
	return debian.RootfsFile(ctx, filepath.Join(temp, "rootfs.tar"), packages, lock.Snapshot, temp, b.Report)
}

// Packages are those of the engine's image, as an input in Berth's own checkout, where
// they are pinned. What builds engines is what was embedded.
var Packages = debian.Input{Manifest: "ci/engine/packages.toml", Lock: "ci/engine/" + lockName}

const lockName = "packages.lock"
