package ci

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
)

// tree writes files, by path, into a new folder. A name that ends in a slash
// makes a folder; "->" before the content makes a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if len(content) > 2 && content[:2] == "->" {
			require.NoError(t, os.Symlink(content[2:], path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return root
}

// read reads the context below root with nothing remembered.
func read(t *testing.T, root, dockerfile string) []contextFile {
	t.Helper()
	files, _, err := readContext(root, dockerfile, Project{Dockerfile: dockerfile}.ignoreFiles(), map[string]bool{"rootfs.tar": true}, nil, time.Now())
	require.NoError(t, err)
	return files
}

func paths(files []contextFile) (all []string) {
	for _, f := range files {
		all = append(all, f.path)
	}
	return all
}

func TestContextIsWhatDockerignoreLetsThrough(t *testing.T) {
	root := tree(t, map[string]string{
		".dockerignore":      "*\n!rootfs/etc\n!src/*.go\nrootfs/etc/secret\n",
		".git/config":        "x",
		"docker/Dockerfile":  "FROM scratch",
		"rootfs/etc/motd":    "hello",
		"rootfs/etc/secret":  "x",
		"rootfs/etc/link":    "->motd",
		"rootfs/home/f":      "x",
		"src/main.go":        "package main",
		"src/main.o":         "x",
		"rootfs.tar":         "a root file system",
		"other/deep/in/here": "x",
	})
	files := read(t, root, "docker/Dockerfile")
	assert.Equal(t, []string{"docker/Dockerfile", "rootfs/etc/link", "rootfs/etc/motd", "src/main.go"}, paths(files))
}

func TestContextWithoutDockerignoreIsEverything(t *testing.T) {
	files := read(t, tree(t, map[string]string{"Dockerfile": "x", "a/b": "y"}), "Dockerfile")
	assert.Equal(t, []string{"Dockerfile", "a/b"}, paths(files))
}

func TestRootfsIsNoContextFile(t *testing.T) {
	root := tree(t, map[string]string{".dockerignore": "*\n!rootfs.tar\n", "Dockerfile": "x", "rootfs.tar": "x"})
	files := read(t, root, "Dockerfile")
	assert.Equal(t, []string{"Dockerfile"}, paths(files), "the lock stands for rootfs.tar")
}

// What Berth itself writes into a checkout isn't what the next build is made from.
func TestContextWithoutWhatBerthWrites(t *testing.T) {
	root := tree(t, map[string]string{"Dockerfile": "x", "artifacts/ci/unit.log": "x", "artifacts/a": "x", "home/.bash_history": "x", ".berth/home/x": "x"})
	p := Project{Root: root, Dockerfile: "Dockerfile"}
	files, err := contextOf(p)
	require.NoError(t, err)
	assert.Equal(t, []string{"Dockerfile", "artifacts/a", "home/.bash_history"}, paths(files))
	p.Home = "home"
	files, err = contextOf(p)
	require.NoError(t, err)
	assert.Equal(t, []string{".berth/home/x", "Dockerfile", "artifacts/a"}, paths(files))
}

func TestContextHash(t *testing.T) {
	hash := func(change func(root string)) string {
		root := tree(t, map[string]string{"Dockerfile": "x", "a": "1", "b": "2", "l": "->a"})
		change(root)
		files := read(t, root, "Dockerfile")
		return hashContext(files)
	}
	same := hash(func(string) {})
	assert.Equal(t, same, hash(func(root string) {
		require.NoError(t, os.Chmod(filepath.Join(root, "a"), 0o600)) // another umask
	}))
	for name, change := range map[string]func(root string){
		"content":    func(root string) { os.WriteFile(filepath.Join(root, "a"), []byte("3"), 0o644) },
		"executable": func(root string) { os.Chmod(filepath.Join(root, "a"), 0o755) },
		"name":       func(root string) { os.Rename(filepath.Join(root, "a"), filepath.Join(root, "c")) },
		"missing":    func(root string) { os.Remove(filepath.Join(root, "a")) },
		"link": func(root string) {
			os.Remove(filepath.Join(root, "l"))
			os.Symlink("b", filepath.Join(root, "l"))
		},
	} {
		assert.NotEqual(t, same, hash(change), name)
	}
}

func TestContextRefusesWhatNoImageCanHold(t *testing.T) {
	root := tree(t, map[string]string{"Dockerfile": "x"})
	require.NoError(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o644))
	_, _, err := readContext(root, "Dockerfile", []string{".dockerignore"}, map[string]bool{"rootfs.tar": true}, nil, time.Now())
	assert.ErrorContains(t, err, "pipe is neither a file, a folder nor a link")
}

