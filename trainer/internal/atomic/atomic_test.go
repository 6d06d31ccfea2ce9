package atomic

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

func TestWriteFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	put := func(text string, fail error) error {
		return WriteFile(name, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return errors.Join(err, fail)
		})
	}
	content := func() string {
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(raw)
	}
	require.NoError(t, put("one", nil))
	assert.Equal(t, "one", content())
	require.NoError(t, put("two", nil))
	assert.Equal(t, "two", content())

	failure := errors.New("out of ink")
	assert.ErrorIs(t, put("half of", failure), failure)
	assert.Equal(t, "two", content(), "a failed write changes nothing")
	assert.Equal(t, []string{"file"}, names(t, filepath.Dir(name)))

	// A person's own file stays, whatever its name, unless that one is the caller's.
	require.NoError(t, os.WriteFile(name+".tmp", []byte("something longer of a person's own"), 0o666))
	require.NoError(t, put("three", nil))
	assert.Equal(t, "three", content())
	raw, err := os.ReadFile(name + ".tmp")
	require.NoError(t, err)
	assert.Equal(t, "something longer of a person's own", string(raw))
	theirs, err := os.Stat(name + ".tmp")
	require.NoError(t, err)
	ours, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, theirs.Mode(), ours.Mode(), "that of any new file")
	require.NoError(t, Rewrite(name, func(w io.Writer) error {
		_, err := io.WriteString(w, "four")
		return err
	}))
	assert.Equal(t, "four", content())
	assert.Equal(t, []string{"file"}, names(t, filepath.Dir(name)))

	nowhere := filepath.Join(filepath.Dir(name), "nowhere", "file")
	err = WriteFile(nowhere, func(io.Writer) error { return nil })
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, nowhere)
}

// TestRenameFails: a folder where the file should go.
func TestRenameFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(name, 0o777))
	assert.Error(t, WriteFile(name, func(io.Writer) error { return nil }))
	assert.DirExists(t, name)
	assert.Equal(t, []string{"folder"}, names(t, filepath.Dir(name)))
}

func write(name, text string) error {
	return WriteFile(name, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

func content(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(raw)
}

// names lists what is in a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestLinks: links stay, and what they lead to is replaced, though it be of
// another folder or not there yet.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	require.NoError(t, os.MkdirAll("disk/deep", 0o777))
	require.NoError(t, os.WriteFile("disk/real", []byte("old"), 0o640))
	require.NoError(t, os.Symlink("disk/deep", "far"))
	require.NoError(t, os.Symlink("../real", "disk/deep/second"))
	for name, to := range map[string]string{
		"relative": "disk/real", "absolute": filepath.Join(dir, "disk", "real"), "chain": "far/second",
		"parent": "far/../real", // which is disk/real, not ./real
		"none":   "disk/none",
	} {
		require.NoError(t, os.Symlink(to, name))
		require.NoError(t, Check(name), name)
		require.NoError(t, write(name, name))
		link, err := os.Readlink(name)
		require.NoError(t, err)
		assert.Equal(t, to, link)
		assert.Equal(t, name, content(t, name))
		if name != "none" {
			assert.Equal(t, name, content(t, "disk/real"))
		}
	}
	assert.Equal(t, []string{"deep", "none", "real"}, names(t, "disk"))
	assert.Equal(t, []string{"second"}, names(t, "disk/deep"))

	require.NoError(t, os.Symlink("circle", "circle"))
	assert.ErrorIs(t, Check("circle"), syscall.ELOOP)
	assert.ErrorIs(t, write("circle", "x"), syscall.ELOOP)
}

// TestPipe: a named pipe, and a link to one, are written to and stay.
func TestPipe(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, syscall.Mkfifo("pipe", 0o600))
	require.NoError(t, os.Symlink("pipe", "link"))
	for _, name := range []string{"pipe", "link"} {
		require.NoError(t, Check(name), "without waiting for a reader")
		read := make(chan string)
		go func() {
			raw, _ := os.ReadFile("pipe")
			read <- string(raw)
		}()
		require.NoError(t, write(name, "through "+name))
		assert.Equal(t, "through "+name, <-read)
	}
	info, err := os.Lstat("pipe")
	require.NoError(t, err)
	assert.Equal(t, os.ModeNamedPipe, info.Mode().Type())
	assert.Equal(t, []string{"link", "pipe"}, names(t, "."))
}

