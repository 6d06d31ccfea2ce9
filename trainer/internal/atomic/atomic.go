// Package atomic replaces files whole or not at all.
package atomic

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile makes write's output the content of the file, through a temporary
// file beside it, under a name that nothing had, that is synced and renamed. If
// anything fails until then, the old file stays as it was and the temporary one is
// removed. Of two writers of one file at the same time, the last one wins.
//
// A symbolic link stays one: what it leads to is replaced. What isn't a regular
// file (a device, a pipe), and what standard output or error already go to, can
// only be written to, and is.
func WriteFile(name string, write func(io.Writer) error) error {
	return writeFile(name, create, write)
}

// Rewrite is WriteFile through name + ".tmp", whatever has that name: for a caller
// that owns it, and where what killed processes left must not pile up.
func Rewrite(name string, write func(io.Writer) error) error {
	return writeFile(name, recreate, write)
}

// Replace is Rewrite for a name that is replaced whatever it is, links too.
// It calls ready when the new content is complete and safe on the disk, under its
// temporary name; if ready fails, nothing is replaced.
func Replace(name string, write func(io.Writer) error, ready func() error) error {
	return replace(name, recreate, write, ready)
}

// A temp makes the temporary file for another one.
type temp func(name string) (*os.File, error)

// create takes a name that nothing has. (A file of os.CreateTemp would be closed to
// other users.)
func create(name string) (f *os.File, err error) {
	for range 100 {
		f, err = os.OpenFile(fmt.Sprintf("%s.%d.tmp", name, rand.Uint32()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	return f, err
}

func recreate(name string) (*os.File, error) {
	return os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
}

func writeFile(name string, temp temp, write func(io.Writer) error) error {
	if f := standard(name); f != nil {
		return write(f)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(f, write), f.Close())
	}
	target, err := resolve(name)
	if err != nil {
		return err
	}
	return replace(target, temp, write, func() error { return nil })
}

func replace(name string, temp temp, write func(io.Writer) error, ready func() error) error {
	f, err := temp(name)
	if err != nil {
		return err
	}
	err = fill(f, write)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = ready()
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(folderOf(name))
}

// fill writes a file, in large pieces.
func fill(f *os.File, write func(io.Writer) error) error {
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := write(buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// Check reports, as an error, why WriteFile could not write the file, as far as
// that can be known before there is anything to write. It leaves nothing behind
// and changes nothing that is there.
func Check(name string) error {
	if standard(name) != nil {
		return nil
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		// It isn't opened: that of a pipe would wait for a reader, that of a device
		// might do anything.
		const writable = 2 // W_OK of access(2)
		switch {
		case info.IsDir():
			err = syscall.EISDIR
		case info.Mode()&fs.ModeSocket != 0:
			err = syscall.ENXIO // what open(2) would give
		default:
			err = syscall.Access(name, writable)
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return nil
	}
	target, err := resolve(name)
	if err != nil {
		return err
	}
	f, err := create(target)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// standard returns standard output or error if that is what the name leads to,
// such as /dev/stdout or a file that a shell redirected it to, else nil. To
// replace or to open it anew would lose what it has already been given.
func standard(name string) *os.File {
	info, err := os.Stat(name)
	if err != nil {
		return nil
	}
	for _, f := range []*os.File{os.Stdout, os.Stderr} {
		if opened, err := f.Stat(); err == nil && os.SameFile(info, opened) {
			return f
		}
	}
	return nil
}

// resolve follows symbolic links to the name of what they lead to, which need not
// be there. Only the last part of a name is followed: the others are the kernel's.
func resolve(name string) (string, error) {
	for range 40 { // as many as Linux follows
		link, err := os.Readlink(name)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) {
			return name, nil // it isn't a link
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			// Joined as text: to clean a/../b is wrong if a is a link.
			folder, _ := filepath.Split(name)
			link = folder + link
		}
		name = link
	}
	return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
}

func folderOf(name string) string {
	if folder, _ := filepath.Split(name); folder != "" {
		return folder
	}
	return "."
}

// syncFolder makes a new name safe on the disk: it is once its folder is. Some
// file systems can't sync a folder, and some folders may be written to but not
// read: the file is complete there all the same.
func syncFolder(folder string) error {
	dir, err := os.Open(folder)
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	err = dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	return errors.Join(err, dir.Close())
}
