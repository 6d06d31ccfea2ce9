// Package atomic replaces files whole or not at all.
package atomic

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// WriteFile makes write's output the content of the file, through a temporary
// file beside it (name + ".tmp") that is synced and renamed. If anything fails
// until then, the old file stays as it was and the temporary one is removed.
// Two writers of one file at the same time are not guarded against.
func WriteFile(name string, write func(io.Writer) error) error {
	temp := name + ".tmp"
	if err := writeSynced(temp, write); err != nil {
		// What could not be created need not be there to remove.
		if rerr := os.Remove(temp); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	// The new name is safe on the disk once its folder is.
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSynced(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	err = write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
