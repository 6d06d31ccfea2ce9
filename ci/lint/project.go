package lint

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxSize is that of the largest file that is read: nobody writes larger ones by hand.
const maxSize = 4 << 20

// Project checks the files of a checkout: those that git knows or would add, or, without
// git, all. What is below testdata, vendor or node_modules isn't the project's own.
func Project(ctx context.Context, root string) ([]Finding, error) {
	// A name in the checkout must not lead out of it.
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := list(ctx, root)
	if err != nil {
		return nil, err
	}
	var all []Finding
	for _, name := range names {
		if kindOf(name) == other {
			continue
		}
		text, err := readFile(dir, name)
		if errors.Is(err, errUnusual) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil { // such as a link that leads out of the checkout
			all = append(all, Finding{File: name, Line: 1, Rule: unreadable, Text: err.Error(), Mend: "Nothing in it was checked"})
			continue
		}
		all = append(all, File(name, text, func(name string) ([]byte, error) { return readFile(dir, name) })...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return all, nil
}

// errUnusual is the error for what no person wrote as text.
var errUnusual = errors.New("not a text file of a usual size")

func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		return nil, errUnusual
	}
	text, err := root.ReadFile(filepath.FromSlash(name))
	if err == nil && !utf8.Valid(text) {
		err = errUnusual
	}
	return text, err
}

// list names the files of a checkout.
func list(ctx context.Context, root string) (names []string, err error) {
	git := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if out, err := git.Output(); err == nil {
		for name := range strings.SplitSeq(string(bytes.TrimSuffix(out, []byte{0})), "\x00") {
			if name != "" && !slices.ContainsFunc(strings.Split(path.Dir(name), "/"), foreign) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names), nil // a file in conflict is listed three times
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && name == ".":
			return fmt.Errorf("listing the project's files: %w", err)
		case err != nil:
			return nil // what can't be read isn't part of a build, either
		case entry.IsDir() && name != "." && (foreign(entry.Name()) || entry.Name() == ".git" || entry.Name() == ".berth"):
			return fs.SkipDir
		case entry.Type().IsRegular():
			names = append(names, name)
		}
		return ctx.Err()
	})
	return names, err
}

// foreign reports whether what is in a folder of that name isn't the project's own, or is
// there to be wrong.
func foreign(folder string) bool {
	return folder == "testdata" || folder == "vendor" || folder == "node_modules"
}
