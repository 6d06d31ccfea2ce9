// Package wheels is the input that gives images Python wheels: wheels.tar. What is
// wanted stands in a pylock.toml (PEP 751), which uv, pip or pdm wrote: nothing is resolved
// here. Of it, pin chooses the wheels for the Python that is locked among the Debian
// packages; pip installs them, in a stage of the Dockerfile that needs no network.
package wheels

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
)

// Recipe changes whenever the same lock gives another archive.
const Recipe = "1"

// Input is wheels.tar. In a project's list it comes after the Debian packages that have
// the Python.
type Input struct {
	Pylock   string   // what is wanted; pylock.toml if empty
	Lock     string   // the chosen wheels; docker/wheels.lock if empty
	Packages string   // lock of the Debian packages that have the Python; docker/packages.lock if empty
	Extras   []string // of the pylock.toml; none by default
	Groups   []string // dependency groups; those that the pylock.toml calls default if nil
}

var _ input.Input = Input{}

func (i Input) pylock() string   { return cmp.Or(i.Pylock, "pylock.toml") }
func (i Input) lock() string     { return cmp.Or(i.Lock, "docker/wheels.lock") }
func (i Input) packages() string { return cmp.Or(i.Packages, "docker/packages.lock") }

func below(root, name string) string { return filepath.Join(root, filepath.FromSlash(name)) }

// Name implements input.Input.
func (Input) Name() string { return "wheels.tar" }

// Read implements input.Input.
func (i Input) Read(root string) (input.Locked, error) {
	l, err := ReadLock(below(root, i.lock()))
	return locked{l, root}, err
}

// Check implements input.Input.
func (i Input) Check(root string) error {
	_, data, err := readPylock(below(root, i.pylock()))
	if err != nil {
		return err
	}
	l, err := ReadLock(below(root, i.lock()))
	if err != nil {
		return err
	}
	packages, err := debian.ReadLock(below(root, i.packages()))
	if err != nil {
		return err
	}
	python, err := PythonOf(packages, i.packages())
	if err != nil {
		return err
	}
	switch {
	case l.Wants != hashPylock(data, i.Extras, i.Groups):
		err = fmt.Errorf("%w: %s isn't what %s asks for", input.ErrPinsDiffer, i.lock(), i.pylock())
	case l.Python != python:
		err = fmt.Errorf("%w: %s is for %s, and %s has %s", input.ErrPinsDiffer, i.lock(), l.Python, i.packages(), python)
	}
	return advice.With(err, "Type\n\t%s pin", advice.Berth)
}

// Pin implements input.Input: it chooses wheels for the Python that the Debian packages
// have, once these are pinned.
func (i Input) Pin(ctx context.Context, root string, o input.Options) (input.Pinned, error) {
	wanted, data, err := readPylock(below(root, i.pylock()))
	if err != nil {
		return input.Pinned{}, err
	}
	packages, err := i.debianLock(root, o)
	if err != nil {
		return input.Pinned{}, err
	}
	l := Lock{Wants: hashPylock(data, i.Extras, i.Groups)}
	if l.Python, err = PythonOf(packages, i.packages()); err != nil {
		return input.Pinned{}, err
	}
	chosen, err := wanted.choose(l.Python, i.Extras, i.Groups, path.Dir(i.pylock()))
	if err != nil {
		return input.Pinned{}, fmt.Errorf("%s: %w", i.pylock(), err)
	}
	old, err := ReadLock(below(root, i.lock()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return input.Pinned{}, err
	}
	if l.Wheels, err = newFetcher(root, o).complete(ctx, i.pylock(), chosen, old); err != nil {
		return input.Pinned{}, err
	}
	p := input.Pinned{Locked: locked{l, root}, Files: map[string][]byte{i.lock(): l.Marshal()}, Changes: diff(old, l)}
	for _, w := range l.Wheels {
		p.Items = append(p.Items, input.Item{Name: w.Name, Version: w.Version})
	}
	return p, nil
}

// debianLock is that of the packages, as it will be when all is pinned.
func (i Input) debianLock(root string, o input.Options) (debian.Lock, error) {
	if data, ok := o.Pinned[i.packages()]; ok {
		return debian.ParseLock(bytes.NewReader(data))
	}
	return debian.ReadLock(below(root, i.packages()))
}

// locked is a lock as an input.Locked.
type locked struct {
	lock Lock
	root string // of the checkout, which may have wheels
}

// Hash implements input.Locked. Where the wheels come from, and for which Python they
// were chosen, changes nothing in what is made of them.
func (l locked) Hash() string {
	sum := sha256.Sum256(append([]byte(Recipe+" "+l.lock.Hash()+"\n"), install...))
	return hex.EncodeToString(sum[:])
}

var _ input.Listed = locked{}

// Files implements input.Listed.
func (l locked) Files() (all []input.File) {
	for _, w := range l.lock.Wheels {
		f := input.File{Kind: "pypi", Name: w.Name, Version: w.Version, SHA256: w.SHA256}
		if !w.local() {
			f.URL = w.URL
		}
		all = append(all, f)
	}
	return all
}

// Make implements input.Locked. While the archive is in use, so are the wheels: without a
// network, nobody else has them.
func (l locked) Make(ctx context.Context, o input.Options) (input.Made, error) {
	f := newFetcher(l.root, o)
	for _, w := range l.lock.Wheels {
		cache.Use(f.path(w.SHA256))
	}
	path, err := o.Keep(l.Hash()+".tar", func(w io.Writer) error {
		paths, err := f.fetchAll(ctx, l.lock.Wheels)
		if err != nil {
			return err
		}
		o.Report.Update("Packing wheels")
		if err := checkCollisions(l.lock, paths); err != nil {
			return err
		}
		return writeTar(ctx, w, l.lock, paths)
	})
	return input.Made{Path: path}, err
}
