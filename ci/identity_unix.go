//go:build unix

package ci

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// identify returns the identity of the file at a path.
func identify(name string) (identity, error) {
	var s unix.Stat_t
	if err := unix.Lstat(name, &s); err != nil {
		return identity{}, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return identity{Size: s.Size, Modified: s.Mtim.Nano(), Changed: s.Ctim.Nano(), Inode: s.Ino}, nil
}
