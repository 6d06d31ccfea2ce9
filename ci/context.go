package ci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/berthdev/berth/internal/cache"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// Made for the build, and put into its context. Where inputs are compared their
// locks stand for them.
const (
	rootfsName = "rootfs.tar" // the root file system of the locked packages
	golangName = "golang.tar" // the locked Go toolchain, and modules
)

// A contextFile is one file of a build context.
type contextFile struct {
	path string      // slash-separated, relative to the context
	mode fs.FileMode // 0644, 0755 or fs.ModeSymlink: all that git keeps, whatever the umask of the clone
	link string      // target of a symbolic link
	data []byte      // content of a regular file
}

// readContext reads the build context below root: every file that its
// .dockerignore lets through, and the Dockerfile, in lexical order.
func readContext(root, dockerfile string) ([]contextFile, error) {
	ignored, err := readIgnoreFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	var files []contextFile
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		skip, err := ignored.MatchesOrParentMatches(rel)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if skip && !mayHold(ignored, rel) && !strings.HasPrefix(dockerfile, rel+"/") {
				return fs.SkipDir
			}
			return nil
		}
		if skip && rel != path.Clean(dockerfile) || rel == rootfsName || rel == golangName {
			return nil
		}
		f, err := readContextFile(name, rel, e)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the build context: %w", err)
	}
	return files, nil
}

func readIgnoreFile(name string) (*patternmatcher.PatternMatcher, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return patternmatcher.New(nil)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return m, nil
}

// mayHold says whether a pattern that takes files back in ("!docker/…") could
// match below the ignored folder.
func mayHold(ignored *patternmatcher.PatternMatcher, dir string) bool {
	for _, p := range ignored.Patterns() {
		pattern := filepath.ToSlash(p.String())
		if p.Exclusion() && (strings.HasPrefix(pattern, dir+"/") || strings.ContainsAny(pattern, "*?[")) {
			return true
		}
	}
	return false
}

func readContextFile(name, rel string, e fs.DirEntry) (contextFile, error) {
	switch e.Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		return contextFile{path: rel, mode: fs.ModeSymlink, link: target}, err
	case 0:
		info, err := e.Info()
		if err != nil {
			return contextFile{}, err
		}
		data, err := os.ReadFile(name)
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return contextFile{path: rel, mode: mode, data: data}, err
	default:
		return contextFile{}, fmt.Errorf("%s is neither a file, a folder nor a link (%s). Name it in .dockerignore", rel, e.Type())
	}
}

// hashContext identifies a build context: paths, modes, contents, nothing else.
func hashContext(files []contextFile) string {
	h := sha256.New()
	for _, f := range files {
		content := sha256.Sum256(f.data)
		fmt.Fprintf(h, "%q %v %q %x\n", f.path, f.mode, f.link, content)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// stageContext makes dir hold exactly the files, and beside them those that were
// made for the build (their paths by name), with the same modes whatever the umask. Files that are right already stay
// untouched, so that the engine, which goes by size and time, reads again only what changed.
func stageContext(dir string, files []contextFile, made map[string]string) error {
	isDir := map[string]bool{".": true}
	for name := range made {
		isDir[name] = false
	}
	for _, f := range files {
		isDir[f.path] = false
		for p := path.Dir(f.path); !isDir[p]; p = path.Dir(p) {
			isDir[p] = true
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if dir, wanted := isDir[filepath.ToSlash(rel)]; wanted && dir == e.IsDir() {
			return nil
		}
		if err := os.RemoveAll(name); err != nil {
			return err
		}
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("clearing the staged build context: %w", err)
	}
	for p, isDir := range isDir {
		if isDir {
			name := filepath.Join(dir, filepath.FromSlash(p))
			if err := errors.Join(os.MkdirAll(name, 0o755), os.Chmod(name, 0o755)); err != nil {
				return fmt.Errorf("staging %s for the build: %w", p, err)
			}
		}
	}
	for _, f := range files {
		if err := stageFile(filepath.Join(dir, filepath.FromSlash(f.path)), f); err != nil {
			return fmt.Errorf("staging %s for the build: %w", f.path, err)
		}
	}
	for name, path := range made {
		if err := linkFile(path, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("staging %s for the build: %w", name, err)
		}
	}
	return nil
}

func stageFile(name string, f contextFile) error {
	info, err := os.Lstat(name)
	if err == nil && f.mode == fs.ModeSymlink {
		if target, err := os.Readlink(name); err == nil && target == f.link {
			return nil
		}
	}
	if err == nil && info.Mode() == f.mode && info.Size() == int64(len(f.data)) {
		if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, f.data) {
			return nil
		}
	}
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	if f.mode == fs.ModeSymlink {
		return os.Symlink(f.link, name)
	}
	return cache.WriteFile(name, f.data, f.mode)
}

// linkFile makes target the same file as source, without copying it.
func linkFile(source, target string) error {
	s, err := os.Stat(source)
	if err != nil {
		return err
	}
	if t, err := os.Stat(target); err == nil && os.SameFile(s, t) {
		return nil
	}
	if err := os.RemoveAll(target); err != nil {
		return err
	}
	return os.Link(source, target)
}
