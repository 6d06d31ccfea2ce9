package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// A node is one path of the root file system.
type node struct {
	header  *tar.Header
	content *content // of a regular file; hard links share it
	owner   *unpackedDeb
	isConf  bool // a conffile, which dpkg puts in place when it configures
}

type content struct {
	from   *os.File
	offset int64
	data   []byte // where from is nil
	name   string // under which it was written
}

// A tree is a root file system: nodes by path, with neither leading nor trailing
// slash.
type tree map[string]*node

// merged are the folders of the root that are links into usr.
var merged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

func newTree() tree {
	t := tree{}
	for _, name := range merged {
		t.directory("usr/" + name)
		t[name] = &node{header: &tar.Header{Typeflag: tar.TypeSymlink, Linkname: "usr/" + name, Mode: 0o777}}
	}
	return t
}

// directory makes a folder, and those above it, where there is none.
func (t tree) directory(name string) {
	for ; name != "." && t[name] == nil; name = path.Dir(name) {
		t[name] = &node{header: &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
	}
}

// checkParents fails if a path would be reached through something other than a folder.
func (t tree) checkParents(name string) error {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if above := t[dir]; above != nil && above.header.Typeflag != tar.TypeDir {
			return fmt.Errorf("%s would be written through %s, which isn't a folder", name, dir)
		}
	}
	return nil
}

// place is where a package's path ends up, or an error if it would leave the root.
func place(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(name) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains("/"+name+"/", "/../") {
		return "", fmt.Errorf("its path %q leads out of the root file system", name)
	}
	if first, rest, deeper := strings.Cut(clean, "/"); deeper && slices.Contains(merged, first) {
		return "usr/" + first + "/" + rest, nil
	} else if slices.Contains(merged, clean) {
		return "usr/" + clean, nil
	}
	return clean, nil
}

// addPackage puts a package's files into the tree.
func (t tree) addPackage(u *unpackedDeb) error {
	conffiles := map[string]bool{}
	for _, name := range u.conffiles() {
		name, err := place(strings.TrimPrefix(name, "/"))
		if err != nil {
			return err
		}
		conffiles[name] = true
	}
	mine := map[string]*node{}
	for _, e := range u.entries {
		name, err := place(e.header.Name)
		if err != nil {
			return err
		}
		if name == "." || e.header.Typeflag == tar.TypeSymlink && slices.Contains(merged, path.Clean(e.header.Name)) {
			continue
		}
		n, err := u.node(e, mine)
		if err != nil {
			return err
		}
		n.isConf = conffiles[name]
		mine[name] = n
		if err := t.add(name, n); err != nil {
			return err
		}
	}
	return nil
}

// node makes the node of a data entry. mine has those before it, by path.
func (u *unpackedDeb) node(e dataEntry, mine map[string]*node) (*node, error) {
	n := &node{header: e.header, owner: u}
	switch e.header.Typeflag {
	case tar.TypeReg:
		n.content = &content{from: u.data, offset: e.offset}
	case tar.TypeLink:
		target, err := place(e.header.Linkname)
		if err != nil {
			return nil, err
		}
		file := mine[target]
		if file == nil || file.content == nil {
			return nil, fmt.Errorf("%s is a hard link to %s, which isn't one of its files", e.header.Name, e.header.Linkname)
		}
		n.header, n.content = file.header, file.content
	case tar.TypeDir, tar.TypeSymlink:
	default:
		return nil, fmt.Errorf("%s is a device or a pipe (type %q); packages have none", e.header.Name, e.header.Typeflag)
	}
	return n, nil
}

// add puts one node into the tree. Folders join; a file that is there already
// gives way to that of a package that replaces its owner.
func (t tree) add(name string, n *node) error {
	if err := t.checkParents(name); err != nil {
		return err
	}
	t.directory(path.Dir(name))
	old := t[name]
	switch {
	case old == nil || old.owner == nil && old.header.Typeflag == tar.TypeDir && n.header.Typeflag == tar.TypeDir:
		t[name] = n
	case old.header.Typeflag == tar.TypeDir && n.header.Typeflag == tar.TypeDir:
	case old.owner == nil || old.header.Typeflag == tar.TypeDir || n.header.Typeflag == tar.TypeDir:
		return fmt.Errorf("%s is there already, as something else", name)
	case replaces(n.owner, old.owner):
		old.owner.replaced[name] = true
		t[name] = n
	case replaces(old.owner, n.owner):
		n.owner.replaced[name] = true
	default:
		return fmt.Errorf("%s is also in package %s, and neither replaces the other", name, old.owner.control["Package"])
	}
	return nil
}

func replaces(a, b *unpackedDeb) bool {
	groups, err := possibilities(a.control["Replaces"])
	if err != nil {
		return false
	}
	v, err := version.Parse(b.control["Version"])
	if err != nil {
		return false
	}
	for _, group := range groups {
		if group[0].Name == b.control["Package"] && (group[0].Version == nil || group[0].Version.SatisfiedBy(v)) {
			return true
		}
	}
	return false
}

// write writes the tree as a tar, sorted by path.
func (t tree) write(ctx context.Context, w io.Writer, epoch time.Time) error {
	buffered := bufio.NewWriterSize(w, 1<<20)
	out := tar.NewWriter(buffered)
	t, err := t.unpacked()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := t[name]
		h := &tar.Header{
			Typeflag: n.header.Typeflag, Name: name, Linkname: n.header.Linkname, Size: n.header.Size,
			Mode: n.header.Mode, Uid: n.header.Uid, Gid: n.header.Gid, ModTime: epoch,
		}
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		c := n.content
		if c != nil && c.name != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, c.name, 0
			c = nil
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		if c == nil {
			continue
		}
		c.name = name
		var r io.Reader = bytes.NewReader(c.data)
		if c.from != nil {
			r = io.NewSectionReader(c.from, c.offset, h.Size)
		}
		if _, err := io.Copy(out, r); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return errors.Join(out.Close(), buffered.Flush())
}

// possibilities parses a relation field: a list of groups of alternatives.
func possibilities(field string) ([][]dependency.Possibility, error) {
	if field == "" {
		return nil, nil
	}
	d, err := dependency.Parse(field)
	if err != nil {
		return nil, err
	}
	var groups [][]dependency.Possibility
	for _, relation := range d.Relations {
		if len(relation.Possibilities) > 0 {
			groups = append(groups, relation.Possibilities)
		}
	}
	return groups, nil
}
