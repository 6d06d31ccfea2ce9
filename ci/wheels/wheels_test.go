package wheels

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/wheeltest"
)

// packagesLock locks a Python for the checkouts of tests.
const packagesLock = `snapshot 20250101T000000Z
wants x
architecture amd64
suite debian trixie main
package libc6 2.41-12 amd64 debian pool/l.deb 1 0000000000000000000000000000000000000000000000000000000000000000
package python3 3.13.5-1 amd64 debian pool/p.deb 1 0000000000000000000000000000000000000000000000000000000000000000
package python3-pip 25.1.1+dfsg-1 all debian pool/pip.deb 1 0000000000000000000000000000000000000000000000000000000000000000
package python3.13 3.13.5-2 amd64 debian pool/p3.deb 1 0000000000000000000000000000000000000000000000000000000000000000
`

// checkout is one with a pylock.toml, and options with an empty cache. said gets what is
// reported.
func checkout(t *testing.T, text string) (root string, o input.Options, said *bytes.Buffer) {
	t.Helper()
	root = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "docker"), 0o755))
	write(t, root, "docker/packages.lock", packagesLock)
	write(t, root, "pylock.toml", text)
	said = &bytes.Buffer{}
	return root, input.Options{Cache: newCache(t), Folder: t.TempDir(), Report: progress.New(said)}, said
}

func newCache(t *testing.T) cache.Dir {
	t.Helper()
	t.Setenv("BERTH_CACHE", t.TempDir())
	dir, err := cache.Open()
	require.NoError(t, err)
	return dir
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
}

const head = "lock-version = \"1.0\"\n"

// entry is the package of a pylock.toml that a wheel makes. more are further keys of the
// package.
func entry(w wheeltest.Wheel, url, more string) string {
	return fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\n%s\nwheels = [{url = %q, size = %d, hashes = {sha256 = %q}}]\n",
		w.Name, w.Version, more, url, len(w.Data), w.SHA256())
}

