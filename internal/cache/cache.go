// Package cache keeps what Berth can make again: downloads, root file systems,
// canonical layers, compiled tools. It knows paths, locks, temporary folders and
// checksums, not what lies in them. It removes only what lies in a folder that is
// Berth's by a marker, and has a name and a lock that only Berth gives.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A Dir is the folder that the cache lies in.
type Dir string

// marker is the file by which a folder is Berth's cache. Its name counts, not its
// content, so that damage to it costs nothing.
const marker = ".berth-cache"

const markerText = "This folder is the cache of Berth (https://github.com/berthdev/berth). Everything in it can be made again.\n" +
	"It also has the records of what Berth may remove from Docker: to get rid of that first, type mage clean and mage engine:prune.\n"

// Open returns $BERTH_CACHE or, without it, berth in the user's cache folder
// ($XDG_CACHE_HOME, ~/.cache on Linux), made if it is missing, for its owner alone.
// A folder with other people's or other programs' files in it is refused, and left
// as it is. What killed processes left in the temporary folder is removed, unless
// they had noted something outside of it (see Claim).
func Open() (Dir, error) {
	root, err := rootOf()
	if err != nil {
		return "", err
	}
	return OpenAt(root)
}

func rootOf() (string, error) {
	root := os.Getenv("BERTH_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("looking for a cache folder: %w. Name one in BERTH_CACHE", err)
		}
		root = filepath.Join(user, "berth")
	}
	return filepath.Abs(root)
}

// Look returns the folder that Open would, and the error, as far as that can be told
// without changing anything.
func Look() (Dir, error) {
	root, err := rootOf()
	if err != nil {
		return "", err
	}
	d := Dir(root)
	info, err := os.Stat(root)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil // Open makes it
	} else if err != nil {
		return d, fmt.Errorf("looking into the cache folder: %w", err)
	}
	if err := d.owned(info); err != nil || d.adopted() {
		return d, err
	}
	entries, err := os.ReadDir(root)
	if err == nil && len(entries) > 0 {
		err = d.foreign(entries[0].Name())
	}
	return d, err
}

// OpenAt is Open for a folder that is named.
func OpenAt(root string) (Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	d := Dir(root)
	if err := d.adopt(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(d.Path("tmp"), 0o700); err != nil {
		return "", fmt.Errorf("making the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	return d, d.sweep()
}

// adopt makes the folder Berth's if it is missing or empty, and refuses it if it
// is anything else than Berth's already.
func (d Dir) adopt() error {
	if d.adopted() {
		return d.private()
	}
	// Not the folders above it: those may be for others to enter.
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o755); err != nil {
		return fmt.Errorf("making the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	if err := os.Mkdir(string(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return fmt.Errorf("looking into the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	// Whoever else has just adopted it made the marker before any other entry.
	if len(entries) > 0 && !d.adopted() {
		return d.foreign(entries[0].Name())
	}
	if err := os.WriteFile(d.Path(marker), []byte(markerText), 0o600); err != nil {
		return fmt.Errorf("making the cache folder: %w. Name another one in BERTH_CACHE", err)
	}
	return d.private()
}

// foreign is the refusal of a folder with other things in it.
func (d Dir) foreign(entry string) error {
	return fmt.Errorf("the folder %s isn't Berth's cache: it has other things in it, %s for one, which stay as they are. "+
		"Name an empty or a new folder in BERTH_CACHE, such as\n\texport BERTH_CACHE=%s", d, entry, d.Path("berth-cache"))
}

// owned refuses a folder that belongs to somebody else.
func (d Dir) owned(info fs.FileInfo) error {
	if owner, ok := ownerOf(info); ok && owner != os.Geteuid() {
		return fmt.Errorf("the cache folder %s belongs to user %d, and you are user %d. Name a folder of your own in BERTH_CACHE", d, owner,
			os.Geteuid())
	}
	return nil
}

// adopted reports whether the folder has the marker.
func (d Dir) adopted() bool {
	info, err := os.Lstat(d.Path(marker))
	return err == nil && info.Mode().IsRegular()
}

// private closes the folder to everybody but its owner, who must be the caller:
// the files of a checkout that nobody else may read are copied into it.
func (d Dir) private() error {
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if err := d.owned(info); err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := os.Chmod(string(d), 0o700); err != nil {
		return fmt.Errorf("making the cache folder private: %w. Name another one in BERTH_CACHE", err)
	}
	return nil
}

// Path joins names below the cache folder.
func (d Dir) Path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Lock waits until no other process holds the lock of that name, and returns
// the function that gives it back. The kernel gives it back when a process dies.
// waiting, which may be nil, is called once if there is a wait.
func (d Dir) Lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(d.Path("locks"), 0o700); err != nil {
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
		return nil, fmt.Errorf("waiting for the lock %s: %w", l.Path(), explainLock(err))
	}
	return func() { l.Unlock() }, nil
}

// explainLock adds an instruction where the cache's file system has no locks.
func explainLock(err error) error {
	for _, none := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP} {
		if errors.Is(err, none) {
			return fmt.Errorf("%w. The file system of the cache folder has no locks, which Berth can't do without. "+
				"Name a folder on a local disk in BERTH_CACHE", err)
		}
	}
	return err
}

// Temp makes a folder for one piece of work, on the cache's own file system so
// that results can be renamed into place, and returns the function that removes
// it. If the process is killed, the next Open removes it.
func (d Dir) Temp(prefix string) (path string, remove func(), err error) {
	c, err := d.Claim(prefix)
	if err != nil {
		return "", nil, err
	}
	return c.Path(), c.Release, nil
}

// unusedNames are the entries that Prune may remove: every kind of entry is named
// after a hash.
var unusedNames = regexp.MustCompile(`^(context-)?[0-9a-f]{12,}`)

// Use reports whether there is a file or folder of that path in a cache, and notes
// that it is used, for Prune, to within a day: to the engine, a file of a build's
// context with another time is another file, which it asks for again.
func Use(path string) bool {
	info, err := os.Stat(path)
	if now := time.Now(); err == nil && now.Sub(info.ModTime()) > 24*time.Hour {
		err = os.Chtimes(path, now, now)
	}
	return err == nil
}

// Prune removes the entries in the named folders of the cache that were neither
// made nor used for so long. Whatever isn't named as entries are stays.
func (d Dir) Prune(unused time.Duration, folders ...string) error {
	for _, folder := range folders {
		entries, err := os.ReadDir(d.Path(folder))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		for _, e := range entries {
			if !unusedNames.MatchString(e.Name()) {
				continue
			}
			if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > unused {
				if err := os.RemoveAll(d.Path(folder, e.Name())); err != nil {
					return fmt.Errorf("removing what wasn't used for long: %w", err)
				}
			}
		}
	}
	return nil
}

// Sync makes the entries of a folder last through a crash of the machine. A
// file system that doesn't know how to is taken at its word.
func Sync(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
