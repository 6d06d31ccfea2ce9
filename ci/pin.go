package ci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Pin resolves the packages that the project wants, and those around the engine,
// against the archive as it is now, and takes the newest release of the Go version
// in go.mod. It writes their locks and, with them, the digest of the image's base
// stage, and returns what changed. It writes all or, on an error, nothing.
func Pin(ctx context.Context, p Project, report *progress.Reporter) (changes []string, err error) {
	manifest, err := debian.ReadManifest(p.Path(p.Packages))
	if err != nil {
		return nil, err
	}
	old, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	engineFile, engineLock, engineChanges, err := engine.Resolve(ctx, p.Root, report)
	if err != nil {
		return nil, err
	}
	lock, err := debian.Pin(ctx, manifest, old, debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: report})
	if err != nil {
		return nil, err
	}
	toolchain, moved, err := pinGo(ctx, p, report)
	if err != nil {
		return nil, err
	}
	in, err := inputsOf(p, lock, toolchain)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{engineFile: engineLock.Marshal(), p.Path(p.Lock): lock.Marshal()}
	if p.BaseDigest != "" {
		digest, _, err := baseDigest(ctx, p, in, report)
		if err != nil {
			return nil, err
		}
		files[p.Path(p.BaseDigest)] = baseRecord{digest, lock.Hash()}.marshal()
	}
	if p.GoLock != "" {
		files[p.Path(p.GoLock)] = toolchain.Marshal()
	}
	if err := writeFiles(files); err != nil {
		return nil, err
	}
	for _, c := range append(debian.Diff(old, lock), engineChanges...) {
		changes = append(changes, c.String())
	}
	return append(changes, moved...), nil
}

// writeFiles writes files, by path, or puts back those that it has written.
func writeFiles(files map[string][]byte) (err error) {
	undo := []func() error{}
	defer func() {
		if err == nil {
			return
		}
		for _, step := range undo {
			err = errors.Join(err, step())
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		before, err := os.ReadFile(name)
		restore := func() error { return cache.WriteFile(name, before, 0o644) }
		if errors.Is(err, fs.ErrNotExist) {
			restore = func() error { return os.Remove(name) }
		} else if err != nil {
			return err
		}
		if err := cache.WriteFile(name, files[name], 0o644); err != nil {
			return fmt.Errorf("%w. The locks stay as they were", err)
		}
		undo = append(undo, restore)
	}
	return nil
}

// pinGo returns the toolchain to lock, and what changed, if the project compiles Go.
func pinGo(ctx context.Context, p Project, report *progress.Reporter) (t golang.Toolchain, changes []string, err error) {
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
	if t, err = golang.Newest(ctx, wanted, temp, report); err != nil {
		return golang.Toolchain{}, nil, err
	}
	if old, err := golang.ReadLock(p.Path(p.GoLock)); err != nil || old != t {
		changes = append(changes, fmt.Sprintf("go %s -> %s", cmp.Or(old.Version, "(none)"), t.Version))
	}
	return t, changes, nil
}

// CheckPins fails with debian.ErrPinsDiffer unless the locks are what their
// packages.toml ask for, and the digest of the base stage was made from them. It asks
// no archive and builds nothing.
func CheckPins(p Project) error {
	return errors.Join(debian.CheckFiles(p.Path(p.Packages), p.Path(p.Lock)), engine.CheckPins(p.Root), checkGo(p), checkBaseRecord(p))
}

// checkBaseRecord fails if the file of the base stage's digest is missing or damaged,
// or of another lock than the one beside it.
func checkBaseRecord(p Project) error {
	if p.BaseDigest == "" {
		return nil
	}
	lock, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil {
		return nil // said already
	}
	r, err := readBaseRecord(p)
	if err != nil {
		return err
	}
	if r.lock != "" && r.lock != lock.Hash() {
		return fmt.Errorf("%w: %s is the digest of a base stage with other packages than %s locks. Type\n\tgo tool mage pin",
			debian.ErrPinsDiffer, p.BaseDigest, p.Lock)
	}
	return nil
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
		return fmt.Errorf("%w: go.mod is for Go %s, but %s locks %s. Type\n\tgo tool mage pin", debian.ErrPinsDiffer, wanted, p.GoLock, t.Version)
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
	r, err := readBaseRecord(p)
	return r.digest, err
}

// A baseRecord is what the file of the base stage's digest says.
type baseRecord struct {
	digest string
	lock   string // hash of the lock that the stage was built from; "" in older files
}

func (r baseRecord) marshal() []byte { return fmt.Appendf(nil, "%s\nlock %s\n", r.digest, r.lock) }

func readBaseRecord(p Project) (baseRecord, error) {
	data, err := os.ReadFile(p.Path(p.BaseDigest))
	if errors.Is(err, fs.ErrNotExist) {
		return baseRecord{}, fmt.Errorf("%w: the digest of the base stage isn't recorded: %w. Type\n\tgo tool mage pin",
			debian.ErrPinsDiffer, err)
	} else if err != nil {
		return baseRecord{}, err
	}
	r, err := parseBaseRecord(string(data))
	if err != nil {
		return baseRecord{}, fmt.Errorf("reading %s: %w. Take the file from version control again, or type\n\tgo tool mage pin",
			p.Path(p.BaseDigest), err)
	}
	return r, nil
}

func parseBaseRecord(text string) (r baseRecord, err error) {
	first, second, _ := strings.Cut(strings.TrimSpace(text), "\n")
	d, err := v1.NewHash(strings.TrimSpace(first))
	if err != nil {
		return r, fmt.Errorf("%q is no digest", first)
	}
	r.digest = d.String()
	if second == "" {
		return r, nil
	}
	words := strings.Fields(second)
	if len(words) != 2 || words[0] != "lock" {
		return r, fmt.Errorf("%q isn't a line with the hash of a lock", second)
	}
	r.lock = words[1]
	return r, nil
}
