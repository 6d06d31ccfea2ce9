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
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	"pault.ag/go/debian/deb"
	"pault.ag/go/debian/version"

	"github.com/berthdev/berth/internal/cache"
)

// maxControl is how large the control files of one package may be together.
const maxControl = 64 << 20

// Rootfs writes the packages' files as one uncompressed tar, with a dpkg database in
// which they are unpacked and not yet configured: `dpkg --force-depends
// --configure base-passwd && dpkg --configure -a` in the image does the rest. The
// same packages and epoch give the same bytes: entries are sorted, times are the
// epoch, owners are numbers. /bin, /sbin and /lib* are links into /usr, as in
// every Debian since 12. Packages that would write outside the root, or over
// each other, are refused. temp is a folder for temporary files.
func Rootfs(ctx context.Context, w io.Writer, packages Packages, epoch time.Time, temp string, report Progress) error {
	if report == nil {
		report = silence{}
	}
	unpacked := make([]*unpackedDeb, len(packages.Files))
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range packages.Files {
		work.Go(func() (err error) {
			if workCtx.Err() != nil {
				return context.Cause(workCtx)
			}
			report.Update("Unpacking %s", f.Package)
			if unpacked[i], err = unpackDeb(f.Path, temp); err != nil {
				return fmt.Errorf("unpacking package %s: %w", f.Package, err)
			}
			return nil
		})
	}
	defer func() {
		for _, u := range unpacked {
			if u != nil {
				u.close()
			}
		}
	}()
	if err := work.Wait(); err != nil {
		return err
	}
	tree := newTree()
	for _, u := range unpacked {
		if err := tree.addPackage(u); err != nil {
			return fmt.Errorf("unpacking package %s %s: %w", u.control["Package"], u.control["Version"], err)
		}
	}
	if err := tree.addDatabase(unpacked); err != nil {
		return err
	}
	return tree.write(ctx, w, epoch)
}

// An unpackedDeb is the content of one .deb: control files in memory, data in a
// temporary file.
type unpackedDeb struct {
	control paragraph
	text    string            // of the control paragraph
	scripts map[string][]byte // the other control files: md5sums, postinst, …
	data    *os.File          // the uncompressed data.tar
	entries []dataEntry
	lost    map[string]bool // paths that another package took over
}

type dataEntry struct {
	header *tar.Header
	offset int64 // of its content in data
}

func (u *unpackedDeb) close() {
	u.data.Close()
	os.Remove(u.data.Name())
}

// unpackDeb reads a .deb. Source of the format: deb(5).
func unpackDeb(name, temp string) (_ *unpackedDeb, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	u := &unpackedDeb{scripts: map[string][]byte{}, lost: map[string]bool{}}
	if u.data, err = os.CreateTemp(temp, "data-*.tar"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	members, err := deb.LoadAr(f)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for {
		member, err := members.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		kind, _, _ := strings.Cut(member.Name, ".")
		if seen[kind] {
			return nil, fmt.Errorf("it has %s twice", member.Name)
		}
		seen[kind] = true
		switch kind {
		case "debian-binary":
			magic := make([]byte, 2)
			if _, err := io.ReadFull(member.Data, magic); err != nil || string(magic) != "2." {
				return nil, errors.New("it isn't a .deb of format 2")
			}
		case "control":
			err = u.readControl(member)
		case "data":
			err = u.readData(member)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member.Name, err)
		}
	}
	if !seen["debian-binary"] || !seen["control"] || !seen["data"] || u.control == nil {
		return nil, errors.New("it lacks a part: a .deb has debian-binary, control.tar and data.tar")
	}
	return u, nil
}

func decompress(member *deb.ArEntry) (io.ReadCloser, error) {
	return deb.DecompressorFor(path.Ext(member.Name))(member.Data)
}

func (u *unpackedDeb) readControl(member *deb.ArEntry) error {
	z, err := decompress(member)
	if err != nil {
		return err
	}
	defer z.Close()
	r := tar.NewReader(io.LimitReader(z, maxControl))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Base(path.Clean("/" + h.Name))
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if name != "control" {
			u.scripts[name] = data
			continue
		}
		u.text = strings.TrimRight(string(data), "\n")
		err = eachParagraph(bufio.NewReader(bytes.NewReader(data)), func(p paragraph) error {
			u.control = p
			return nil
		})
		if err != nil {
			return err
		}
		if !plain(u.control["Package"]) || !plain(u.control["Architecture"]) {
			return fmt.Errorf("%q is no package", u.control["Package"])
		}
	}
}

