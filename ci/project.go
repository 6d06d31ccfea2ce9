// Package ci is the pipeline: it builds the image of a project through Dagger,
// makes it canonical, loads it into Docker, and proves that it is the same bit
// for bit. Its rooms do the work (engine, debian, golang, image); this package puts
// them in order. It prints nothing but progress: what a person sees at the end
// is up to the caller.
package ci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/berthdev/berth/internal/usage"
)

// A Project says what is built. Its paths are relative to Root.
type Project struct {
	Root       string   // the checkout: build context and workspace
	Name       string   // of the image and of its containers
	Dockerfile string   // what is in the image
	Packages   string   // Debian packages that are wanted, with a word on why
	Lock       string   // the same with everything they need, pinned
	BaseStage  string   // stage of the Dockerfile whose digest is pinned beside the lock
	BaseDigest string   // file with that digest
	GoLock     string   // the Go toolchain that the Dockerfile compiles with; "" if it compiles no Go
	GoPackages []string // Go packages of the checkout that it compiles
	Smoke      []string // commands that must work in the image
	Data       DataSet
	Train      string // command that trains in it, to which flags may be added
}

// A DataSet says where a project's data is.
type DataSet struct {
	Package string // a locked Debian package
	Folder  string // with the files, in the package
}

// Path joins a relative path to the project's root.
func (p Project) Path(rel string) string { return filepath.Join(p.Root, filepath.FromSlash(rel)) }

// Tag is the name under which the image is loaded unless another is asked for.
func (p Project) Tag() string { return p.Name + ":latest" }

// FindRoot returns the nearest folder at or above dir that has a magefiles
// folder: the root of the checkout.
func FindRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, "magefiles")); err == nil && info.IsDir() {
			return at, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%w: %s isn't in a checkout of this project: no folder above it has magefiles. Change into the checkout first", usage.Err, dir)
		}
	}
}
