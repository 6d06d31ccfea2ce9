package golang

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

const (
	root = "../.."
	lock = root + "/docker/golang.lock"
)

// TestFile compiles the trainer from the archive alone: an empty cache, no
// network, no other Go than the one in it.
func TestFile(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches and packs a toolchain, and compiles with it")
	}
	toolchain, err := ReadLock(lock)
	require.NoError(t, err)
	p := Program{Root: root, Packages: []string{"./trainer"}, Toolchain: toolchain}
	dir := dockertest.Cache(t)
	first, err := File(t.Context(), p, dir, dir.Path("golang"), nil)
	require.NoError(t, err)
	dir = dockertest.Cache(t)
	second, err := File(t.Context(), p, dir, dir.Path("golang"), nil)
	require.NoError(t, err)
	assert.Equal(t, filepath.Base(first), filepath.Base(second))
	a, err := os.ReadFile(first)
	require.NoError(t, err)
	b, err := os.ReadFile(second)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(a, b), "packed twice, it isn't the same")
	left, err := os.ReadDir(dir.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)

	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		testenv.Skip(t, testenv.AMD64, "this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	at := t.TempDir()
	extract(t, a, at)
	build := exec.CommandContext(t.Context(), filepath.Join(at, goroot, "bin/go"), "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(at, "trainer"), "./trainer")
	build.Dir = root
	build.Env = []string{
		"HOME=" + at, "CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOPROXY=file://" + filepath.Join(at, proxy), "GOFLAGS=-modcacherw",
		"PATH=" + filepath.Join(at, goroot, "bin"),
	}
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.CommandContext(t.Context(), filepath.Join(at, "trainer"), "info").CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "(go"+toolchain.Version+", linux/amd64)")
}

func extract(t *testing.T, archive []byte, at string) {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(archive))
	require.NoError(t, err)
	defer z.Close()
	last := ""
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		require.True(t, filepath.IsLocal(h.Name), h.Name)
		assert.Zero(t, h.ModTime.Unix(), h.Name)
		assert.Zero(t, h.Uid+h.Gid, h.Name)
		assert.NotEqual(t, last, h.Name)
		last = h.Name
		name := filepath.Join(at, h.Name)
		if h.Typeflag == tar.TypeDir {
			require.NoError(t, os.MkdirAll(name, 0o755))
			continue
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, h.FileInfo().Mode())
		require.NoError(t, err)
		_, err = io.Copy(f, r)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

func TestWrongToolchainIsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches a toolchain")
	}
	toolchain, err := ReadLock(lock)
	require.NoError(t, err)
	toolchain.Sum = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	dir := dockertest.Cache(t)
	_, err = File(t.Context(), Program{Root: root, Packages: []string{"./trainer/report"}, Toolchain: toolchain}, dir, dir.Path("golang"), nil)
	assert.ErrorContains(t, err, "it isn't what was pinned")
	assert.ErrorContains(t, err, "go clean -modcache")

	toolchain.Version = "1.26.99"
	_, err = File(t.Context(), Program{Root: root, Packages: []string{"./trainer/report"}, Toolchain: toolchain}, dir, dir.Path("golang"), nil)
	assert.ErrorContains(t, err, "go1.26.99")

	_, err = File(t.Context(), Program{Root: root, Packages: []string{"./nowhere"}, Toolchain: toolchain}, dir, dir.Path("golang"), nil)
	assert.ErrorContains(t, err, "listing what ./nowhere imports")
	made, err := os.ReadDir(dir.Path("golang"))
	assert.True(t, os.IsNotExist(err), made)
}

func TestMachineWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := File(t.Context(), Program{Root: root, Packages: []string{"./trainer"}}, dockertest.Cache(t), t.TempDir(), nil)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "Install Go")
}

func TestNewestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches a toolchain")
	}
	locked, err := ReadLock(lock)
	require.NoError(t, err)
	wanted, err := Wanted(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	assert.True(t, locked.Suits(wanted))
	have, err := Newest(t.Context(), wanted, t.TempDir())
	require.NoError(t, err)
	assert.True(t, have.Suits(locked.Version), "%s is older than the locked %s", have.Version, locked.Version)
	if have.Version == locked.Version {
		assert.Equal(t, locked, have)
	}

	_, err = Newest(t.Context(), "1.1", t.TempDir())
	assert.ErrorContains(t, err, "there is no release of Go 1.1")
}

func TestNewest(t *testing.T) {
	releases := strings.Fields("1.25.9 1.26.0 1.26rc1 1.26.10 1.26.9 1.27.0")
	assert.Equal(t, "1.26.10", newest(releases, "1.26.0"))
	assert.Equal(t, "1.25.9", newest(releases, "1.25"))
	assert.Equal(t, "", newest(releases, "1.24.0"))
}

func TestLock(t *testing.T) {
	good := Toolchain{Version: "1.26.8", Sum: "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
	name := filepath.Join(t.TempDir(), "golang.lock")
	_, err := ReadLock(name)
	assert.ErrorContains(t, err, "go tool mage pin")
	require.NoError(t, good.WriteFile(name))
	have, err := ReadLock(name)
	require.NoError(t, err)
	assert.Equal(t, good, have)
	assert.True(t, have.Suits("1.26.0"))
	assert.True(t, have.Suits("1.26"))
	assert.False(t, have.Suits("1.26.9"), "older than what go.mod asks for")
	assert.False(t, have.Suits("1.25.0"), "of another line")

	for text, says := range map[string]string{
		"":                                   "there is no toolchain in it",
		"# only this\n":                      "there is no toolchain in it",
		good.String() + "\n" + good.String(): "one line",
		"golang.org/toolchain v0.0.1-go1.26.8.linux-amd64":          "one line",
		"golang.org/toolchain v0.0.1-go1.26.8.linux-arm64 h1:x":     "no toolchain for linux/amd64",
		"golang.org/toolchain v0.0.1-go1.26.8.linux-amd64 sha256:x": "no toolchain for linux/amd64",
		"golang.org/toolchain v0.0.1-go../../x.linux-amd64 h1:x":    "no toolchain for linux/amd64",
		"example.org/toolchain v0.0.1-go1.26.8.linux-amd64 h1:x":    "no toolchain for linux/amd64",
	} {
		_, err := parseLock(text)
		assert.ErrorContains(t, err, says, text)
	}
}

func FuzzLock(f *testing.F) {
	f.Add("golang.org/toolchain v0.0.1-go1.26.8.linux-amd64 h1:x")
	f.Fuzz(func(t *testing.T, text string) {
		if have, err := parseLock(text); err == nil {
			again, err := parseLock(have.String())
			require.NoError(t, err)
			assert.Equal(t, have, again)
		}
	})
}

func TestWanted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "go.mod")
	require.NoError(t, os.WriteFile(name, []byte("module x\n"), 0o644))
	_, err := Wanted(name)
	assert.ErrorContains(t, err, "go mod edit -go=")
	require.NoError(t, os.WriteFile(name, []byte("module x\n\ngo 1.26.0\n"), 0o644))
	version, err := Wanted(name)
	require.NoError(t, err)
	assert.Equal(t, "1.26.0", version)
}
