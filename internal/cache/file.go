package cache

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Keep makes an entry of the cache, whole or not at all and lasting, by way of
// temp, a folder that Temp or Claim made. It returns the entry's path: that of its
// name, with the SHA-256 of its content before the extension, by which Find tells
// whether the entry is still what was written.
func Keep(name, temp string, mode fs.FileMode, write func(io.Writer) error) (path string, err error) {
	f, err := os.CreateTemp(temp, "entry-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	sum := sha256.New()
	if err := errors.Join(write(io.MultiWriter(f, sum)), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	base, extension := cutExtension(name)
	path = base + "." + hex.EncodeToString(sum.Sum(nil)) + extension
	return path, errors.Join(os.Rename(f.Name(), path), Sync(filepath.Dir(path)))
}

// Find returns the path of the entry that Keep made under a name, or "" if there
// is none. It reads the entry: one that isn't what was written is removed. That the
// entry is used is noted for Prune.
func Find(name string) (path string, err error) {
	base, extension := cutExtension(name)
	entries, err := os.ReadDir(filepath.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), filepath.Base(base)+".")
		want, whole := strings.CutSuffix(rest, extension)
		if !ours || !whole || len(want) != hex.EncodedLen(sha256.Size) {
			continue
		}
		path := filepath.Join(filepath.Dir(name), e.Name())
		have, err := sumOf(path)
		if err != nil {
			return "", fmt.Errorf("checking an entry of the cache: %w", err)
		}
		if have == want {
			Use(path)
			return path, nil
		}
		if err := os.Remove(path); err != nil {
			return "", fmt.Errorf("removing a damaged entry of the cache: %w", err)
		}
	}
	return "", nil
}

// cutExtension splits a path at the first dot of its last part.
func cutExtension(path string) (base, extension string) {
	dir, name := filepath.Split(path)
	stem, extension, found := strings.Cut(name, ".")
	if found {
		extension = "." + extension
	}
	return dir + stem, extension
}

// sumOf returns the SHA-256 of a file's content, in hex.
func sumOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// WriteRecord writes a small value to a file, with a checksum, whole or not at
// all. v goes through JSON.
func WriteRecord(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFile(name, fmt.Appendf(nil, "%x\n%s\n", sha256.Sum256(data), data), 0o600)
}

// ReadRecord reads what WriteRecord wrote into v, and reports whether it was
// there and undamaged.
func ReadRecord(name string, v any) bool {
	content, err := os.ReadFile(name)
	if err != nil {
		return false
	}
	sum, data, _ := bytes.Cut(content, []byte{'\n'})
	data, ended := bytes.CutSuffix(data, []byte{'\n'})
	return ended && fmt.Sprintf("%x", sha256.Sum256(data)) == string(sum) && json.Unmarshal(data, v) == nil
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

// A part is a file that is being written, in whatever folder. It is noted in a
// claim, so that half a file of a killed process is removed.
type part struct {
	Part string `json:"part"`
}

// partSuffix ends the names of parts, after 16 random hex digits.
const partSuffix = ".berth-part"

// Write makes a file of what write writes, like WriteFile. A symbolic link stays,
// and the file that it leads to is written. What isn't a regular file, such as a
// device or a pipe, is written to and not replaced.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	store, err := Open()
	if err != nil {
		return err
	}
	claim, err := store.Claim("write")
	if err != nil {
		return err
	}
	defer claim.Release()
	var random [8]byte
	rand.Read(random[:])
	temp := filepath.Join(dir, "."+hex.EncodeToString(random[:])+partSuffix)
	if err := claim.Note(part{temp}, false); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(temp, path), Sync(dir))
}

// resolve follows a path that is a symbolic link to what it leads to, whether
// that exists or not.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	for range 40 { // as many as Linux follows
		target, lerr := os.Readlink(path)
		if lerr != nil {
			return path, err // no link, or nothing
		}
		if !filepath.IsAbs(target) {
			// Above a folder that is a link itself is what is above the one that it leads to.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", err
			}
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: errors.New("too many levels of symbolic links")}
}
