package golang

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/dirhash"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/trouble"
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
	build := exec.CommandContext(t.Context(), filepath.Join(at, goroot, "bin/go"), "build", "-trimpath", "-buildvcs=false",
		"-o", filepath.Join(at, "trainer"), "./trainer")
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
	assert.Same(t, trouble.NoGo, advice.Row(err))
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
	have, err := Newest(t.Context(), wanted, t.TempDir(), nil)
	require.NoError(t, err)
	assert.True(t, have.Suits(locked.Version), "%s is older than the locked %s", have.Version, locked.Version)
	if have.Version == locked.Version {
		assert.Equal(t, locked, have)
	}

	_, err = Newest(t.Context(), "1.1", t.TempDir(), nil)
	assert.ErrorContains(t, err, "there is no release of Go 1.1")
}

// doctored makes a GOPROXY of files that has releases of Go which nobody published, and
// returns its folder and the checksum of each.
func doctored(t *testing.T, releases ...string) (dir, sum string) {
	t.Helper()
	dir = t.TempDir()
	at := filepath.Join(dir, toolchainModule, "@v")
	require.NoError(t, os.MkdirAll(at, 0o755))
	list := ""
	for _, release := range releases {
		tool := Toolchain{Version: release}
		list += tool.moduleVersion() + "\n"
		put := func(suffix, text string) string {
			name := filepath.Join(at, tool.moduleVersion()+suffix)
			require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
			return name
		}
		put(".info", `{"Version": "`+tool.moduleVersion()+`"}`)
		put(".mod", "module "+toolchainModule+"\n")
		var packed bytes.Buffer
		z := zip.NewWriter(&packed)
		w, err := z.Create(tool.module() + "/bin/go")
		require.NoError(t, err)
		_, err = io.WriteString(w, "#!/bin/sh\necho doctored\n")
		require.NoError(t, err)
		require.NoError(t, z.Close())
		sum, err = dirhash.HashZip(put(".zip", packed.String()), dirhash.Hash1)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(at, "list"), []byte(list), 0o644))
	return dir, sum
}

