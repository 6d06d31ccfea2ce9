package dockertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
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

// PyTorch returns the tag of an image with Python and PyTorch, which computes on the CPU.
func PyTorch(t testing.TB) string { return build(t, "pytorch") }

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

// Load makes sure that a daemon has the image of that kind, "shell", "desktop" or
// "pytorch", and returns its tag.
func Load(ctx context.Context, docker *daemon.Client, kind string) (string, error) {
	tag, _, _, err := Recipe(kind)
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

// Recipe returns what an image is made from, and its tag, which says so.
func Recipe(kind string) (tag string, lock, bashrc []byte, err error) {
	if lock, err = locks.ReadFile(kind + ".lock"); err != nil {
		return "", nil, nil, err
	}
	if bashrc, err = fs.ReadFile(rootfs.Etc(), "bash.bashrc"); err != nil {
		return "", nil, nil, err
	}
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte(recipe), lock, bashrc}, nil))
	return fmt.Sprintf("berth-test-%s:%x", kind, sum[:6]), lock, bashrc, nil
}