// TestChoose is the table of what is chosen, and of what is refused with which words.
func TestChoose(t *testing.T) {
	const sum = "hashes = {sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"}"
	wheel := func(url string) string {
		if !strings.Contains(url, "://") {
			url = "https://example.org/" + url
		}
		return fmt.Sprintf("{url = %q, size = 9, %s}", url, sum)
	}
	const pure = "a-1-py3-none-any.whl"
	pkg := func(name, more string, wheels ...string) string {
		return fmt.Sprintf("[[packages]]\nname = %q\nversion = \"1\"\n%s\nwheels = [%s]\n", name, more, strings.Join(wheels, ", "))
	}
	for name, c := range map[string]struct {
		text   string
		extras []string
		groups []string
		want   string // names of the files that are chosen
		errs   []string
		advice string
	}{
		"nothing": {text: head},
		"%2B in the address, no name": {
			text: head + pkg("torch", "", wheel("whl/torch-1%2Bcu128-cp313-cp313-linux_x86_64.whl#x"),
				wheel("torch-1-cp312-cp312-linux_x86_64.whl")),
			want: "torch-1+cu128-cp313-cp313-linux_x86_64.whl",
		},
		"once under each of two markers": {
			text: head + pkg("torch", "marker = \"sys_platform == 'darwin'\"", wheel("torch-1-cp313-none-macosx_11_0_arm64.whl")) +
				pkg("torch", "marker = \"sys_platform == 'linux' and platform_machine == 'x86_64'\"",
					wheel("torch-1-cp313-cp313-manylinux_2_28_x86_64.whl")),
			want: "torch-1-cp313-cp313-manylinux_2_28_x86_64.whl",
		},
		"twice": {
			text: head + pkg("a", "", wheel(pure)) +
				pkg("A", "marker = \"os_name == 'posix'\"", wheel(pure)),
			errs: []string{"a 1 and A 1 are both wanted on Python 3.13.5, glibc 2.41, amd64"},
		},
		"what another machine needs isn't looked at": {
			text: head + "[[packages]]\nname = \"pywin32\"\nmarker = \"sys_platform == 'win32'\"\nsdist = {url = \"x\"}\n",
		},
		"several refused, each by name": {
			text: head + "[[packages]]\nname = \"only-sdist\"\nversion = \"2\"\nsdist = {url = \"https://example.org/x.tar.gz\"}\n" +
				"[[packages]]\nname = \"own\"\ndirectory = {path = \".\"}\n" +
				"[[packages]]\nname = \"git\"\nvcs = {type = \"git\"}\n" +
				"[[packages]]\nname = \"zip\"\narchive = {url = \"https://example.org/x.zip\"}\n",
			errs: []string{"only-sdist 2 has no wheel, only sources", "own comes from a directory",
				"git comes from a repository (vcs)", "zip comes from an archive of sources"},
			advice: "Make a wheel of it (pip wheel --no-deps, uv build --wheel)",
		},
		"none that fits": {
			text: head + pkg("a", "", wheel("a-1-cp312-cp312-manylinux_2_28_x86_64.whl"), wheel("a-1-cp313-cp313-win_amd64.whl")),
			errs: []string{"a 1 has no wheel for Python 3.13.5, glibc 2.41, amd64, only for cp312-cp312-manylinux_2_28_x86_64, " +
				"cp313-cp313-win_amd64"},
			advice: "Lock a version that has one",
		},
		"a glibc that is too new": {
			text: head + pkg("a", "", wheel("a-1-cp313-cp313-manylinux_2_42_x86_64.whl")), errs: []string{"has no wheel for"},
		},
		"a package for another Python": {
			text: head + pkg("a", "requires-python = \"<3.13\"", wheel(pure)),
			errs: []string{"a 1 is for Python <3.13, and the image has 3.13.5"}, advice: "Lock again for Python 3.13",
		},
		"all for another Python": {
			text: head + "requires-python = \">=3.14\"\n", errs: []string{"it is for Python >=3.14, and the image has 3.13.5"},
			advice: "Lock it again for Python 3.13",
		},
		"environments": {text: head + "environments = [\"sys_platform == 'darwin'\", \"sys_platform == 'linux'\"]\n"},
		"other environments": {
			text: head + "environments = [\"sys_platform == 'darwin'\"]\n",
			errs: []string{"but for: sys_platform == 'darwin'"},
		},
		"a group of others": {text: head + pkg("a", "marker = \"'dev' in dependency_groups\"", wheel(pure))},
		"a default group": {
			text: head + "default-groups = [\"dev\"]\n" + pkg("a", "marker = \"'dev' in dependency_groups\"", wheel(pure)),
			want: pure,
		},
		"a default group by its name": {
			text: head + "default-groups = [\"dev\"]\n" + pkg("a", "marker = \"'dev' in dependency_groups\"", wheel(pure)),
			want: pure, groups: []string{"dev"},
		},
		"a group that isn't there": {
			text: head + "dependency-groups = [\"dev\"]\ndefault-groups = [\"default\"]\n", groups: []string{"dev", "docs"},
			errs: []string{`it has no group "docs", only dev, default`}, advice: "uv export --group=docs",
		},
		"an extra": {
			text: head + "extras = [\"other\", \"X_y\"]\n" + pkg("a", "marker = \"'x-y' in extras\"", wheel(pure)),
			want: pure, extras: []string{"x.y"},
		},
		"an extra that isn't taken": {text: head + "extras = [\"x\"]\n" + pkg("a", "marker = \"'x' in extras\"", wheel(pure))},
		"an extra that isn't there": {
			text: head + "extras = [\"cpu\", \"cu126\"]\n", extras: []string{"cu128"},
			errs: []string{`it has no extra "cu128", only cpu, cu126`}, advice: "Name one that it has",
		},
		"an extra of none": {text: head, extras: []string{"cu128"}, errs: []string{`it has no extra "cu128", and no other either`}},
		"the kernel": {
			text: head + pkg("a", "marker = \"platform_release > '5'\"", wheel(pure)),
			errs: []string{"a 1: the marker", "known only where the image runs"},
		},
		"a password": {
			text: head + pkg("a", "", wheel("https://me:secret@example.org/a-1-py3-none-any.whl")),
			errs: []string{"example.org bears a user or a password"}, advice: "BERTH_PYPI_MIRROR",
		},
		"another package's wheel": {
			text: head + pkg("a", "", wheel("b-1-py3-none-any.whl")),
			errs: []string{"is of another package"},
		},
		"no wheel's name": {text: head + pkg("a", "", wheel("a.whl")), errs: []string{"a 1: wheel name"}},
		"a path": {
			text: head + "[[packages]]\nname = \"a\"\nwheels = [{path = \"dist/a-1-py3-none-any.whl\", " + sum + "}]\n",
			want: pure,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := parsePylock([]byte(c.text))
			require.NoError(t, err)
			chosen, err := l.choose(trixie, c.extras, c.groups, ".")
			var files []string
			for _, one := range chosen {
				files = append(files, one.File)
			}
			if len(c.errs) == 0 {
				require.NoError(t, err)
				assert.Equal(t, c.want, strings.Join(files, " "))
				return
			}
			for _, text := range c.errs {
				assert.ErrorContains(t, err, text)
			}
			assert.NotContains(t, err.Error(), "secret")
			assert.Contains(t, advice.Text(err, "mage"), c.advice)
		})
	}
}