func (u *unpackedDeb) readData(member *deb.ArEntry) error {
	z, err := decompress(member)
	if err != nil {
		return err
	}
	defer z.Close()
	if _, err := io.Copy(u.data, z); err != nil {
		return err
	}
	if _, err := u.data.Seek(0, io.SeekStart); err != nil {
		return err
	}
	r := tar.NewReader(u.data) // seeks over contents
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		offset, err := u.data.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				return fmt.Errorf("%s is a sparse file; packages have none", h.Name)
			}
		}
		u.entries = append(u.entries, dataEntry{h, offset})
	}
}

// infoName is a package's name in /var/lib/dpkg/info.
func (u *unpackedDeb) infoName() string {
	if u.control["Multi-Arch"] == "same" {
		return u.control["Package"] + ":" + u.control["Architecture"]
	}
	return u.control["Package"]
}

// conffiles lists the package's configuration files.
func (u *unpackedDeb) conffiles() (names []string) {
	for line := range strings.Lines(string(u.scripts["conffiles"])) {
		if words := strings.Fields(line); len(words) == 1 {
			names = append(names, words[0])
		}
	}
	return names
}

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

// through fails if a path would be reached through something other than a folder.
func (t tree) through(name string) error {
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
	if err := t.through(name); err != nil {
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
		old.owner.lost[name] = true
		t[name] = n
	case replaces(old.owner, n.owner):
		n.owner.lost[name] = true
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

// addDatabase adds dpkg's database, as it is after dpkg --unpack.
func (t tree) addDatabase(packages []*unpackedDeb) error {
	const base = "var/lib/dpkg/"
	files := map[string]*node{}
	add := func(name string, data []byte, mode int64) {
		files[base+name] = &node{header: &tar.Header{Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(data))}, content: &content{data: data}}
	}
	add("available", nil, 0o644)
	add("info/format", []byte("1\n"), 0o644)
	var status strings.Builder
	for _, u := range packages {
		status.WriteString(u.status())
		for name, data := range u.scripts {
			mode := int64(0o644)
			switch name {
			case "preinst", "postinst", "prerm", "postrm", "config":
				mode = 0o755
			}
			add("info/"+u.infoName()+"."+name, data, mode)
		}
		add("info/"+u.infoName()+".list", u.list(), 0o644)
	}
	add("status", []byte(status.String()), 0o644)
	for _, dir := range []string{base + "alternatives", base + "parts", base + "triggers", base + "updates", "etc/alternatives"} {
		if err := t.through(dir + "/"); err != nil {
			return fmt.Errorf("making dpkg's database: %w", err)
		}
		t.directory(dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := t.through(name); err != nil {
			return fmt.Errorf("making dpkg's database: %w", err)
		}
		if t[name] != nil {
			return fmt.Errorf("making dpkg's database: package %s ships a file %s of its own", t[name].owner.control["Package"], name)
		}
		t.directory(path.Dir(name))
		t[name] = files[name]
	}
	return nil
}

// status is the package's paragraph in dpkg's status file.
func (u *unpackedDeb) status() string {
	first, rest, _ := strings.Cut(u.text, "\n")
	text := first + "\nStatus: install ok unpacked\n" + rest + "\n"
	if names := u.conffiles(); len(names) > 0 {
		text += "Conffiles:\n"
		for _, name := range names {
			text += " " + name + " newconffile\n"
		}
	}
	return text + "\n"
}

// list is the package's list of files.
func (u *unpackedDeb) list() []byte {
	var b bytes.Buffer
	for _, e := range u.entries {
		name := path.Clean("/" + e.header.Name)
		if placed, err := place(e.header.Name); err == nil && u.lost[placed] {
			continue
		}
		if name == "/" {
			name = "/."
		}
		fmt.Fprintln(&b, name)
	}
	return b.Bytes()
}

// unpacked returns the tree with conffiles under the names that dpkg unpacks them to.
func (t tree) unpacked() (tree, error) {
	renamed := make(tree, len(t))
	for name, n := range t {
		if n.isConf {
			name += ".dpkg-new"
		}
		if renamed[name] != nil {
			return nil, fmt.Errorf("%s is there already, which dpkg needs for the configuration file", name)
		}
		renamed[name] = n
	}
	return renamed, nil
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

// RootfsFile makes the root file system as an entry of the cache (see cache.Keep),
// compressed if its name ends in .zst, and returns its path. temp is a folder for
// temporary files on the same file system.
func RootfsFile(ctx context.Context, name string, packages Packages, epoch time.Time, temp string, report Progress) (string, error) {
	path, err := cache.Keep(name, temp, 0o644, func(w io.Writer) error {
		if !strings.HasSuffix(name, ".zst") {
			return Rootfs(ctx, w, packages, epoch, temp, report)
		}
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return err
		}
		if err := Rootfs(ctx, z, packages, epoch, temp, report); err != nil {
			z.Close()
			return err
		}
		return z.Close()
	})
	if err != nil {
		return "", fmt.Errorf("making the root file system: %w", err)
	}
	return path, nil
}
