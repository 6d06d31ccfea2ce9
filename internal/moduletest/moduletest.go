// Package moduletest gives this checkout to tests: as a copy of their own, and as the go
// command gets it from a proxy: as a module, with what a module leaves out left out.
package moduletest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// Path is that of this module.
const Path = "github.com/berthdev/berth"

// Copy writes what git has of the checkout at root, or would add, into the folder to: as a
// clone has it, under the umask of this process. A test that compiles the targets, or changes
// a checkout, does it in a copy: mage writes a file beside them while it compiles, and other
// tests, or whoever works there, may be using the original at the same time.
func Copy(root, to string) error {
	names, err := list(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			return err
		}
		mode := os.FileMode(0o666)
		if info.Mode()&0o100 != 0 {
			mode = 0o777
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		at := filepath.Join(to, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o777), os.WriteFile(at, data, mode)); err != nil {
			return err
		}
	}
	return nil
}

// list names the regular files that git has of a checkout, or would add.
func list(root string) (names []string, err error) {
	out, err := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the files of %s: %w", root, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// What was deleted and not yet committed is still listed.
		if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

// Serve packs the checkout at root, committed or not, under a version that nobody else
// has. It returns the version, and the environment in which the go command finds it in
// addition to everything else. What go keeps of it is removed with the test.
func Serve(t *testing.T, root string) (version string, env []string) {
	t.Helper()
	b := make([]byte, 6)
	rand.Read(b)
	version = "v0.0.1-test." + hex.EncodeToString(b)
	at := t.TempDir()
	dir := filepath.Join(at, filepath.FromSlash(Path), "@v")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	names, err := list(root)
	require.NoError(t, err)
	var files []zip.File
	for _, name := range names {
		files = append(files, file{name, filepath.Join(root, name)})
	}
	archive, err := os.Create(filepath.Join(dir, version+".zip"))
	require.NoError(t, err)
	require.NoError(t, zip.Create(archive, module.Version{Path: Path, Version: version}, files))
	require.NoError(t, archive.Close())
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	for name, text := range map[string]string{
		"list":            version + "\n",
		version + ".mod":  string(gomod),
		version + ".info": fmt.Sprintf(`{"Version": %q, "Time": "2026-01-01T00:00:00Z"}`, version),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	t.Cleanup(func() {
		kept := goEnv(t, "GOMODCACHE")
		paths, err := filepath.Glob(filepath.Join(kept, "cache", "download", filepath.FromSlash(Path), "@v", version+"*"))
		assert.NoError(t, err)
		for _, path := range append(paths, filepath.Join(kept, filepath.FromSlash(Path)+"@"+version)) {
			assert.NoError(t, os.RemoveAll(path))
		}
	})
	return version, []string{
		"GOPROXY=file://" + at + "," + goEnv(t, "GOPROXY"),
		"GONOSUMDB=" + Path + "," + goEnv(t, "GONOSUMDB"),
		"GOFLAGS=-modcacherw " + os.Getenv("GOFLAGS"),
	}
}

func goEnv(t *testing.T, name string) string {
	out, err := exec.Command("go", "env", name).Output()
	assert.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// file is one of a module's.
type file struct{ name, path string }

func (f file) Path() string                 { return f.name }
func (f file) Lstat() (os.FileInfo, error)  { return os.Lstat(f.path) }
func (f file) Open() (io.ReadCloser, error) { return os.Open(f.path) }