// emptyModuleCache gives go a module cache of the test's own.
func emptyModuleCache(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("GOMODCACHE", dir)
	t.Cleanup(func() { // the files in it are read-only
		clean := exec.Command("go", "clean", "-modcache")
		clean.Env = append(os.Environ(), "GOMODCACHE="+dir)
		if out, err := clean.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// A server that has another Go than everybody else isn't believed, whatever people
// set for their private modules.
func TestToolchainIsHeldAgainstTheChecksumDatabase(t *testing.T) {
	dir, sum := doctored(t, "1.26.98", "1.26.99")
	// This server says that it passes on the checksum database, and has nothing of it.
	db := filepath.Join(dir, "sumdb/sum.golang.org")
	require.NoError(t, os.MkdirAll(db, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(db, "supported"), nil, 0o644))
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	for _, settings := range [][]string{
		{"GOSUMDB=off"},
		{"GONOSUMDB=*"},
		{"GOPRIVATE=*", "GONOPROXY=none"},
		{"GOSUMDB=sum.golang.org+033de0ae+AAAA"},
		{"GOFLAGS=-insecure"},
		{"GIT_HTTP_USER_AGENT=proxy.golang.org", "GOSUMDB=off"},
	} {
		t.Run(settings[0], func(t *testing.T) {
			emptyModuleCache(t)
			t.Setenv("GOPROXY", "file://"+dir)
			for _, s := range settings {
				key, value, _ := strings.Cut(s, "=")
				t.Setenv(key, value)
			}
			_, err := Newest(t.Context(), "1.26.0", t.TempDir(), nil)
			require.Error(t, err)
			assert.ErrorContains(t, err, "checking Go 1.26.99 against the checksum database")
			assert.Contains(t, advice.Text(err, "go tool mage"), EnvUnchecked+"=1 go tool mage pin")
		})
	}
	for _, proxy := range []string{"file://" + dir, server.URL} {
		t.Run(proxy[:4], func(t *testing.T) {
			emptyModuleCache(t)
			t.Setenv("GOPROXY", proxy)

			// What came unchecked at another time isn't believed later.
			t.Setenv(EnvUnchecked, "1")
			var said bytes.Buffer
			have, err := Newest(t.Context(), "1.26.0", t.TempDir(), progress.New(&said))
			require.NoError(t, err)
			assert.Equal(t, Toolchain{Version: "1.26.99", Sum: sum}, have)
			assert.Contains(t, said.String(), "UNCHECKED: the checksum of Go 1.26.99")
			t.Setenv(EnvUnchecked, "")
			_, err = Newest(t.Context(), "1.26.0", t.TempDir(), nil)
			assert.ErrorContains(t, err, "checking Go 1.26.99 against the checksum database")

			// Where it is locked, the lock is what counts.
			zip, err := have.download(t.Context(), t.TempDir())
			require.NoError(t, err)
			assert.FileExists(t, zip)
			_, err = Toolchain{Version: "1.26.98", Sum: "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}.download(t.Context(), t.TempDir())
			assert.ErrorContains(t, err, "it isn't what was pinned")
		})
	}
}

// With the database's word against it, no variable helps a doctored release.
func TestDoctoredReleaseIsNeverLocked(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks the checksum database")
	}
	locked, err := ReadLock(lock)
	require.NoError(t, err)
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	require.NoError(t, err)
	dir, _ := doctored(t, locked.Version)
	emptyModuleCache(t)
	t.Setenv("GOPROXY", "file://"+dir+","+strings.TrimSpace(string(out)))
	t.Setenv("GOSUMDB", "off")
	t.Setenv(EnvUnchecked, "1")
	_, err = Newest(t.Context(), locked.Version, t.TempDir(), nil)
	require.Error(t, err)
	assert.ErrorContains(t, err, "SECURITY ERROR")
	assert.ErrorContains(t, err, "go clean -modcache")
}

func TestChecked(t *testing.T) {
	for sumDB, want := range map[string]string{
		"": "sum.golang.org", "off": "sum.golang.org", "sum.golang.org": "sum.golang.org", "sum.golang.google.cn\n": "sum.golang.google.cn",
		"sum.golang.org https://mirror.example/sumdb": "sum.golang.org https://mirror.example/sumdb",
		"sum.golang.org.evil.example":                 "sum.golang.org", "evil.example+033de0ae+AAAA https://x": "sum.golang.org",
	} {
		assert.Contains(t, checked(sumDB), "GOSUMDB="+want)
	}
}

func TestPasswordsStayOut(t *testing.T) {
	for _, proxies := range []string{
		"http://us er:secret@127.0.0.1", "https://good.example|http://user:secret@127.0.0.1:port", "user:%secret@127.0.0.1",
		"direct, http://user:se\ncret@127.0.0.1",
		"http://user:secret@127.0.0.1:1", "ftp://user:secret@127.0.0.1", // well-formed: go leaves them out
	} {
		t.Setenv("GOPROXY", proxies)
		_, err := Newest(t.Context(), "1.26.0", t.TempDir(), nil)
		require.Error(t, err)
		assert.NotRegexp(t, "secret|cret@", err.Error(), proxies)

		// As go env -w keeps it, on one line.
		t.Setenv("GOPROXY", "")
		t.Setenv("GOENV", filepath.Join(t.TempDir(), "env"))
		require.NoError(t, os.WriteFile(os.Getenv("GOENV"), []byte("GOPROXY="+strings.ReplaceAll(proxies, "\n", " ")+"\n"), 0o600))
		_, err = Newest(t.Context(), "1.26.0", t.TempDir(), nil)
		require.Error(t, err)
		assert.NotRegexp(t, "secret|cret@", err.Error(), "%s in GOENV", proxies)
	}
	for _, good := range []string{"", "off", "direct", "https://a.example,direct", "https://u:p%40ss@a.example | file:///x", "a.example/go"} {
		assert.NoError(t, checkProxies(good))
	}
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
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
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
