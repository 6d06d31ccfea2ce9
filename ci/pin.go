package ci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Pin resolves the packages that the project wants, and those around the engine,
// against the archive as it is now, and takes the newest release of the Go version
// in go.mod. It writes their locks and, with them, the digest of the image's base
// stage, and returns what changed. On an error the project's locks and digest stay as
// they were.
func Pin(ctx context.Context, p Project, report *progress.Reporter) (changes []string, err error) {
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
	toolchain, moved, err := pinGo(ctx, p)
	if err != nil {
		return nil, err
	}
	in, err := inputsOf(p, lock, toolchain)
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
	if p.GoLock != "" {
		if err := toolchain.WriteFile(p.Path(p.GoLock)); err != nil {
			return nil, err
		}
	}
	for _, c := range append(debian.Diff(old, lock), engineChanges...) {
		changes = append(changes, c.String())
	}
	return append(changes, moved...), nil
}

// pinGo returns the toolchain to lock, and what changed, if the project compiles Go.
func pinGo(ctx context.Context, p Project) (t golang.Toolchain, changes []string, err error) {
	if p.GoLock == "" {
		return golang.Toolchain{}, nil, nil
	}
	wanted, err := golang.Wanted(p.Path("go.mod"))
	if err != nil {
		return golang.Toolchain{}, nil, err
	}
	dir, err := cache.Open()
	if err != nil {
		return golang.Toolchain{}, nil, err
	}
	temp, remove, err := dir.Temp("golang")
	if err != nil {
		return golang.Toolchain{}, nil, err
	}
	defer remove()
	if t, err = golang.Newest(ctx, wanted, temp); err != nil {
		return golang.Toolchain{}, nil, err
	}
	if old, err := golang.ReadLock(p.Path(p.GoLock)); err != nil || old != t {
		changes = append(changes, fmt.Sprintf("go %s -> %s", cmp.Or(old.Version, "(none)"), t.Version))
	}
	return t, changes, nil
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
	return errors.Join(debian.Check(manifest, lock), engine.CheckPins(p.Root), checkGo(p))
}

func checkGo(p Project) error {
	if p.GoLock == "" {
		return nil
	}
	wanted, err := golang.Wanted(p.Path("go.mod"))
	if err != nil {
		return err
	}
	t, err := golang.ReadLock(p.Path(p.GoLock))
	if err != nil {
		return err
	}
	if !t.Suits(wanted) {
		return fmt.Errorf("%w: go.mod is for Go %s, and %s locks %s. Type\n\tgo tool mage pin", debian.ErrPinsDiffer, wanted, p.GoLock, t.Version)
	}
	return nil
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
	m := maker{project: p, inputs: in, cache: dir, entries: string(dir), report: report}
	made, drift, err := m.make(ctx, m.base())
	if err != nil {
		return "", nil, err
	}
	d, err := made[0].Digest()
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
