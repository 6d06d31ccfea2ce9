package ci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/progress"
	"github.com/berthdev/berth/docker/cache"
)

// Pin resolves the packages that the project wants, and those around the engine,
// against the archive as it is now, writes their locks and, with them, the
// digest of the image's base stage. It returns what changed. On an error the
// project's lock and digest stay as they were.
func Pin(ctx context.Context, p Project, report *progress.Reporter) ([]debian.Change, error) {
	manifest, err := debian.ReadManifest(p.Path(p.Packages))
	if err != nil {
		return nil, err
	}
	old, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	engineChanges, err := engine.Pin(ctx, p.Root, report)
	if err != nil {
		return nil, err
	}
	lock, err := debian.Pin(ctx, manifest, old, debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: report})
	if err != nil {
		return nil, err
	}
	in, err := inputsOf(p, lock)
	if err != nil {
		return nil, err
	}
	digest, _, err := baseDigest(ctx, p, in, report)
	if err != nil {
		return nil, err
	}
	if err := lock.WriteFile(p.Path(p.Lock)); err != nil {
		return nil, err
	}
	if err := cache.WriteFile(p.Path(p.BaseDigest), []byte(digest+"\n"), 0o644); err != nil {
		return nil, err
	}
	return append(debian.Diff(old, lock), engineChanges...), nil
}

// CheckPins fails with debian.ErrPinsDiffer unless the locks are what their
// packages.toml ask for. It asks no archive.
func CheckPins(p Project) error {
	manifest, err := debian.ReadManifest(p.Path(p.Packages))
	if err != nil {
		return err
	}
	lock, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil {
		return err
	}
	return errors.Join(debian.Check(manifest, lock), engine.CheckPins(p.Root))
}

// BaseDigest builds the base stage, which depends on the lock and the
// Dockerfile's first part alone, and returns its digest and what drifted from
// the lock.
func BaseDigest(ctx context.Context, p Project, report *progress.Reporter) (digest string, drift []string, err error) {
	in, err := ReadInputs(p)
	if err != nil {
		return "", nil, err
	}
	return baseDigest(ctx, p, in, report)
}

func baseDigest(ctx context.Context, p Project, in Inputs, report *progress.Reporter) (digest string, drift []string, err error) {
	dir, err := cache.Open()
	if err != nil {
		return "", nil, err
	}
	m := maker{project: p, inputs: in, cache: dir, layers: dir.Path("layers"), report: report}
	img, drift, err := m.make(ctx, p.BaseStage, map[string]string{})
	if err != nil {
		return "", nil, err
	}
	d, err := img.Digest()
	return d.String(), drift, err
}

// PinnedBaseDigest is the digest that the checkout promises for its base stage.
func PinnedBaseDigest(p Project) (string, error) {
	data, err := os.ReadFile(p.Path(p.BaseDigest))
	if err != nil {
		return "", fmt.Errorf("%w. Type\n\tgo tool mage pin", err)
	}
	return strings.TrimSpace(string(data)), nil
}
