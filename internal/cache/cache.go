// Package cache keeps what Berth can make again: downloads, root file systems,
// canonical layers, compiled tools. It knows paths, locks and temporary
// folders, not what lies in them.
package cache

import (
	"bytes"
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
)

// A Dir is the folder that the cache lies in.
type Dir string

// Open returns $BERTH_CACHE or, without it, berth in the user's cache folder
// ($XDG_CACHE_HOME, ~/.cache on Linux), made if it is missing. What killed
// processes left in its temporary folder is removed.
func Open() (Dir, error) {
	root := os.Getenv("BERTH_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("looking for a cache folder: %w. Name one in BERTH_CACHE", err)
		}
		root = filepath.Join(user, "berth")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	d := Dir(root)
	if err := os.MkdirAll(d.Path("tmp"), 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	return d, d.sweep()
}

// Path joins names below the cache folder.
func (d Dir) Path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Lock waits until no other process holds the lock of that name, and returns
// the function that gives it back. The kernel gives it back when a process dies.
// waiting, which may be nil, is called once if there is a wait.
func (d Dir) Lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(d.Path("locks"), 0o755); err != nil {
		return nil, err
	}
	l := flock.New(d.Path("locks", name))
	held, err := l.TryLock()
	if err == nil && !held {
		if waiting != nil {
			waiting()
		}
		_, err = l.TryLockContext(ctx, 20*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for the lock %s: %w", l.Path(), err)
	}
	return func() { l.Unlock() }, nil
}

// Temp makes a folder for one piece of work, on the cache's own file system so
// that results can be renamed into place, and returns the function that removes
// it. If the process is killed, the next Open removes it.
func (d Dir) Temp(prefix string) (path string, remove func(), err error) {
	for {
		path, err = os.MkdirTemp(d.Path("tmp"), prefix+"-")
		if err != nil {
			return "", nil, err
		}
		// The lock beside the folder says that its owner lives.
		l := flock.New(path + ".lock")
		held, err := l.TryLock()
		if err != nil {
			os.Remove(path)
			return "", nil, err
		}
		// Between the making of the lock's file and the locking, another process
		// may have taken both for a dead one's.
		if _, err := os.Stat(path); held && err == nil {
			return path, func() {
				os.RemoveAll(path)
				os.Remove(l.Path())
				l.Unlock()
			}, nil
		}
		l.Unlock()
	}
}

// sweep removes the temporary folders whose owners are dead.
func (d Dir) sweep() error {
	entries, err := os.ReadDir(d.Path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := d.Path("tmp", e.Name())
		if filepath.Ext(path) == ".lock" {
			path = path[:len(path)-len(".lock")]
		} else if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < time.Minute {
			// Just made: its owner may not have locked it yet.
			if _, err := os.Stat(path + ".lock"); errors.Is(err, fs.ErrNotExist) {
				continue
			}
		}
		l := flock.New(path + ".lock")
		if held, err := l.TryLock(); err != nil || !held {
			continue
		}
		os.RemoveAll(path)
		os.Remove(l.Path())
		l.Unlock()
	}
	return nil
}

// Use says whether there is a file or folder of that path in a cache, and notes
// that it is used, for Prune, to within a day: to the engine, a file of a build's
// context with another time is another file, which it asks for anew.
func Use(path string) bool {
	info, err := os.Stat(path)
	if now := time.Now(); err == nil && now.Sub(info.ModTime()) > 24*time.Hour {
		err = os.Chtimes(path, now, now)
	}
	return err == nil
}

// Prune removes what lies in the named folders of the cache and was neither made
// nor used for so long.
func (d Dir) Prune(unused time.Duration, folders ...string) error {
	for _, folder := range folders {
		entries, err := os.ReadDir(d.Path(folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > unused {
				if err := os.RemoveAll(d.Path(folder, e.Name())); err != nil {
					return fmt.Errorf("removing what wasn't used for long: %w", err)
				}
			}
		}
	}
	return nil
}

// Make makes a file whole or not at all, by way of temp, a folder that Temp
// returned: where the process is killed, the next Open removes what there is.
func Make(path, temp string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(temp, filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// WriteFile writes a file whole or not at all: readers see the old content or
// the new, also after a crash.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return WriteStream(path, bytes.NewReader(data), mode)
}

// WriteStream writes what it reads to a file, like WriteFile.
func WriteStream(path string, r io.Reader, mode fs.FileMode) error {
	return Write(path, mode, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// Write makes a file of what write writes, like WriteFile. Half a file that a
// killed process left beside it is removed.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"-"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := sweepParts(dir, prefix); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, prefix+"*"+partSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// partSuffix ends the names of files that are being written, and of nobody else's.
const partSuffix = ".berth-part"

// partAge is how long nothing is added to a half file before its writer is taken
// for dead. A lock would tell for certain, but Windows lets nobody write to a file
// that another handle has locked.
const partAge = 10 * time.Minute

// sweepParts removes half files whose writers are dead.
func sweepParts(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !strings.HasSuffix(e.Name(), partSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > partAge {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}
