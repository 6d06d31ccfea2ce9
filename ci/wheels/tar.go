package wheels

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/internal/advice"
)

// install is the program that installs the wheels, in the image.
//
//go:embed install.sh
var install []byte

// writeTar writes what the Dockerfile adds: the folder wheels, with the wheels, the file
// from which pip installs them, and the program that has it do so.
func writeTar(ctx context.Context, w io.Writer, l Lock, paths []string) error {
	out := tar.NewWriter(w)
	add := func(name string, mode, size int64, content io.Reader) error {
		h := tar.Header{Typeflag: tar.TypeReg, Name: "wheels/" + name, Mode: mode, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if name == "" {
			h.Typeflag = tar.TypeDir
		}
		if err := out.WriteHeader(&h); err != nil {
			return err
		}
		_, err := io.Copy(out, content)
		return err
	}
	var requirements bytes.Buffer
	if err := errors.Join(
		l.requirements(&requirements),
		add("", 0o755, 0, strings.NewReader("")),
		add("install", 0o755, int64(len(install)), bytes.NewReader(install)),
		add("requirements.txt", 0o644, int64(requirements.Len()), &requirements),
	); err != nil {
		return err
	}
	for i, one := range l.Wheels {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, err := os.Open(paths[i])
		if err != nil {
			return err
		}
		err = add(one.File, 0o644, one.Size, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("packing %s: %w", one.File, err)
		}
	}
	return out.Close()
}

// An installed file is what a wheel makes of one path.
type installed struct {
	wheel Wheel
	file  *zip.File // nil for a command that an entry point asks for
	text  string    // the entry point
}

// checkCollisions returns an error if two of the wheels install different files under one
// path: the last one would win, and which that is, nobody says. Equal files are fine.
func checkCollisions(l Lock, paths []string) error {
	at := map[string]installed{}
	var errs []error
	for i, w := range l.Wheels {
		z, err := zip.OpenReader(paths[i])
		if err != nil {
			return fmt.Errorf("reading %s: %w", w.File, err)
		}
		defer z.Close()
		files, err := contents(w, &z.Reader, l.Python.short())
		if err != nil {
			return fmt.Errorf("reading %s: %w", w.File, err)
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			one := files[name]
			other, there := at[name]
			if !there {
				at[name] = one
				continue
			}
			same, err := sameContent(one, other)
			if err != nil {
				return err
			}
			if !same {
				errs = append(errs, fmt.Errorf("%s and %s both install %s, with different content", other.wheel.File, w.File, name))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			if file, there := at[above]; there {
				errs = append(errs, fmt.Errorf("%s installs %s, which is a folder of %s", file.wheel.File, above, at[name].wheel.File))
				break
			}
		}
	}
	const most = 10
	if len(errs) > most {
		errs = append(errs[:most], fmt.Errorf("and %d more", len(errs)-most))
	}
	return advice.With(errors.Join(errs...), "Which of them would win is a matter of chance. Leave one of the packages out of the lock")
}

// maxEntryPoints is how long a list of entry points may be.
const maxEntryPoints = 1 << 20

// contents returns what a wheel installs, by path below /usr/local
// (https://packaging.python.org/en/latest/specifications/binary-distribution-format/).
func contents(w Wheel, z *zip.Reader, python string) (map[string]installed, error) {
	site := "lib/python" + python + "/dist-packages/"
	files := map[string]installed{}
	for _, f := range z.File {
		name := f.Name
		if strings.HasSuffix(name, "/") {
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name {
			return nil, fmt.Errorf("its file %q leads out of it", name)
		}
		folder, rest, _ := strings.Cut(name, "/")
		target := site + name
		if strings.HasSuffix(folder, ".data") {
			scheme, below, _ := strings.Cut(rest, "/")
			prefix, known := map[string]string{
				"purelib": site, "platlib": site, "scripts": "bin/", "headers": "include/python" + python + "/" + w.Name + "/", "data": "",
			}[scheme]
			if !known || below == "" {
				return nil, fmt.Errorf("its file %q belongs nowhere", name)
			}
			target = prefix + below
		}
		if _, twice := files[target]; twice {
			return nil, fmt.Errorf("it installs %s twice", target)
		}
		files[target] = installed{wheel: w, file: f}
		if rest == "entry_points.txt" && strings.HasSuffix(folder, ".dist-info") {
			commands, err := entryPoints(f)
			if err != nil {
				return nil, err
			}
			for command, text := range commands {
				files["bin/"+command] = installed{wheel: w, text: text}
			}
		}
	}
	return files, nil
}

// entryPoints returns the commands that a wheel has pip write, by name.
func entryPoints(f *zip.File) (map[string]string, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	commands, section := map[string]string{}, ""
	lines := bufio.NewScanner(io.LimitReader(r, maxEntryPoints))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[] ")
			continue
		}
		name, value, found := strings.Cut(line, "=")
		comment := strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";")
		if found && !comment && (section == "console_scripts" || section == "gui_scripts") {
			commands[strings.TrimSpace(name)] = strings.ReplaceAll(value, " ", "")
		}
	}
	return commands, lines.Err()
}

func sameContent(a, b installed) (bool, error) {
	if a.file == nil || b.file == nil {
		return a.file == nil && b.file == nil && a.text == b.text, nil
	}
	if a.file.UncompressedSize64 != b.file.UncompressedSize64 || a.file.CRC32 != b.file.CRC32 {
		return false, nil
	}
	var sums [2][]byte
	for i, one := range []installed{a, b} {
		r, err := one.file.Open()
		if err != nil {
			return false, err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return false, fmt.Errorf("reading %s: %w", one.wheel.File, err)
		}
		sums[i] = sum.Sum(nil)
	}
	return bytes.Equal(sums[0], sums[1]), nil
}
