package ci

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	files, err := readContext(root, "docker/Dockerfile")
	require.NoError(t, err)
	assert.Equal(t, []string{"docker/Dockerfile", "rootfs/etc/link", "rootfs/etc/motd", "src/main.go"}, paths(files))
}

func TestContextWithoutDockerignoreIsEverything(t *testing.T) {
	files, err := readContext(tree(t, map[string]string{"Dockerfile": "x", "a/b": "y"}), "Dockerfile")
	require.NoError(t, err)
	assert.Equal(t, []string{"Dockerfile", "a/b"}, paths(files))
}

func TestRootfsIsNoContextFile(t *testing.T) {
	root := tree(t, map[string]string{".dockerignore": "*\n!rootfs.tar\n", "Dockerfile": "x", "rootfs.tar": "x"})
	files, err := readContext(root, "Dockerfile")
	require.NoError(t, err)
	assert.Equal(t, []string{"Dockerfile"}, paths(files), "the lock stands for rootfs.tar")
}

func TestContextHash(t *testing.T) {
	hash := func(change func(root string)) string {
		root := tree(t, map[string]string{"Dockerfile": "x", "a": "1", "b": "2", "l": "->a"})
		change(root)
		files, err := readContext(root, "Dockerfile")
		require.NoError(t, err)
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
	_, err := readContext(root, "Dockerfile")
	assert.ErrorContains(t, err, "pipe is neither a file, a folder nor a link")
}

func TestStageTouchesOnlyWhatChanged(t *testing.T) {
	rootfs := filepath.Join(t.TempDir(), "rootfs.tar")
	require.NoError(t, os.WriteFile(rootfs, []byte("tar"), 0o644))
	dir := filepath.Join(filepath.Dir(rootfs), "staged")
	files := []contextFile{
		{path: "Dockerfile", mode: 0o644, data: []byte("x")},
		{path: "bin/run", mode: 0o755, data: []byte("y")},
		{path: "bin/link", mode: fs.ModeSymlink, link: "run"},
		{path: "old/thing", mode: 0o644, data: []byte("z")},
	}
	require.NoError(t, stageContext(dir, files, map[string]string{rootfsName: rootfs}))
	before, err := os.Lstat(filepath.Join(dir, "bin/run"))
	require.NoError(t, err)

	files[0].data = []byte("changed")
	files[3] = contextFile{path: "old", mode: 0o644, data: []byte("a file where a folder was")}
	require.NoError(t, stageContext(dir, files, map[string]string{rootfsName: rootfs}))
	after, err := os.Lstat(filepath.Join(dir, "bin/run"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after) && before.ModTime().Equal(after.ModTime()), "an unchanged file was written again")
	assert.Equal(t, fs.FileMode(0o755), after.Mode())

	staged, err := readContext(dir, "Dockerfile")
	require.NoError(t, err)
	assert.ElementsMatch(t, files, staged)
	data, err := os.ReadFile(filepath.Join(dir, "rootfs.tar"))
	require.NoError(t, err)
	assert.Equal(t, "tar", string(data))
}