func TestPylockOfAnotherVersion(t *testing.T) {
	for text, want := range map[string]string{
		"lock-version = \"2.0\"\npackages = \"another form\"\n": `its lock-version is "2.0", and Berth knows 1.0`,
		"lock-version = 2\n":                     `its lock-version is "2"`,
		"":                                       `its lock-version is ""`,
		"lock-version = \"1.0\"\npackages = 3\n": "incompatible types",
		"<<<<<<<":                                "toml",
		"lock-version = \"1.0\"\n[[packages]]\nname = \"../x\"": "makes no sense as a package",
	} {
		_, err := parsePylock([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
	l, err := parsePylock([]byte("lock-version = \"1.1\"\n"))
	require.NoError(t, err)
	assert.Empty(t, l.Packages)
}

// TestPin goes from a pylock.toml to the archive. A wheel is in the checkout, one has no
// size, one no SHA-256: they are fetched to lock them, and it is said.
func TestPin(t *testing.T) {
	a := wheeltest.New(t, "a", "1+cu128", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	b := wheeltest.New(t, "B_b", "2", "py3-none-any", map[string]string{"b.py": "x = 2\n"})
	c := wheeltest.New(t, "c", "3", "py3-none-any", map[string]string{"c.py": "x = 3\n"})
	d := wheeltest.New(t, "d", "4", "py3-none-any", map[string]string{"d.py": "x = 4\n"})
	index := wheeltest.Serve(t, a, b, c)
	text := head + entry(a, index.FileURL(a), "index = \""+index.HTML()+"/\"") +
		fmt.Sprintf("[[packages]]\nname = \"B_b\"\nversion = \"2\"\nwheels = [{url = %q, hashes = {sha256 = %q}}]\n",
			index.FileURL(b), b.SHA256()) +
		fmt.Sprintf("[[packages]]\nname = \"c\"\nwheels = [{url = %q, hashes = {md5 = \"00\"}}]\n", index.FileURL(c)) +
		fmt.Sprintf("[[packages]]\nname = \"d\"\nversion = \"4\"\nwheels = [{path = \"dist/%s\", hashes = {sha256 = %q}}]\n", d.File, d.SHA256())
	root, o, said := checkout(t, text)
	require.NoError(t, os.Mkdir(filepath.Join(root, "dist"), 0o755))
	write(t, root, "dist/"+d.File, string(d.Data))

	in := Input{}
	p, err := in.Pin(t.Context(), root, o)
	require.NoError(t, err)
	assert.Equal(t, []string{"+ wheel a 1+cu128", "+ wheel b-b 2", "+ wheel c 3", "+ wheel d 4"}, p.Changes)
	assert.Equal(t, input.Item{Name: "c", Version: "3"}, p.Items[2])
	assert.Contains(t, said.String(), "pylock.toml has no size of B_b-2-py3-none-any.whl: fetching it")
	assert.Contains(t, said.String(), "pylock.toml has no SHA-256 of c-3-py3-none-any.whl: fetching it")
	assert.NotContains(t, said.String(), a.File)
	lock := string(p.Files["docker/wheels.lock"])
	assert.Contains(t, lock, fmt.Sprintf("\nwheel a 1+cu128 a-1+cu128-py3-none-any.whl %d %s %s %s\n", len(a.Data),
		a.SHA256(), index.FileURL(a), index.HTML()))
	assert.Contains(t, lock, fmt.Sprintf("\nwheel c 3 c-3-py3-none-any.whl %d %s %s -\n", len(c.Data), c.SHA256(), index.FileURL(c)))
	assert.Contains(t, lock, fmt.Sprintf("%s dist/%s -\n", d.SHA256(), d.File))

	write(t, root, "docker/wheels.lock", lock)
	require.NoError(t, in.Check(root))
	again, err := in.Pin(t.Context(), root, o)
	require.NoError(t, err)
	assert.Empty(t, again.Changes)
	assert.Equal(t, lock, string(again.Files["docker/wheels.lock"]))

	// The archive, and that it is the same from another cache.
	locked, err := in.Read(root)
	require.NoError(t, err)
	listed := locked.(input.Listed).Files()
	assert.Equal(t, input.File{Kind: "pypi", Name: "a", Version: "1+cu128", SHA256: a.SHA256(), URL: index.FileURL(a)}, listed[0])
	assert.Empty(t, listed[3].URL)
	made, err := locked.Make(t.Context(), o)
	require.NoError(t, err)
	first, err := os.ReadFile(made.Path)
	require.NoError(t, err)
	files := untar(t, first)
	assert.Equal(t, string(a.Data), files["wheels/"+a.File])
	assert.Equal(t, string(install), files["wheels/install"])
	assert.Contains(t, files["wheels/requirements.txt"], "a==1+cu128 --hash=sha256:"+a.SHA256()+"\n")
	other := o
	other.Cache, other.Folder = newCache(t), t.TempDir()
	made, err = locked.Make(t.Context(), other)
	require.NoError(t, err)
	second, err := os.ReadFile(made.Path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(first, second))

	// A wheel stays in the cache as long as the archive is used, though nobody reads it.
	long := time.Now().Add(-40 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(o.Cache.Path(folder, a.SHA256()+".whl"), long, long))
	_, err = locked.Make(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, o.Cache.Prune(30*24*time.Hour, folder))
	assert.FileExists(t, o.Cache.Path(folder, a.SHA256()+".whl"))

	// Without the server, what is cached is enough; and a wheel that was damaged there isn't taken.
	index.Close()
	o.Folder = t.TempDir()
	_, err = locked.Make(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(o.Cache.Path(folder, a.SHA256()+".whl"), []byte("damaged"), 0o644))
	o.Folder = t.TempDir()
	_, err = locked.Make(t.Context(), o)
	require.ErrorContains(t, err, "fetching the wheel "+a.File)

	// What makes the lock stale.
	write(t, root, "pylock.toml", text+"\n# another\n")
	require.ErrorIs(t, in.Check(root), input.ErrPinsDiffer)
	write(t, root, "pylock.toml", text)
	require.NoError(t, in.Check(root))
	assert.ErrorIs(t, Input{Extras: []string{"x"}}.Check(root), input.ErrPinsDiffer)
	write(t, root, "docker/packages.lock", strings.Replace(packagesLock, "python3.13 3.13.5-2", "python3.13 3.13.6-1", 1))
	err = in.Check(root)
	require.ErrorIs(t, err, input.ErrPinsDiffer)
	assert.ErrorContains(t, err, "is for Python 3.13.5, glibc 2.41, amd64, and docker/packages.lock has Python 3.13.6")
	// A pin that moves both sees the new one.
	o.Pinned = map[string][]byte{"docker/packages.lock": []byte(strings.Replace(packagesLock, "libc6 2.41", "libc6 2.42", 1))}
	p, err = in.Pin(t.Context(), root, o)
	require.NoError(t, err)
	assert.Contains(t, string(p.Files["docker/wheels.lock"]), "\nglibc 2.42\n")
	assert.Equal(t, locked.Hash(), p.Hash(), "another Python, the same wheels")
}

// TestOtherSums has no SHA-256, but a sum by another algorithm.
func TestOtherSums(t *testing.T) {
	w := wheeltest.New(t, "a", "1", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	index := wheeltest.Serve(t, w)
	sum := fmt.Sprintf("%x", sha512.Sum512(w.Data))
	text := head + fmt.Sprintf("[[packages]]\nname = \"a\"\nwheels = [{url = %q, hashes = {sha512 = %q}}]\n", index.FileURL(w), sum)
	root, o, _ := checkout(t, text)
	p, err := Input{}.Pin(t.Context(), root, o)
	require.NoError(t, err)
	assert.Contains(t, string(p.Files["docker/wheels.lock"]), w.SHA256())
	write(t, root, "pylock.toml", strings.Replace(text, sum, strings.Repeat("0", 128), 1))
	write(t, root, "docker/wheels.lock", string(p.Files["docker/wheels.lock"]))
	_, err = Input{}.Pin(t.Context(), root, o)
	assert.ErrorContains(t, err, "its sha512 is "+sum+", locked is 000")
}

func untar(t *testing.T, data []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		files[h.Name] = string(content)
	}
}

func TestMissingFiles(t *testing.T) {
	root, o, _ := checkout(t, head)
	require.NoError(t, os.Remove(filepath.Join(root, "pylock.toml")))
	_, err := Input{}.Pin(t.Context(), root, o)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Contains(t, advice.Text(err, "mage"), "uv export --format pylock.toml")
	_, err = Input{}.Read(root)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Contains(t, advice.Text(err, "mage"), "mage pin")
}

// TestWhiteSpace pins what couldn't be read from the lock again.
func TestWhiteSpace(t *testing.T) {
	w := wheeltest.New(t, "a", "1", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	for name, text := range map[string]string{
		"path":        strings.Replace(entry(w, "", ""), "url = \"\"", "path = \"our dist/"+w.File+"\"", 1),
		"address":     entry(w, "https://example.org/a b/"+w.File+"?token=secret", ""),
		"index":       entry(w, "https://example.org/"+w.File, "index = \"https://example.org/a\u00a0b\""),
		"unknown sum": "[[packages]]\nname = \"a\"\nwheels = [{url = \"https://example.org/a b/" + w.File + "\"}]\n",
	} {
		root, o, _ := checkout(t, head+text)
		_, err := Input{}.Pin(t.Context(), root, o)
		require.ErrorContains(t, err, "the wheel of a 1: there is white space", name)
		assert.NotContains(t, err.Error(), "secret", name)
		assert.Contains(t, advice.Text(err, "mage"), "%20", name)
	}
}

// TestDamagedLock does what its error says.
func TestDamagedLock(t *testing.T) {
	root, o, _ := checkout(t, head)
	write(t, root, "docker/wheels.lock", "<<<<<<< HEAD\n")
	for range 2 {
		_, err := Input{}.Pin(t.Context(), root, o)
		require.ErrorContains(t, err, "is no line of a lock")
		assert.Contains(t, advice.Text(err, "mage"), "or remove it and type\n\tmage pin")
	}
	require.NoError(t, os.Remove(filepath.Join(root, "docker/wheels.lock")))
	_, err := Input{}.Pin(t.Context(), root, o)
	assert.NoError(t, err)
}

// TestSources looks for a wheel in one place after the other.
func TestSources(t *testing.T) {
	w := wheeltest.New(t, "Some_Thing", "1+x", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	index, nothing := wheeltest.Serve(t, w), wheeltest.Serve(t)
	other := w
	other.Data = bytes.Clone(w.Data)
	other.Data[100]++
	wrong := wheeltest.Serve(t, other)
	file := "/team/files/" + w.File
	for name, c := range map[string]struct {
		mirror, url, index string
		asked              []string // of the index that has it
		err                []string
	}{
		"its own address": {url: index.FileURL(w), index: index.HTML(), asked: []string{file}},
		"mirror, HTML":    {mirror: index.HTML(), url: nothing.FileURL(w), asked: []string{"/team/html/some-thing/", file}},
		"mirror, JSON":    {mirror: index.JSON() + "/", url: nothing.FileURL(w), asked: []string{"/team/json/some-thing/", file}},
		"the index": {mirror: nothing.JSON(), url: nothing.FileURL(w), index: index.JSON(),
			asked: []string{"/team/json/some-thing/", file}},
		"another file": {mirror: wrong.HTML(), url: index.FileURL(w), asked: []string{file}},
		"nowhere": {
			mirror: strings.Replace(nothing.JSON(), "://", "://me:secret@", 1), url: wrong.FileURL(w), index: nothing.HTML(),
			err: []string{nothing.JSON() + ": not there", "it sent another file", nothing.HTML() + ": not there"},
		},
		"a malformed mirror": {
			mirror: "http://me:secret@[bad", url: nothing.FileURL(w), err: []string{"a mirror whose address makes no sense: its address isn't a URL"},
		},
		"nobody there": {mirror: "http://127.0.0.1:1/simple", url: "http://127.0.0.1:1/x.whl",
			err: []string{"http://127.0.0.1:1/simple: no answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(EnvMirror, c.mirror)
			index.Asked()
			l := Wheel{Name: "some-thing", Version: "1+x", File: w.File, Size: int64(len(w.Data)), SHA256: w.SHA256(), URL: c.url, Index: c.index}
			require.NoError(t, l.check())
			paths, err := newFetcher(t.TempDir(), input.Options{Cache: newCache(t)}).fetchAll(t.Context(), []Wheel{l})
			if len(c.err) > 0 {
				for _, text := range c.err {
					assert.ErrorContains(t, err, text)
				}
				assert.NotContains(t, err.Error(), "secret")
				assert.Contains(t, advice.Text(err, "mage"), EnvMirror)
				return
			}
			require.NoError(t, err)
			data, err := os.ReadFile(paths[0])
			require.NoError(t, err)
			assert.Equal(t, w.Data, data)
			assert.Equal(t, c.asked, index.Asked())
		})
	}
}

// TestMirrorWithPassword hands user and password on, to the mirror alone.
func TestMirrorWithPassword(t *testing.T) {
	w := wheeltest.New(t, "a", "1", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	index := wheeltest.Serve(t, w)
	guarded := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		index.ServeHTTP(rw, r)
	}))
	t.Cleanup(guarded.Close)
	l := Wheel{Name: "a", Version: "1", File: w.File, Size: int64(len(w.Data)), SHA256: w.SHA256(), URL: "http://127.0.0.1:1/" + w.File}
	t.Setenv(EnvMirror, strings.Replace(guarded.URL, "://", "://me:secret@", 1)+"/team/html/")
	_, err := newFetcher("", input.Options{Cache: newCache(t)}).fetchAll(t.Context(), []Wheel{l})
	require.NoError(t, err)
	t.Setenv(EnvMirror, guarded.URL+"/team/html/")
	_, err = newFetcher("", input.Options{Cache: newCache(t)}).fetchAll(t.Context(), []Wheel{l})
	require.ErrorContains(t, err, "401")
}

// TestCutWheelIsResumed cuts the first answer off.
func TestCutWheelIsResumed(t *testing.T) {
	w := wheeltest.New(t, "a", "1", "py3-none-any", map[string]string{"a.py": "x = 1\n"})
	var ranges []string
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) == 1 {
			rw.Header().Set("Content-Length", fmt.Sprint(len(w.Data)))
			rw.Write(w.Data[:100])
			return
		}
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(w.Data))
	}))
	t.Cleanup(server.Close)
	l := Wheel{Name: "a", Version: "1", File: w.File, Size: int64(len(w.Data)), SHA256: w.SHA256(), URL: server.URL + "/" + w.File}
	f := newFetcher("", input.Options{Cache: newCache(t)})
	_, err := f.fetchAll(t.Context(), []Wheel{l})
	require.Error(t, err)
	_, err = f.fetchAll(t.Context(), []Wheel{l})
	require.NoError(t, err)
	assert.Equal(t, []string{"", "bytes=100-"}, ranges)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.SHA256 = strings.Repeat("0", 64)
	_, err = f.fetchAll(ctx, []Wheel{l})
	assert.ErrorIs(t, err, context.Canceled)
}

