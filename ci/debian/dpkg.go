package debian

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

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
		if err := t.checkParents(dir + "/"); err != nil {
			return fmt.Errorf("making dpkg's database: %w", err)
		}
		t.directory(dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := t.checkParents(name); err != nil {
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
		if placed, err := place(e.header.Name); err == nil && u.replaced[placed] {
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
