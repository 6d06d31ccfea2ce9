package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// An entry is one entry of a layer, and where its content lies in the spooled tar.
type entry struct {
	header *tar.Header
	offset int64
}

// readEntries lists a layer's entries, sorted by name, with hard links turned
// so that of the names of one file the first has the content.
func readEntries(spool *os.File) ([]entry, error) {
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	byName := map[string]*entry{}
	r := tar.NewReader(spool)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading its tar: %w", err)
		}
		offset, err := spool.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if err := checkEntry(h); err != nil {
			return nil, err
		}
		name := entryName(h.Name)
		if byName[name] != nil {
			return nil, fmt.Errorf("it has %s twice", h.Name)
		}
		h.Name = name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = entryName(h.Linkname)
		}
		byName[name] = &entry{h, offset}
	}
	names := slices.Sorted(maps.Keys(byName))
	first := map[*entry]string{} // name under which a file's content was listed
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		file := byName[name]
		for hops := 0; file != nil && file.header.Typeflag == tar.TypeLink; hops++ {
			if hops > len(names) {
				return nil, fmt.Errorf("its hard link %s leads to itself", name)
			}
			file = byName[file.header.Linkname]
		}
		if file != byName[name] && file != nil && file.header.Typeflag == tar.TypeDir {
			return nil, fmt.Errorf("its hard link %s leads to the folder %s", name, file.header.Name)
		}
		if file == nil { // a link to a file of a lower layer
			entries = append(entries, *byName[name])
			continue
		}
		h := *file.header
		if content, listed := first[file]; listed {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, content, 0
		} else {
			first[file] = name
		}
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		entries = append(entries, entry{&h, file.offset})
	}
	return entries, nil
}

// checkEntry refuses what can't be carried over as it is: names that lead out
// of the image, and entries whose content isn't stored as one piece.
func checkEntry(h *tar.Header) error {
	names := []string{h.Name}
	if h.Typeflag == tar.TypeLink { // a symbolic link is followed in the container only
		names = append(names, h.Linkname)
	}
	for _, name := range names {
		if slices.Contains(strings.Split(name, "/"), "..") {
			return fmt.Errorf("its entry %s leads out of the image, to %s", h.Name, name)
		}
	}
	sparse := h.Typeflag == tar.TypeGNUSparse
	for k := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
	}
	if sparse {
		return fmt.Errorf("its entry %s is a sparse file, which image layers can't have", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return nil
	default:
		return fmt.Errorf("its entry %s is of type %q, which image layers can't have", h.Name, h.Typeflag)
	}
}

// Undated is the time of files that say that they have none: a layer in which every file
// bears it, folders apart, keeps it, whatever the image's date. So it stays the same layer
// when that date moves. (It is 1980-01-01, the oldest that a zip file can have.)
var Undated = time.Unix(315532800, 0)

// timeOf returns the time that a layer's entries get.
func timeOf(entries []entry, epoch time.Time) time.Time {
	files := slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return e.header.Typeflag == tar.TypeDir })
	if len(files) == 0 || slices.ContainsFunc(files, func(e entry) bool { return !e.header.ModTime.Equal(Undated) }) {
		return epoch
	}
	return Undated
}

// writeEntries writes a tar with the entries' contents from spool.
func writeEntries(ctx context.Context, w io.Writer, spool *os.File, entries []entry, epoch time.Time) error {
	out := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: e.header.Typeflag, Name: e.header.Name, Linkname: e.header.Linkname, Size: e.header.Size,
			Mode: e.header.Mode & 0o7777, Uid: e.header.Uid, Gid: e.header.Gid, ModTime: epoch,
			Devmajor: e.header.Devmajor, Devminor: e.header.Devminor, PAXRecords: xattrs(e.header),
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if _, err := io.Copy(out, &contextReader{ctx, io.NewSectionReader(spool, e.offset, h.Size)}); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return out.Close()
}

// xattrPrefix begins the PAX records that hold extended attributes.
const xattrPrefix = "SCHILY.xattr."

func entryName(name string) string {
	return strings.TrimPrefix(filepath.ToSlash(filepath.Clean("/"+name)), "/")
}