func TestStageTouchesOnlyWhatChanged(t *testing.T) {
	rootfs := filepath.Join(t.TempDir(), "rootfs.tar")
	require.NoError(t, os.WriteFile(rootfs, []byte("tar"), 0o644))
	dir := filepath.Join(filepath.Dir(rootfs), "staged")
	root := tree(t, map[string]string{"Dockerfile": "x", "bin/run": "y", "bin/link": "->run", "old/thing": "z"})
	require.NoError(t, os.Chmod(filepath.Join(root, "bin/run"), 0o755))
	require.NoError(t, stageContext(dir, read(t, root, "Dockerfile"), map[string]string{"rootfs.tar": rootfs}))
	before, err := os.Lstat(filepath.Join(dir, "bin/run"))
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(root, "Dockerfile"), []byte("changed"), 0o644))
	require.NoError(t, os.RemoveAll(filepath.Join(root, "old")))
	require.NoError(t, os.WriteFile(filepath.Join(root, "old"), []byte("a file where a folder was"), 0o644))
	files := read(t, root, "Dockerfile")
	require.NoError(t, stageContext(dir, files, map[string]string{"rootfs.tar": rootfs}))
	after, err := os.Lstat(filepath.Join(dir, "bin/run"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after) && before.ModTime().Equal(after.ModTime()), "an unchanged file was written again")
	assert.Equal(t, fs.FileMode(0o755), after.Mode())

	staged := read(t, dir, "Dockerfile")
	assert.Equal(t, paths(files), paths(staged))
	assert.Equal(t, hashContext(files), hashContext(staged))

	// What was staged is wrong, though as large as it should be.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("CHANGED"), 0o644))
	require.NoError(t, stageContext(dir, files, map[string]string{"rootfs.tar": rootfs}))
	assert.Equal(t, hashContext(files), hashContext(read(t, dir, "Dockerfile")))
	data, err := os.ReadFile(filepath.Join(dir, "rootfs.tar"))
	require.NoError(t, err)
	assert.Equal(t, "tar", string(data))
}

// The hash is part of an image's label: it stays what it was when contents were read
// into memory.
func TestContextHashLasts(t *testing.T) {
	root := tree(t, map[string]string{"Dockerfile": "x", "a": "1", "l": "->a"})
	text := fmt.Sprintf("\"Dockerfile\" -rw-r--r-- \"\" %x\n\"a\" -rw-r--r-- \"\" %x\n\"l\" L--------- \"a\" %x\n",
		sha256.Sum256([]byte("x")), sha256.Sum256([]byte("1")), sha256.Sum256(nil))
	assert.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(text))), hashContext(read(t, root, "Dockerfile")))
}

func TestStageRefusesWhatChangedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(name string) error{
		"longer":         func(name string) error { return os.WriteFile(name, []byte("longer"), 0o644) },
		"as long":        func(name string) error { return os.WriteFile(name, []byte("2"), 0o644) },
		"gone":           os.Remove,
		"a folder there": func(name string) error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, map[string]string{"Dockerfile": "x", "a": "1"})
			files := read(t, root, "Dockerfile")
			require.NoError(t, change(filepath.Join(root, "a")))
			dir := filepath.Join(t.TempDir(), "staged")
			err := stageContext(dir, files, nil)
			require.Error(t, err)
			assert.ErrorContains(t, err, "staging a for the build")
			assert.NoFileExists(t, filepath.Join(dir, "a"), "another file was staged")
		})
	}
	root := tree(t, map[string]string{"Dockerfile": "x", "a": "1"})
	files := read(t, root, "Dockerfile")
	require.NoError(t, os.WriteFile(filepath.Join(root, "a"), []byte("2"), 0o644))
	assert.ErrorIs(t, stageContext(filepath.Join(t.TempDir(), "staged"), files, nil), errChanged)
}

