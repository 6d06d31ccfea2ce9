package golang

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
)

// Input is golang.tar: a locked Go toolchain, and the modules that packages of the
// checkout import.
type Input struct {
	Packages []string // of the checkout, as go build takes them
	Tests    bool     // the modules that the packages' tests import, too
	Cgo      []string // build tags with which the packages are compiled by cgo, too: the modules that they import then
	Lock     string   // of the toolchain; docker/golang.lock if empty
}

var _ input.Input = Input{}

func (i Input) lock() string { return cmp.Or(i.Lock, "docker/golang.lock") }

// Path is that of the lock, below a checkout's root.
func (i Input) Path(root string) string { return filepath.Join(root, filepath.FromSlash(i.lock())) }

// Name implements input.Input.
func (i Input) Name() string { return "golang.tar" }

// Read implements input.Input.
func (i Input) Read(root string) (input.Locked, error) {
	t, err := ReadLock(i.Path(root))
	if err != nil {
		return nil, err
	}
	return i.program(root, t)
}

// program is the input with a toolchain. Which modules there are depends on go.mod
// and go.sum, which the build context needn't have.
func (i Input) program(root string, t Toolchain) (locked, error) {
	l := locked{Program: Program{Root: root, Packages: i.Packages, Tests: i.Tests, Cgo: i.Cgo, Toolchain: t}}
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%q\n", Recipe, t, i.Packages)
	if i.Tests {
		fmt.Fprintln(h, "tests")
	}
	if len(i.Cgo) > 0 {
		fmt.Fprintf(h, "cgo %q\n", i.Cgo)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
		fmt.Fprintf(h, "%x\n", sha256.Sum256(data))
	}
	l.hash = hex.EncodeToString(h.Sum(nil))
	return l, nil
}

// Check implements input.Input.
func (i Input) Check(root string) error {
	wanted, err := Wanted(filepath.Join(root, "go.mod"))
	if err != nil {
		return err
	}
	t, err := ReadLock(i.Path(root))
	if err != nil {
		return err
	}
	if !t.Suits(wanted) {
		err := fmt.Errorf("%w: go.mod is for Go %s, but %s locks %s", input.ErrPinsDiffer, wanted, i.lock(), t.Version)
		return advice.With(err, "Type\n\t%s pin", advice.Berth)
	}
	return nil
}

// Pin implements input.Input: it takes the newest release of the Go version in go.mod.
func (i Input) Pin(ctx context.Context, root string, o input.Options) (input.Pinned, error) {
	wanted, err := Wanted(filepath.Join(root, "go.mod"))
	if err != nil {
		return input.Pinned{}, err
	}
	temp, remove, err := o.Cache.Temp("golang")
	if err != nil {
		return input.Pinned{}, err
	}
	defer remove()
	t, err := Newest(ctx, wanted, temp, o.Report)
	if err != nil {
		return input.Pinned{}, err
	}
	l, err := i.program(root, t)
	p := input.Pinned{Locked: l, Files: map[string][]byte{i.lock(): t.Marshal()}, Items: []input.Item{{Name: "go", Version: t.Version}}}
	if old, err := ReadLock(i.Path(root)); err != nil || old != t {
		p.Changes = []string{fmt.Sprintf("go %s -> %s", cmp.Or(old.Version, "(none)"), t.Version)}
	}
	return p, err
}

// locked is a program and the hash of what its archive depends on.
type locked struct {
	Program
	hash string
}

func (l locked) Hash() string { return l.hash }

func (l locked) Make(ctx context.Context, o input.Options) (input.Made, error) {
	path, err := File(ctx, l.Program, o.Cache, o.Folder, o.Report)
	return input.Made{Path: path}, err
}