func TestCollisions(t *testing.T) {
	wheel := func(name string, files map[string]string) wheeltest.Wheel {
		return wheeltest.New(t, name, "1", "py3-none-any", files)
	}
	for name, c := range map[string]struct {
		a, b map[string]string
		err  string
	}{
		"the same": {map[string]string{"nvidia/__init__.py": "#\n"}, map[string]string{"nvidia/__init__.py": "#\n"}, ""},
		"another": {map[string]string{"nvidia/__init__.py": "#\n"}, map[string]string{"nvidia/__init__.py": "##\n"},
			"a-1-py3-none-any.whl and b-1-py3-none-any.whl both install lib/python3.13/dist-packages/nvidia/__init__.py, with different content"},
		"as long": {map[string]string{"x.py": "1"}, map[string]string{"x.py": "2"}, "both install"},
		"by .data": {map[string]string{"x.py": "1"}, map[string]string{"b-1.data/purelib/x.py": "2"},
			"both install lib/python3.13/dist-packages/x.py"},
		"scripts": {map[string]string{"a-1.data/scripts/x": "1"}, map[string]string{"b-1.data/data/bin/x": "2"}, "both install bin/x"},
		"entry point": {map[string]string{"a-1.dist-info/entry_points.txt": "[console_scripts]\nx = a:b\n"},
			map[string]string{"b-1.dist-info/entry_points.txt": "[other]\ny=1\n[console_scripts]\nx=b:c"}, "both install bin/x"},
		"same entry": {map[string]string{"a-1.dist-info/entry_points.txt": "[console_scripts]\nx = a:b\n"},
			map[string]string{"b-1.dist-info/entry_points.txt": "[gui_scripts]\nx=a:b"}, ""},
		"a folder": {map[string]string{"x": "1"}, map[string]string{"x/y/z.py": "1"},
			"a-1-py3-none-any.whl installs lib/python3.13/dist-packages/x, which is a folder of b-1-py3-none-any.whl"},
		"headers":   {map[string]string{"a-1.data/headers/x.h": "1"}, map[string]string{"b-1.data/headers/x.h": "2"}, ""},
		"leads out": {map[string]string{"../x": "1"}, nil, "leads out of it"},
		"nowhere":   {map[string]string{"a-1.data/nothing/x": "1"}, nil, "belongs nowhere"},
		"in itself": {map[string]string{"a-1.data/purelib/x": "1", "x": "1"}, nil, "twice"},
	} {
		l, paths := Lock{Python: trixie}, []string{}
		for _, w := range []wheeltest.Wheel{wheel("a", c.a), wheel("b", c.b)} {
			l.Wheels = append(l.Wheels, Wheel{Name: w.Name, Version: "1", File: w.File})
			paths = append(paths, filepath.Join(t.TempDir(), w.File))
			require.NoError(t, os.WriteFile(paths[len(paths)-1], w.Data, 0o644))
		}
		err := checkCollisions(l, paths)
		if c.err == "" {
			assert.NoError(t, err, name)
		} else {
			assert.ErrorContains(t, err, c.err, name)
		}
	}
}

