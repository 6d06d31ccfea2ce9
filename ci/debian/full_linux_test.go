package debian

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

func TestDiskFull(t *testing.T) {
	if dir := os.Getenv(onFullDisk); dir != "" {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
		t.Run("fetch", func(t *testing.T) { fetchOnFullDisk(t, dir) })
		t.Run("unpack", func(t *testing.T) { unpackOnFullDisk(t, dir) })
		return
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiskFull$", "-test.v")
	again.Env = append(os.Environ(), onFullDisk+"="+t.TempDir())
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	var out bytes.Buffer
	again.Stdout, again.Stderr = &out, &out
	err := again.Start()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		testenv.Skip(t, testenv.Namespaces, "this kernel gives none: %v", err)
	}
	require.NoError(t, err)
	if err := again.Wait(); err != nil && strings.Contains(out.String(), "permission denied") {
		testenv.Skip(t, testenv.Namespaces, "this kernel lets nobody mount in one:\n%s", &out)
	} else {
		require.NoError(t, err, out.String())
	}
	assert.Contains(t, out.String(), "PASS: TestDiskFull/unpack", "it didn't run")
}

// large is a package with a file of so many KiB that can't be compressed.
func large(t *testing.T, size int) []byte {
	t.Helper()
	noise := make([]byte, size<<10)
	rand.NewChaCha8([32]byte{}).Read(noise)
	return makeDeb(t, "Package: large\nVersion: 1\nArchitecture: all\n", []fileOf{{name: "./noise", content: string(noise)}})
}

func fetchOnFullDisk(t *testing.T, dir string) {
	a := newArchive(t, large(t, 256), simple(t, "small", "1"))
	l, o := a.lock(), a.fetchOptions(t)
	full := o
	require.NoError(t, os.Mkdir(filepath.Join(dir, "cache"), 0o755))
	t.Setenv("BERTH_CACHE", filepath.Join(dir, "cache"))
	full.Cache = openCache(t)
	_, err := Fetch(t.Context(), l, full)
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.ErrorContains(t, err, "keeping package ") // whichever of the two got there first
	assert.NoFileExists(t, full.Cache.Path("debs", l.Packages[0].SHA256+".deb"))

	_, err = Fetch(t.Context(), l, o)
	assert.NoError(t, err, "another folder helps")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "cache")))
}

func unpackOnFullDisk(t *testing.T, dir string) {
	name := filepath.Join(dir, "rootfs.tar")
	require.NoError(t, os.WriteFile(name, []byte("the one before"), 0o644))
	for what, size := range map[string]int{"the unpacked data": 256, "the tar beside the data": 40} {
		packages := Packages{Files: []Fetched{{Path: save(t, large(t, size))}}}
		_, err := RootfsFile(t.Context(), name, packages, epoch, dir, nil)
		require.ErrorIs(t, err, syscall.ENOSPC, what)
		left, err := filepath.Glob(dir + "/*")
		require.NoError(t, err)
		assert.Equal(t, []string{name}, left, what)
	}
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "the one before", string(text))
}
