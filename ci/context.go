package ci

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/cache"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// A contextFile is one file of a build context.
type contextFile struct {
	path string      // slash-separated, relative to the context
	mode fs.FileMode // 0644, 0755 or fs.ModeSymlink: all that git keeps, whatever the umask of the clone
	link string      // target of a symbolic link
	size int64       // of a regular file

	sum    [sha256.Size]byte // of the content
	source string            // where the content is
}

// A hashed is the hash that a file of the context had, and what tells whether it is
// still the same file.
type hashed struct {
	identity
	SHA256 string
}

// An identity changes whenever its file does. The zero value is of no file.
type identity struct {
	Size              int64
	Modified, Changed int64 // Unix times, in ns, of the content and of the inode
	Inode             uint64
}

// before reports whether the file last changed before a moment.
func (i identity) before(moment time.Time) bool {
	return i != identity{} && max(i.Modified, i.Changed) < moment.UnixNano()
}

// fresh is how long ago a file must have changed for its hash to be remembered:
// another change in the same tick of the file system's clock would leave no trace.
const fresh = 2 * time.Second

// contextOf reads the project's build context. Hashes of files that didn't change
// are remembered in the cache.
func contextOf(p Project) ([]contextFile, error) {
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	record := dir.Path("contexts", p.contextName()+".hashes")
	known := map[string]hashed{}
	if !cache.ReadRecord(record, &known) {
		known = nil // what a damaged record has in it doesn't count
	}
	// What Berth itself writes into a checkout would be another context with each command.
	made := map[string]bool{path.Clean(reportFolder): true, path.Clean(cmp.Or(p.Home, launch.DefaultHome)): true}
	for _, in := range p.Inputs {
		made[in.Name()], made[keptFolder(in)] = true, true // what stands for these is their locks
	}
	files, seen, err := readContext(p.Root, p.Dockerfile, p.ignoreFiles(), made, known, time.Now())
	if err != nil {
		return nil, err
	}
	if cache.Use(record) && maps.Equal(known, seen) {
		return files, nil
	}
	return files, cache.WriteRecord(record, seen)
}

// contextName names what belongs to the project's build context in the cache.
func (p Project) contextName() string {
	sum := sha256.Sum256([]byte(p.Root))
	name := "context-" + hex.EncodeToString(sum[:6])
	if p.testing {
		name += "-test"
	}
	return name
}

// ignoreFiles are those of which the first that there is says what isn't in the build
// context, as BuildKit has it.
func (p Project) ignoreFiles() []string {
	files := []string{p.Dockerfile + ".dockerignore", ".dockerignore"}
	if p.testing && p.TestIgnore != "" {
		files = []string{p.TestIgnore}
	}
	return files
}

// readContext reads the build context below root: every file that its ignore file
// lets through, and the Dockerfile, in lexical order, without what is made for the
// build. known has hashes from before, seen those to remember; now is not later than
// the reading.
func readContext(
	root, dockerfile string, ignore []string, made map[string]bool, known map[string]hashed, now time.Time,
) (files []contextFile, seen map[string]hashed, err error) {
	ignored, err := readIgnoreFile(root, ignore)
	if err != nil {
		return nil, nil, err
	}
	seen = map[string]hashed{}
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
			if made[rel] || skip && !mayHold(ignored, rel) && !strings.HasPrefix(dockerfile, rel+"/") {
				return fs.SkipDir
			}
			return nil
		}
		if skip && rel != path.Clean(dockerfile) || made[rel] {
			return nil
		}
		key := strconv.Quote(rel) // JSON has no bytes that aren't UTF-8
		f, h, err := readContextFile(name, rel, e, known[key])
		if err != nil {
			return err
		}
		if h.before(now.Add(-fresh)) {
			seen[key] = h
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the build context: %w", err)
	}
	return files, seen, nil
}

// readIgnoreFile reads the first of the files that there is.
func readIgnoreFile(root string, names []string) (*patternmatcher.PatternMatcher, error) {
	var name string
	var f *os.File
	err := fs.ErrNotExist
	for _, name = range names {
		if f, err = os.Open(filepath.Join(root, filepath.FromSlash(name))); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
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

// mayHold reports whether a pattern that takes files back in ("!docker/…") could
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

// readContextFile reads a file of the context, its content unless it is the one that
// is known. It returns what to remember of it, if anything.
func readContextFile(name, rel string, e fs.DirEntry, known hashed) (f contextFile, h hashed, err error) {
	switch e.Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		return contextFile{path: rel, mode: fs.ModeSymlink, link: target, sum: sha256.Sum256(nil)}, hashed{}, err
	case 0:
		info, err := e.Info()
		if err != nil {
			return f, h, err
		}
		f = contextFile{path: rel, mode: 0o644, source: name}
		if info.Mode()&0o100 != 0 {
			f.mode = 0o755
		}
		before, err := identify(name)
		if err != nil {
			return f, h, err
		}
		if before == known.identity && before != (identity{}) && len(known.SHA256) == hex.EncodedLen(len(f.sum)) {
			if _, err := hex.Decode(f.sum[:], []byte(known.SHA256)); err == nil {
				f.size = known.Size
				return f, known, nil
			}
		}
		if f.sum, f.size, err = hashFile(name); err != nil {
			return f, h, err
		}
		after, err := identify(name)
		if before == after {
			h = hashed{after, hex.EncodeToString(f.sum[:])}
		}
		return f, h, err
	default:
		return f, h, fmt.Errorf("%s is neither a file, a folder nor a link (%s). Name it in .dockerignore", rel, e.Type())
	}
}

// hashFile returns the SHA-256 and the size of a file's content.
func hashFile(name string) (sum [sha256.Size]byte, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, size, err
}

// hashContext identifies a build context: paths, modes, contents, nothing else.
func hashContext(files []contextFile) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %v %q %x\n", f.path, f.mode, f.link, f.sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// stageContext makes dir hold exactly the files, and those that were made for the build
// (their paths by name), with the same modes whatever the umask. Files that are right
// already stay untouched, so that the engine, which goes by size and time, reads again
// only what changed.
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
	if err == nil && info.Mode() == f.mode && info.Size() == f.size {
		if sum, _, err := hashFile(name); err == nil && sum == f.sum {
			return nil
		}
	}
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	if f.mode == fs.ModeSymlink {
		return os.Symlink(f.link, name)
	}
	return copyFile(name, f)
}

// errChanged is in the chain of the error about a file of the context that no longer
// is what the inputs' hash says.
var errChanged = errors.New("it changed after the build had begun. Build again")

// copyFile copies a file of the context. If it is interrupted, the half file counts
// for nothing: what is staged is compared by its hash.
func copyFile(name string, f contextFile) error {
	in, err := os.Open(f.source)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (%w)", errChanged, err)
	} else if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), in)
	err = errors.Join(err, out.Chmod(f.mode), out.Close())
	if err == nil && [sha256.Size]byte(h.Sum(nil)) != f.sum {
		err = errChanged
	}
	if err != nil {
		os.Remove(name)
	}
	return err
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
