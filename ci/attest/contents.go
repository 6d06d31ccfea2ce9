// Package attest says what others may want to know of an image before they trust it: what
// is in it, as an SPDX list, and what it was made from, as SLSA provenance, signed with a
// key where there is one. The same image and inputs give the same bytes. It knows no registry,
// no Docker and no project.
package attest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/textproto"
	"path"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"pault.ag/go/debian/control"
)

// A Component is a package or a module in an image.
type Component struct {
	Kind         string // deb, golang or pypi: the type of its package URL
	Name         string // for deb, of the binary package
	Version      string
	Architecture string // of deb alone
	Source       string // of deb: its source package, if it has another name
	System       string // of deb: ID of the image's distribution, such as debian; "" if it doesn't tell
	Release      string // of deb: VERSION_ID of that, such as 12; "" if it has none
	Where        string // of golang: the path of the program that has it; of pypi: the folder of its metadata
	SHA256       string // hex, of the file that a lock names; "" if unknown
	URL          string // of that file
}

// maxProgram is the size of the largest file that is looked at as a Go program.
const maxProgram = 512 << 20

// Contents lists what an image has: Debian packages by dpkg's database, Go modules by what
// the linker wrote into each program, Python packages by their metadata. They are
// sorted, and each is listed once per place.
func Contents(img v1.Image) (all []Component, err error) {
	flat := mutate.Extract(img)
	defer flat.Close()
	files := tar.NewReader(flat)
	var here system
	for {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the image's files: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean("/" + header.Name)
		var found []Component
		switch {
		case path.Dir(name) == "/var/lib/dpkg/status.d" && path.Ext(name) == ".md5sums":
			// beside each package's own file
		case name == "/var/lib/dpkg/status" || path.Dir(name) == "/var/lib/dpkg/status.d":
			found, err = debianPackages(files)
		case name == "/etc/os-release" || name == "/usr/lib/os-release" && here == system{}:
			// The former counts (os-release(5)), and is mostly a symbolic link to the latter.
			here, err = readSystem(files)
		case strings.HasSuffix(path.Dir(name), ".dist-info") && path.Base(name) == "METADATA":
			found, err = pythonPackage(files, path.Dir(name))
		case header.FileInfo().Mode()&0o111 != 0 && header.Size > 64 && header.Size <= maxProgram:
			found, err = goModules(files, header.Size, name)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s in the image: %w", name, err)
		}
		all = append(all, found...)
	}
	for i := range all {
		if all[i].Kind == "deb" {
			all[i].System, all[i].Release = here.id, here.release
		}
	}
	slices.SortFunc(all, func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Architecture, b.Architecture), cmp.Compare(a.Where, b.Where))
	})
	return slices.Compact(all), nil
}

// A system is a distribution.
type system struct{ id, release string }

// systemLines are assignments of a shell, with values that need no escapes.
var systemLines = regexp.MustCompile(`(?m)^(ID|VERSION_ID)=["']?([a-z0-9._-]+)["']?[ \t\r]*$`)

// readSystem reads an os-release(5).
func readSystem(r io.Reader) (s system, err error) {
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	for _, line := range systemLines.FindAllSubmatch(text, -1) {
		if string(line[1]) == "ID" {
			s.id = string(line[2])
		} else {
			s.release = string(line[2])
		}
	}
	return s, err
}

// debianPackages reads dpkg's database (dpkg-query(1)): the packages that are installed.
func debianPackages(r io.Reader) (all []Component, err error) {
	var paragraphs []struct {
		Package, Status, Version, Architecture, Source string
	}
	if err := control.Unmarshal(&paragraphs, r); err != nil {
		return nil, err
	}
	for _, p := range paragraphs {
		// status.d, of images without dpkg, has no status.
		if p.Package == "" || p.Status != "" && !strings.HasSuffix(p.Status, " installed") && !strings.HasSuffix(p.Status, " unpacked") {
			continue
		}
		source, _, _ := strings.Cut(p.Source, " ") // "name (version)"
		all = append(all, Component{Kind: "deb", Name: p.Package, Version: p.Version, Architecture: p.Architecture, Source: source})
	}
	return all, nil
}

// pythonPackage reads the metadata of an installed package ("Core metadata specifications"
// of the Python Packaging Authority).
func pythonPackage(r io.Reader, folder string) ([]Component, error) {
	header, err := textproto.NewReader(bufio.NewReader(r)).ReadMIMEHeader()
	if len(header) == 0 {
		return nil, err
	}
	// A description may follow that isn't like a header; name and version come first.
	if name := header.Get("Name"); name != "" {
		return []Component{{Kind: "pypi", Name: name, Version: header.Get("Version"), Where: folder}}, nil
	}
	return nil, nil
}

// elf begins programs.
const elf = "\x7fELF"

// goModules reads what a Go program is made of. Other programs have none.
func goModules(r io.Reader, size int64, name string) (all []Component, err error) {
	magic := make([]byte, len(elf))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != elf {
		return nil, err
	}
	program := make([]byte, size) // which may be large: it is read once, without growing
	if _, err := io.ReadFull(r, program[copy(program, magic):]); err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			return nil, err
		}
		return nil, nil // not by Go
	}
	add := func(m debug.Module) {
		if m.Replace != nil {
			m = *m.Replace
		}
		all = append(all, Component{Kind: "golang", Name: m.Path, Version: m.Version, Where: name})
	}
	all = append(all, Component{Kind: "golang", Name: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go"), Where: name})
	if info.Main.Path != "" {
		add(info.Main)
	}
	for _, m := range info.Deps {
		add(*m)
	}
	return all, nil
}