func TestWrongLocks(t *testing.T) {
	const good = "wants x\npython 3.13.5\nglibc 2.41\narchitecture amd64\n"
	const sum = "0000000000000000000000000000000000000000000000000000000000000000"
	l, err := parseLock(good + "wheel a 1 a-1-py3-none-any.whl 5 " + sum + " https://example.org/a-1-py3-none-any.whl -\n")
	require.NoError(t, err)
	again, err := parseLock(string(l.Marshal()))
	require.NoError(t, err)
	assert.Equal(t, l, again)
	for _, line := range []string{
		"wheel a 1 a-1-py3-none-any.whl 5 00 https://example.org/x -", "wheel a 1 ../a-1-py3-none-any.whl 5 " + sum + " https://example.org/x -",
		"wheel a 1 a-1-py3-none-any.whl 0 " + sum + " https://example.org/x -", "wheel a 1 a-1-py3-none-any.whl 5 " + sum + " ../x -",
		"wheel a 1 a-1-py3-none-any.whl 5 " + sum + " /etc/passwd -", "wheel a 1 a-1-py3-none-any.whl 5 " + sum + " file:///etc/passwd -",
		"wheel a 1 a-1-py3-none-any.whl 5 " + sum + " https://me:x@example.org/x -", "wheel a 1;x a-1-py3-none-any.whl 5 " + sum +
			" https://example.org/x -",
		"wheel b 1 a-1-py3-none-any.whl 5 " + sum + " https://example.org/x -", "wheel a 1", "glibc 3.0", "python 2.7.18",
		"architecture riscv64", "x",
		strings.Repeat("wheel a 1 a-1-py3-none-any.whl 5 "+sum+" https://example.org/x -\n", 2),
	} {
		_, err := parseLock(good + line + "\n")
		assert.Error(t, err, line)
	}
}

