package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/rootfs"
)

//go:embed *.lock
var locks embed.FS

// recipe changes whenever the same lock gives another image.
const recipe = "1"

// The images are Debian packages, unpacked and not configured, fetched as the
// lock files here say. An image is built once on a machine and then found in
// Docker by the hash of what it was made from. No registry is asked.

// Shell returns the tag of an image with bash, the usual tools and the
// project's own settings for them.
func Shell(t testing.TB) string { return build(t, "shell") }

// Desktop returns the tag of an image that also has an X server without a screen
// (Xvfb), a Wayland compositor without one (weston), and programs that draw on
// them.
func Desktop(t testing.TB) string { return build(t, "desktop") }

// ShellProject is the files of a project, by name, whose image has a shell and no more, and
// needs no packages. They are to be executable.
func ShellProject(t testing.TB) map[string]string {
	t.Helper()
	docker := Connect(t)
	id, err := docker.Create(t.Context(), daemon.Container{Name: Name(t), Image: Shell(t)})
	require.NoError(t, err)
	files := map[string]string{"docker/Dockerfile": "FROM scratch\nCOPY root /\nENV PATH=/usr/bin:/bin\n", "root/usr/bin/.keep": ""}
	for _, name := range []string{"bin/sh", "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libc.so.6"} {
		data, err := docker.ReadFile(t.Context(), id, "/"+name, 1<<30)
		require.NoError(t, err)
		files["root/"+name] = string(data)
	}
	require.NoError(t, docker.Remove(t.Context(), id))
	return files
}

func build(t testing.TB, kind string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		testenv.Skip(t, testenv.Linux, "this is %s", runtime.GOOS)
	}
	tag, err := Load(t.Context(), Connect(t), kind)
	require.NoError(t, err)
	return tag
}

// Load makes sure that a daemon has the image of that kind, "shell" or
// "desktop", and returns its tag.
func Load(ctx context.Context, docker *daemon.Client, kind string) (string, error) {
	tag, _, _, err := recipeOf(kind)
	if err != nil {
		return "", err
	}
	if _, err := docker.Image(ctx, tag); err == nil || !errors.Is(err, daemon.ErrNotFound) {
		return tag, err
	}
	c := exec.CommandContext(ctx, "go", "run", "./loader", kind)
	c.Dir, c.Env = here(), append(os.Environ(), "DOCKER_HOST="+docker.Host())
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("loading the image %s: %w\n%s", tag, err, out)
	}
	return tag, nil
}

// here is the folder of this package's source.
func here() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// recipeOf returns what an image is made from, and its tag, which says so.
func recipeOf(kind string) (tag string, lock, bashrc []byte, err error) {
	if lock, err = locks.ReadFile(kind + ".lock"); err != nil {
		return "", nil, nil, err
	}
	if bashrc, err = fs.ReadFile(rootfs.Etc(), "bash.bashrc"); err != nil {
		return "", nil, nil, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte(recipe), lock, bashrc}, nil))
	return fmt.Sprintf("berth-test-%s:%x", kind, sum[:6]), lock, bashrc, nil
}

// Build builds an image of that kind, unless the daemon has it.
func Build(ctx context.Context, docker *daemon.Client, kind string) error {
	tag, lock, bashrc, err := recipeOf(kind)
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
	packages, err := debian.Fetch(ctx, l, debian.FetchOptions{PinOptions: debian.PinOptions{Mirrors: debian.HostMirrors()}, Cache: dir})
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
