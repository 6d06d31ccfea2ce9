package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/berthdev/berth/docker/daemon"
)

// seed makes the home if it is missing and, while nobody has lived in it, copies
// the skeleton into it. What is in a home is never overwritten.
func (h Home) seed() error {
	err := os.MkdirAll(filepath.Dir(h.Path), 0o755)
	if err == nil {
		if err = os.Mkdir(h.Path, 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("making the home for containers: %w", err)
	}
	entries, err := os.ReadDir(h.Path)
	if err != nil {
		return fmt.Errorf("looking into the home for containers: %w. It must belong to you: sudo chown -R \"$(id -u):$(id -g)\" %s", err, h.Path)
	}
	for _, e := range entries {
		if e.Name() != ".gitkeep" {
			return nil
		}
	}
	if _, err := os.Stat(h.Skeleton); err != nil {
		return nil // a checkout may do without
	}
	return copyFolder(h.Path, h.Skeleton)
}

// copyFolder copies files and folders, with their modes. It overwrites nothing.
func copyFolder(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	})
}

// makeMountPoints makes what the mounts that lie within another one are mounted
// on, where it is missing. Docker would make it too, but as root, and in the
// person's own folders.
func makeMountPoints(mounts []daemon.Mount) error {
	for _, inner := range mounts {
		for _, outer := range mounts {
			rel, err := filepath.Rel(outer.Target, inner.Target)
			if err != nil || rel == "." || !filepath.IsLocal(rel) || outer.ReadOnly {
				continue
			}
			source, err := os.Stat(inner.Source)
			if err != nil {
				continue // Docker says so
			}
			at := filepath.Join(outer.Source, rel)
			if source.IsDir() {
				err = os.MkdirAll(at, 0o755)
			} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
				var f *os.File
				if f, err = os.OpenFile(at, os.O_CREATE, 0o644); err == nil {
					f.Close()
				}
			}
			if err != nil {
				return fmt.Errorf("making the place where %s is to be mounted: %w", inner.Source, err)
			}
		}
	}
	return nil
}
