package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/berthdev/berth/internal/cache"
)

// errDiffers is in the chain of the error about a file that is there already and isn't the package's.
var errDiffers = errors.New("is there already, with other content")

// extract writes the regular files that a fetched package has below a folder
// ("usr/share/…") into dir, each whole or not at all, and returns their paths
// relative to it. Files that are there already with the same content stay; if any
// has other content, nothing is written. temp is a folder for temporary files.
func extract(f Fetched, folder, dir, temp string) (names []string, err error) {
	u, err := unpackDeb(f.Path, temp)
	if err != nil {
		return nil, fmt.Errorf("unpacking package %s: %w", f, err)
	}
	defer u.close()
	missing := map[string]dataEntry{} // by the path that they are written to
	var differ []error
	for _, e := range u.entries {
		name, err := place(e.header.Name)
		if err != nil {
			return nil, fmt.Errorf("unpacking package %s: %w", f, err)
		}
		rel, below := strings.CutPrefix(name, path.Clean(folder)+"/")
		if !below || e.header.Typeflag != tar.TypeReg {
			continue
		}
		names = append(names, rel)
		target := filepath.Join(dir, filepath.FromSlash(rel))
		same, err := sameContent(target, u.content(e), e.header.Size)
		if errors.Is(err, fs.ErrNotExist) {
			missing[target] = e
		} else if err != nil {
			return nil, err
		} else if !same {
			differ = append(differ, fmt.Errorf("%s %w", target, errDiffers))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("package %s has no files in /%s", f, folder)
	}
	if len(differ) > 0 {
		return nil, fmt.Errorf("package %s would overwrite files of yours, so nothing was written:\n%w\n"+
			"Move them away, or choose another folder", f, errors.Join(differ...))
	}
	for target, e := range missing {
		if err := cache.WriteStream(target, u.content(e), 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// content reads what a regular file of the package has in it.
func (u *unpackedDeb) content(e dataEntry) io.Reader {
	return io.NewSectionReader(u.data, e.offset, e.header.Size)
}

// sameContent reports whether a file has the content and nothing else.
func sameContent(name string, content io.Reader, size int64) (bool, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return false, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if info, err = os.Stat(name); err != nil {
			return false, nil // a link to nowhere is somebody's, too
		}
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return false, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	have, want := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(content, want)
		if m, _ := io.ReadFull(f, have[:n]); m != n || !bytes.Equal(have[:m], want[:n]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return true, nil
		} else if err != nil {
			return false, err
		}
	}
}