// A context isn't held in memory, however large: data and .git may be in it.
func TestLargeContextIsStreamed(t *testing.T) {
	const size = 256 << 20
	root := tree(t, map[string]string{"Dockerfile": "x", "data": ""})
	require.NoError(t, os.Truncate(filepath.Join(root, "data"), size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	files := read(t, root, "Dockerfile")
	require.NoError(t, stageContext(filepath.Join(t.TempDir(), "staged"), files, nil))
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size/8))
}

func TestHashesAreRemembered(t *testing.T) {
	now := time.Now()
	root := tree(t, map[string]string{"Dockerfile": "x", "a": "1", "not\xffUTF-8": "2", "l": "->a"})
	_, seen, err := readContext(root, "Dockerfile", []string{".dockerignore"}, map[string]bool{"rootfs.tar": true}, nil, now)
	require.NoError(t, err)
	assert.Empty(t, seen, "a file that is new may change again without a trace")
	later := time.Now().Add(time.Hour)
	_, known, err := readContext(root, "Dockerfile", []string{".dockerignore"}, map[string]bool{"rootfs.tar": true}, nil, later)
	require.NoError(t, err)
	assert.Len(t, known, 3)

	// A hash that no file has shows where it comes from.
	wrong := hashed{known[`"a"`].identity, strings.Repeat("ab", 32)}
	known[`"a"`] = wrong
	sum := func(root string) string {
		files, seen, err := readContext(root, "Dockerfile", []string{".dockerignore"}, map[string]bool{"rootfs.tar": true}, known, later)
		require.NoError(t, err)
		for _, f := range files {
			if f.path == "a" {
				assert.EqualValues(t, 1, f.size)
				assert.Equal(t, hex.EncodeToString(f.sum[:]), seen[`"a"`].SHA256)
				return hex.EncodeToString(f.sum[:])
			}
		}
		t.Fatal("there is no a")
		return ""
	}
	assert.Equal(t, wrong.SHA256, sum(root), "the file was read again")

	two := fmt.Sprintf("%x", sha256.Sum256([]byte("2")))
	a := filepath.Join(root, "a")
	info, err := os.Stat(a)
	require.NoError(t, err)
	for name, change := range map[string]func(){
		"written, with its time put back": func() {
			require.NoError(t, os.WriteFile(a, []byte("2"), 0o644))
			require.NoError(t, os.Chtimes(a, info.ModTime(), info.ModTime()))
		},
		"replaced, with its time put back": func() {
			require.NoError(t, os.WriteFile(a+".new", []byte("2"), 0o644))
			require.NoError(t, os.Chtimes(a+".new", info.ModTime(), info.ModTime()))
			require.NoError(t, os.Rename(a+".new", a))
		},
	} {
		change()
		assert.Equal(t, two, sum(root), name)
	}
	known[`"a"`] = hashed{known[`"a"`].identity, "no hash"}
	assert.Equal(t, two, sum(root))
}

// Whatever becomes of the record of hashes, the inputs are the same, and the record
// is good again afterwards.
func TestDamagedHashesAreForgotten(t *testing.T) {
	dir := dockertest.Cache(t)
	p := Project{Root: tree(t, map[string]string{"Dockerfile": "x", "a": "1"}), Dockerfile: "Dockerfile"}
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(p.Path("a"), old, old))
	record := dir.Path("contexts", p.contextName()+".hashes")
	hash := func() string {
		files, err := contextOf(p)
		require.NoError(t, err)
		return hashContext(files)
	}
	want := hash()
	var known map[string]hashed
	require.Eventually(t, func() bool { // they are old enough
		assert.Equal(t, want, hash())
		return cache.ReadRecord(record, &known) && len(known) == 2
	}, time.Minute, 100*time.Millisecond)
	good, err := os.ReadFile(record)
	require.NoError(t, err)
	for name, bad := range map[string][]byte{
		"flipped": bytes.Replace(good, []byte(known[`"a"`].SHA256), []byte(strings.Repeat("0", 64)), 1),
		"cut":     good[:len(good)/2], "longer": append(slices.Clone(good), '\n'), "empty": nil, "another's": []byte("hello"),
	} {
		require.NoError(t, os.WriteFile(record, bad, 0o600))
		assert.Equal(t, want, hash(), name)
		healed, err := os.ReadFile(record)
		require.NoError(t, err)
		assert.Equal(t, string(good), string(healed), name)
	}
}
