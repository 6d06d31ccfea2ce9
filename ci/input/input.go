// Package input says what all kinds of locked inputs have in common. An input is
// something that an image is made from and that isn't among the files of its build
// context: Debian packages, a Go toolchain, a tarball. What is wanted and what is
// locked stand in files of the checkout; what they stand for is made into one
// archive beside the context, which the Dockerfile adds.
//
// Each kind has a package of its own, which is all that knows of it. A project
// lists those that its image is made from.
package input

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// ErrPinsDiffer is in the chain of errors about a lock that isn't what is asked for.
var ErrPinsDiffer = errors.New("pins differ")

// An Input is something that an image is made from, of one kind. Paths that it
// names are relative to the root of the project's checkout and have slashes.
type Input interface {
	// Name is that of the archive in the build context, such as "rootfs.tar".
	Name() string

	// Read reads the lock.
	Read(root string) (Locked, error)

	// Check returns an error that wraps ErrPinsDiffer unless the lock is what the
	// checkout asks for. It asks nobody else.
	Check(root string) error

	// Pin resolves what the checkout asks for as it is available now. It writes nothing.
	Pin(ctx context.Context, root string, o Options) (Pinned, error)
}

// Locked is an input as one lock has it.
type Locked interface {
	// Hash identifies what Make makes.
	Hash() string

	// Make makes the archive, unless it is an entry of the folder already, and
	// returns its path.
	Make(ctx context.Context, o Options) (Made, error)
}

// Dated is a Locked that gives an image its date. The newest of a project's inputs
// counts: the commit fixes it, also in a shallow clone or an archive of the sources.
type Dated interface {
	Locked
	Date() time.Time
}

// A Keeper is a Locked that is made from files of which some are gone when whoever serves
// them drops them: no service keeps them.
type Keeper interface {
	Locked

	// Unkept returns the paths of these files, which are fetched if need be, by names with
	// slashes under which they can be served again.
	Unkept(ctx context.Context, o Options) (map[string]string, error)
}

// Listed is a Locked that knows the files that it is made from, for the list of what is in
// an image.
type Listed interface {
	Locked
	Files() []File
}

// A File is one that a lock names.
type File struct {
	Kind         string // type of its package URL, such as deb
	Name         string // of the package
	Version      string
	Architecture string // "" where there is none
	SHA256       string // hex
	URL          string // where it is permanently, else where it was found
}

// Pinned is what Pin returns.
type Pinned struct {
	Locked
	Files   map[string][]byte // the lock, and whatever else is to be written, by path
	Changes []string          // from the lock that there is, a line each
	Items   []Item            // all that the lock has; none of an input that has no such parts
}

// An Item is a part of a lock, such as a package.
type Item struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// An Explainer is an Input that can tell why something is in it.
type Explainer interface {
	Input

	// Why returns how a package comes into the lock that Pin would make: the package, what
	// brings it, what brings that, up to the wish. None is returned for a package that
	// wouldn't be locked.
	Why(ctx context.Context, root, name string, o Options) (chain []string, err error)
}

// Options are what making and pinning take.
type Options struct {
	Cache  cache.Dir          // for temporary files, and for what is fetched
	Folder string             // where archives are kept, as entries of the cache (see cache.Keep)
	Pinned map[string][]byte  // when pinning: what the inputs before this one are about to write, by path
	Locked bool               // refuse what differs from the lock, even if what is locked is gone
	Report *progress.Reporter // may be nil
}

// Keep returns the path of the archive of that name in the folder, which is checked
// against the checksum that it had when it was kept. If there is none, write makes it.
func (o Options) Keep(name string, write func(io.Writer) error) (path string, err error) {
	name = filepath.Join(o.Folder, name)
	if path, err = cache.Find(name); path != "" || err != nil {
		return path, err
	}
	temp, remove, err := o.Cache.Temp("input")
	if err != nil {
		return "", err
	}
	defer remove()
	return cache.Keep(name, temp, 0o644, write)
}

// Made is what Make returns.
type Made struct {
	Path  string   // of the archive, which may be compressed in any way that ADD undoes
	Drift []string // in what it differs from the lock, since what is locked is gone
}
