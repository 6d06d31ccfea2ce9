package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/internal/advice"
)

// gate is the lock that is held while names come into the folder: numbers are
// given out one by one, and a pipe that isn't open yet isn't taken for a dead
// process's.
const gate = "gate"

// lockPrefix begins the names of the GPUs' locks.
const lockPrefix = "gpu."

// uuids are NVIDIA's ("GPU-…", "MIG-…"; those of old drivers' MIG instances have
// slashes in them), and what may safely be a file's name. A repetition counted in
// the expression would cost every command a millisecond at its start.
var uuids = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9/_.-]*$`)

func isUUID(s string) bool { return len(s) <= 128 && uuids.MatchString(s) }

func lockName(uuid string) string { return lockPrefix + strings.ReplaceAll(uuid, "/", "_") }

// openLock opens a file that is there to be locked, and makes it if it is missing.
// To read is enough for a lock, so nobody needs to write to another's file. Whatever
// somebody has put in its place, what was there is never changed, no link is followed,
// and no pipe's other end waited for. (A hard link may be anybody's file: locking it
// does it no harm.)
func (b Book) openLock(name string) (*os.File, error) {
	const flags = os.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	path := b.path(name)
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		f, err := os.OpenFile(path, flags, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o644); err == nil {
				err = f.Chmod(0o644) // whatever the umask
			}
		}
		switch {
		case errors.Is(err, fs.ErrExist): // somebody else has just made it
			continue
		case errors.Is(err, fs.ErrPermission) && time.Now().Before(late): // and it has no mode yet
			continue
		}
		if err == nil {
			err = regular(f)
		}
		if err != nil {
			f.Close()
			return nil, b.foul(name, err)
		}
		return f, nil
	}
}

// regular is an error if an open file isn't a regular one.
func regular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("it isn't a regular file")}
	}
	return err
}

// foul is the error about a lock's file that can't be used.
func (b Book) foul(name string, err error) error {
	if info, e := os.Lstat(b.path(name)); e == nil {
		err = fmt.Errorf("%w (it belongs to user %d)", err, owner(info))
	}
	return advice.With(fmt.Errorf("leasing GPUs: %w", err), "If that file isn't as Berth makes it, its owner or root may remove it; "+
		"or name another folder in %s.", envFolder)
}

// tryLock returns the lock of that name, or nil if somebody else has it.
func (b Book) tryLock(name string) (*os.File, error) {
	for {
		f, err := b.openLock(name)
		if err != nil {
			return nil, err
		}
		held, err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil || !held {
			f.Close()
			return nil, b.explain(err)
		}
		if b.named(f, name) {
			return f, nil
		}
		f.Close() // the file was removed meanwhile: others would lock another one
	}
}

// enter waits until it has the gate, and returns the function that leaves it.
func (b Book) enter(ctx context.Context) (leave func(), err error) {
	for {
		f, err := b.openLock(gate)
		if err != nil {
			return nil, err
		}
		if err := b.await(ctx, f, unix.LOCK_EX); err != nil {
			return nil, err
		}
		if b.named(f, gate) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

// keep locks the folder itself, together with whoever else does, until the file that it
// returns is closed. In /tmp, systemd-tmpfiles removes what is as old as a long launch,
// also locks that are held, but nothing of a folder that it can't lock for itself
// (tmpfiles.d(5)).
func (b Book) keep(ctx context.Context) (*os.File, error) {
	for {
		f, err := os.OpenFile(b.dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, fmt.Errorf("leasing GPUs: %w", err)
		}
		if err := b.await(ctx, f, unix.LOCK_SH); err != nil {
			return nil, err
		}
		if b.named(f, ".") {
			return f, nil
		}
		f.Close()
	}
}

// await waits for the lock of an open file, and closes that if it fails or ctx ends.
func (b Book) await(ctx context.Context, f *os.File, how int) error {
	locked := make(chan error, 1)
	go func() {
		_, err := flock(f, how)
		locked <- err
	}()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
		}
		return b.explain(err)
	case <-ctx.Done():
		go func() {
			<-locked
			f.Close()
		}()
		return context.Cause(ctx)
	}
}

// flock is flock(2). It reports whether the lock was taken.
func flock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

func (b Book) explain(err error) error {
	return advice.With(err, "The leases of GPUs need locks: name a folder on a local disk in %s.", envFolder)
}

// named reports whether an open file is still the one of its name.
func (b Book) named(f *os.File, name string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(b.path(name))
	return err == nil && os.SameFile(open, there)
}