// TestDevice makes devices of its own: a mistake must not cost this machine its
// /dev/null.
func TestDevice(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, minor := range map[string]int{"null": 3, "full": 7} {
		if err := syscall.Mknod(name, syscall.S_IFCHR|0o666, 1<<8|minor); err != nil {
			testenv.Skip(t, testenv.Root, "no device can be made here: %v", err)
		}
	}
	if _, err := os.ReadFile("null"); err != nil {
		testenv.Skip(t, testenv.Root, "devices can't be opened here: %v", err)
	}
	require.NoError(t, os.Symlink("null", "link"))
	for _, name := range []string{"null", "link"} {
		require.NoError(t, Check(name))
		require.NoError(t, write(name, "nothing"))
	}
	assert.ErrorIs(t, write("full", "something"), syscall.ENOSPC)
	for _, name := range []string{"null", "full"} {
		info, err := os.Lstat(name)
		require.NoError(t, err)
		assert.Equal(t, os.ModeDevice|os.ModeCharDevice, info.Mode().Type())
	}
	assert.Equal(t, []string{"full", "link", "null"}, names(t, "."))
}

// TestCheck: what can't be written is told, and nothing is changed.
func TestCheck(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("folder", 0o777))
	require.NoError(t, os.WriteFile("file", []byte("content"), 0o666))
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(socket)
	require.NoError(t, syscall.Bind(socket, &syscall.SockaddrUnix{Name: "socket"}))
	before := names(t, ".")
	for name, want := range map[string]error{
		"new": nil, "file": nil, "folder/new": nil,
		"nowhere/new": os.ErrNotExist, "file/new": syscall.ENOTDIR, "folder": syscall.EISDIR, "socket": syscall.ENXIO,
		"/proc/new": os.ErrNotExist, // a file system that lets nobody make files
	} {
		err := Check(name)
		assert.ErrorIs(t, err, want, name)
		if want != nil {
			assert.ErrorContains(t, err, name)
			assert.Error(t, write(name, "x"), "Check is right about %s", name)
		}
	}
	assert.Equal(t, before, names(t, "."))
	assert.Empty(t, names(t, "folder"))
	assert.Equal(t, "content", content(t, "file"))

	// What a killed process left is in nobody's way, and not lost by looking.
	require.NoError(t, os.WriteFile("file.tmp", []byte("half"), 0o666))
	require.NoError(t, Check("file"))
	assert.Equal(t, "half", content(t, "file.tmp"))
}

// TestSyncFolder: a file system that can't sync a folder is no reason to fail.
func TestSyncFolder(t *testing.T) {
	proc, err := os.Open("/proc")
	require.NoError(t, err)
	defer proc.Close()
	require.ErrorIs(t, proc.Sync(), syscall.EINVAL, "else this tests nothing")
	assert.NoError(t, syncFolder("/proc"))
	assert.ErrorIs(t, syncFolder("nowhere"), os.ErrNotExist)
}

// TestReplace: until the new content is complete nothing is done, and what is done
// then may refuse it.
func TestReplace(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("file", []byte("old"), 0o666))
	fill := func(w io.Writer) error {
		_, err := io.WriteString(w, "new")
		return err
	}
	failure := errors.New("out of ink")
	assert.ErrorIs(t, Replace("file", func(io.Writer) error { return failure }, func() error {
		t.Error("called for nothing")
		return nil
	}), failure)
	assert.ErrorIs(t, Replace("file", fill, func() error {
		assert.Equal(t, "new", content(t, "file.tmp"))
		assert.Equal(t, "old", content(t, "file"))
		return failure
	}), failure)
	assert.Equal(t, "old", content(t, "file"))
	require.NoError(t, Replace("file", fill, func() error { return nil }))
	assert.Equal(t, "new", content(t, "file"))
	assert.Equal(t, []string{"file"}, names(t, "."))
}
