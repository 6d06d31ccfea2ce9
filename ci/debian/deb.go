package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"pault.ag/go/debian/deb"
)

// maxControl is how large the control files of one package may be together.
const maxControl = 64 << 20

// An unpackedDeb is the content of one .deb: control files in memory, data in a
// temporary file.
type unpackedDeb struct {
	control  paragraph
	text     string            // of the control paragraph
	scripts  map[string][]byte // the other control files: md5sums, postinst, …
	data     *os.File          // the uncompressed data.tar
	entries  []dataEntry
	replaced map[string]bool // paths that another package took over
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
	u := &unpackedDeb{scripts: map[string][]byte{}, replaced: map[string]bool{}}
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
		if !isPlainWord(u.control["Package"]) || !isPlainWord(u.control["Architecture"]) {
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
