package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/rootfs"
)

// DefaultHome is the folder of the checkout that $HOME keeps its files in, unless the
// options name another.
const DefaultHome = ".berth/home"

// homeIn is the home in a checkout.
func homeIn(checkout string, o Options) Home {
	h := Home{Checkout: checkout, Path: filepath.Join(checkout, filepath.FromSlash(cmp.Or(o.Home, DefaultHome)))}
	if o.Skeleton != "" {
		h.Skeleton = filepath.Join(checkout, filepath.FromSlash(o.Skeleton))
	}
	return h
}

// check refuses a home or a skeleton that a symbolic link leads to.
func (h Home) check() error {
	if err := unlinked(h.Checkout, h.Path); err != nil || h.Skeleton == "" {
		return err
	}
	return unlinked(h.Checkout, h.Skeleton)
}

// unlinked refuses a path of which a part below the checkout is a symbolic link:
// a container, which may write to the checkout, would choose by it what the next
// launch mounts or reads. A path outside of the checkout, or one that doesn't
// exist, isn't checked.
func unlinked(checkout, path string) error {
	rel, err := filepath.Rel(checkout, path)
	if err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	at := checkout
	for name := range strings.SplitSeq(rel, string(filepath.Separator)) {
		at = filepath.Join(at, name)
		info, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("looking for symbolic links in the checkout: %w", err)
		}
		if info.Mode().Type() == fs.ModeSymlink {
			to, _ := os.Readlink(at)
			return fmt.Errorf("%s is a symbolic link to %s, and Berth follows none in the checkout: a container may have made it. "+
				"If you didn't, find out who did. Then type\n\trm %s", at, to, word(at))
		}
	}
	return nil
}

// seeding is a folder in a home that isn't complete yet: a file is written in
// it, and moved to its place when it is whole.
const seeding = ".berth-seeding"

// seed makes the home if it is missing and, while it isn't in use yet, copies
// the skeleton into it. What is in a home is never overwritten. When it returns,
// the home is complete, also if another launch makes the same one, or if one was
// killed in the middle of it. An existing folder is filled, not replaced: a
// container may have it mounted.
func (h Home) seed(ctx context.Context) error {
	if err := h.check(); err != nil {
		return err
	}
	if err := h.fill(ctx); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("making the home for containers: %w. It must belong to you: sudo chown -R \"$(id -u):$(id -g)\" %s", err, word(h.Path))
	} else if err != nil {
		return fmt.Errorf("making the home for containers: %w", err)
	}
	return nil
}

func (h Home) fill(ctx context.Context) error {
	// Whatever a container does to the checkout meanwhile, a Root can't lead out of
	// it.
	checkout, err := os.OpenRoot(h.Checkout)
	if err != nil {
		return err
	}
	defer checkout.Close()
	path, err := filepath.Rel(h.Checkout, h.Path)
	if err != nil {
		return err
	}
	if err := checkout.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := checkout.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	to, err := checkout.OpenRoot(path)
	if err != nil {
		return err
	}
	defer to.Close()
	if ready, err := isSeeded(to); err != nil || ready {
		return err
	}

	lock := flock.New(h.Path, flock.SetFlag(os.O_RDONLY))
	if held, err := lock.TryLockContext(ctx, 5*time.Millisecond); held {
		defer lock.Unlock()
	} else if ctx.Err() != nil {
		return err
	} // else the file system has no locks, and two first launches at once may disturb each other
	if ready, err := isSeeded(to); err != nil || ready {
		return err // meanwhile, by another launch
	}
	from := rootfs.Skeleton()
	if h.Skeleton != "" {
		path, err = filepath.Rel(h.Checkout, h.Skeleton)
		if err != nil {
			return err
		}
		folder, err := checkout.OpenRoot(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a checkout may do without
		} else if err != nil {
			return err
		}
		defer folder.Close()
		from = folder.FS()
	}
	if err := to.Mkdir(seeding, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := copySkeleton(to, from); err != nil {
		return err
	}
	return to.RemoveAll(seeding)
}

// isSeeded reports whether a home is complete: it has files, and no seeding was cut
// off in it.
func isSeeded(folder *os.Root) (bool, error) {
	entries, err := fs.ReadDir(folder.FS(), ".")
	if err != nil {
		return false, err
	}
	files := 0
	for _, e := range entries {
		switch e.Name() {
		case seeding:
			return false, nil
		case ".gitkeep":
		default:
			files++
		}
	}
	return files > 0, nil
}

// copySkeleton copies files, folders and links, with their modes. What is there
// already stays.
func copySkeleton(to *os.Root, from fs.FS) error {
	return fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			info, err := e.Info()
			if err != nil {
				return err
			}
			return to.MkdirAll(name, info.Mode().Perm()|0o700) // none of the embedded may be written to
		}
		if _, err := to.Lstat(name); err == nil {
			return nil
		}
		switch e.Type() {
		case 0:
			return copyFile(to, from, name)
		case fs.ModeSymlink: // never followed here: in a container it leads to the container's own files
			target, err := fs.ReadLink(from, name)
			if err != nil {
				return err
			}
			return to.Symlink(target, name)
		}
		return fmt.Errorf("%s in the skeleton is neither a file, a folder nor a link. Remove it", name)
	})
}

// copyFile makes a file that is whole as soon as it has its name.
func copyFile(to *os.Root, from fs.FS, name string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	part := filepath.Join(seeding, "part")
	if err := to.RemoveAll(part); err != nil { // of a launch that was killed
		return err
	}
	out, err := to.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o200) // none of the embedded may be written to
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return to.Rename(part, name)
}

// makeMountPoints makes what the mounts that lie within another one are mounted
// on, where it is missing. Docker would make it too, but as root, and in the
// person's own folders. It makes nothing outside of those, whatever links a
// container has left in them.
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
			if err := makeMountPoint(outer.Source, rel, source.IsDir()); err != nil {
				return fmt.Errorf("making the place where %s is to be mounted: %w. If a symbolic link in %s is in the way, remove it, "+
					"or choose another target", inner.Source, err, outer.Source)
			}
		}
	}
	return nil
}

func makeMountPoint(within, path string, folder bool) error {
	root, err := os.OpenRoot(within)
	if err != nil {
		return err
	}
	defer root.Close()
	if folder {
		return root.MkdirAll(path, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return f.Close()
}
