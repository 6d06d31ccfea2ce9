package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
)

// build builds an image of that kind, unless the daemon has it.
func build(ctx context.Context, docker *daemon.Client, kind string) error {
	tag, lock, bashrc, err := dockertest.Recipe(kind)
	if err != nil {
		return err
	}
	dir, err := cache.Open()
	if err != nil {
		return err
	}
	unlock, err := dir.Lock(ctx, "image-"+kind, nil)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := docker.Image(ctx, tag); err == nil || !errors.Is(err, daemon.ErrNotFound) {
		return err // another process has built it
	}
	temp, remove, err := dir.Temp("dockertest")
	if err != nil {
		return err
	}
	defer remove()
	rootfs, err := unpack(ctx, dir, temp, lock)
	if err != nil {
		return err
	}
	img, err := assemble(rootfs, bashrc)
	if err != nil {
		return err
	}
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(ref, img, w)) }()
	return docker.Load(ctx, r)
}

// unpack returns a tar file with the lock's packages, unpacked.
func unpack(ctx context.Context, dir cache.Dir, temp string, lock []byte) (string, error) {
	file := filepath.Join(temp, "packages.lock")
	if err := os.WriteFile(file, lock, 0o644); err != nil {
		return "", err
	}
	l, err := debian.ReadLock(file)
	if err != nil {
		return "", err
	}
	packages, err := debian.Fetch(ctx, l, debian.FetchOptions{Options: debian.Options{Mirrors: debian.HostMirrors(), Cache: dir}})
	if err != nil {
		return "", err
	}
	return debian.RootfsFile(ctx, filepath.Join(temp, "rootfs.tar"), packages, l.Snapshot, temp, nil)
}

// assemble makes an image of the packages, and of what their configuration
// would have added: users, and the settings of the shell.
func assemble(rootfs string, bashrc []byte) (v1.Image, error) {
	files := map[string][]byte{"etc/bash.bashrc": bashrc}
	for to, from := range map[string]string{"etc/passwd": "usr/share/base-passwd/passwd.master",
		"etc/group": "usr/share/base-passwd/group.master"} {
		data, err := fileIn(rootfs, from)
		if err != nil {
			return nil, err
		}
		files[to] = data
	}
	packages, err := tarball.LayerFromFile(rootfs)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for name, mode := range map[string]int64{"tmp/": 0o1777, "root/": 0o700} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: time.Unix(0, 0)}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	settings, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, packages, settings)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Cmd = []string{"bash"}
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG=C.UTF-8"}
	config.Config.Labels = map[string]string{daemon.LabelRole: "test"}
	return mutate.ConfigFile(img, config)
}

// fileIn returns one file of a tar.
func fileIn(archive, name string) ([]byte, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("looking for %s in %s: %w", name, archive, err)
		}
		if filepath.Clean(h.Name) == name {
			return io.ReadAll(r)
		}
	}
}
