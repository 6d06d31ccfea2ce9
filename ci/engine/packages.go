package engine

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/progress"
)

// packages fetches the locked packages of the engine's image and unpacks them to
// a tar archive in temp.
func (b *builder) packages(ctx context.Context, temp string) (rootfs string, err error) {
	lock, err := debian.ReadLock(lockFile(b.Root))
	if err != nil {
		return "", err
	}
	packages, err := debian.Fetch(ctx, lock, debian.FetchOptions{
		PinOptions: debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: b.Report}, Cache: b.Cache,
	})
	if err != nil {
		return "", err
	}
	for _, d := range packages.Drift {
		b.Report.Printf("The engine's image drifts from its lock: %s", d)
	}
	return debian.RootfsFile(ctx, filepath.Join(temp, "rootfs.tar"), packages, lock.Snapshot, temp, b.Report)
}

// Resolve resolves packages.toml against the archive as it is now, and returns the
// file of the lock, the lock that belongs there, and what changed. It writes nothing.
func Resolve(ctx context.Context, root string, report *progress.Reporter) (file string, lock debian.Lock, changes []debian.Change, err error) {
	file = lockFile(root)
	manifest, err := debian.ReadManifest(manifestFile(root))
	if err != nil {
		return file, lock, nil, err
	}
	old, err := debian.ReadLock(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return file, lock, nil, err
	}
	lock, err = debian.Pin(ctx, manifest, old, debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: report})
	return file, lock, debian.Diff(old, lock), err
}

// CheckPins fails with debian.ErrPinsDiffer unless packages.lock is what
// packages.toml asks for. It asks no archive.
func CheckPins(root string) error { return debian.CheckFiles(manifestFile(root), lockFile(root)) }

func manifestFile(root string) string { return filepath.Join(root, "ci", "engine", "packages.toml") }

func lockFile(root string) string { return filepath.Join(root, "ci", "engine", "packages.lock") }