func FuzzLock(f *testing.F) {
	f.Add("wants x\npython 3.13.5\nglibc 2.41\narchitecture amd64\nwheel a 1 a-1-py3-none-any.whl 5 " + strings.Repeat("0", 64) +
		" https://example.org/x -\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLock(text)
		if err != nil {
			return
		}
		again, err := parseLock(string(l.Marshal()))
		require.NoError(t, err)
		require.Equal(t, l, again)
		for _, w := range l.Wheels {
			require.True(t, filepath.IsLocal(w.File) && !strings.ContainsAny(w.File, "/\\"))
		}
	})
}

func FuzzPylock(f *testing.F) {
	f.Add(head + "[[packages]]\nname = \"a\"\nmarker = \"os_name == 'posix'\"\n" +
		"wheels = [{url = \"https://example.org/a-1-py3-none-any.whl\", size = 3, hashes = {sha256 = \"00\"}}]\n")
	f.Add(head + "[[packages]]\nname = \"a\"\nwheels = [{path = \"../../a-1-py3-none-any.whl\"}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parsePylock([]byte(text))
		if err != nil {
			return
		}
		chosen, err := l.choose(trixie, nil, nil, ".")
		if err != nil {
			return
		}
		for _, c := range chosen {
			require.False(t, strings.ContainsAny(c.File, "/\\"), c.File)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add([]byte(`<base href="/x/"><a href="a-1.whl#sha256=0">a</a>`))
	f.Add([]byte(`{"files": [{"filename": "a.whl", "url": "../a.whl"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parsePage(data)
	})
}

func TestPage(t *testing.T) {
	links, err := parsePage([]byte("<html><base href='https://files.example.org/x/'>" +
		"<A class=a HREF='../a-1%2Bcu-py3-none-any.whl#sha256=00'>a</A><a>no</a>" +
		"<!-- <a href=\"b-1-py3-none-any.whl\">b</a> --><a href='https://other.example.org/c?x=1&amp;y=2'>c</a>"))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		"a-1+cu-py3-none-any.whl": "https://files.example.org/a-1%2Bcu-py3-none-any.whl#sha256=00", "c": "https://other.example.org/c?x=1&y=2",
	}, links)
	links, err = parsePage([]byte(`<a href="../../files/a.whl">a</a><a href="/b.whl">b</a>`))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a.whl": "../../files/a.whl", "b.whl": "/b.whl"}, links, "relative to the page")
	_, err = parsePage([]byte("{"))
	assert.Error(t, err)
}
