package debian

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/berthdev/berth/internal/cache"
)

// Extract writes the regular files that a fetched package has below a folder
// ("usr/share/…") into dir, each whole or not at all, and returns their paths
// relative to it. temp is a folder for temporary files.
func Extract(f Fetched, folder, dir, temp string) (names []string, err error) {
	u, err := unpackDeb(f.Path, temp)
	if err != nil {
		return nil, fmt.Errorf("unpacking package %s: %w", f, err)
	}
	defer u.close()
	for _, e := range u.entries {
		name, err := place(e.header.Name)
		if err != nil {
			return names, fmt.Errorf("unpacking package %s: %w", f, err)
		}
		rel, below := strings.CutPrefix(name, path.Clean(folder)+"/")
		if !below || e.header.Typeflag != tar.TypeReg {
			continue
		}
		content := io.NewSectionReader(u.data, e.offset, e.header.Size)
		if err := cache.WriteStream(filepath.Join(dir, filepath.FromSlash(rel)), content, 0o644); err != nil {
			return names, err
		}
		names = append(names, rel)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("package %s has no files in /%s", f, folder)
	}
	return names, nil
}
