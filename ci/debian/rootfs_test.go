package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/testenv"
)

var epoch = time.Unix(1_700_000_000, 0)

// rootfs unpacks packages, in the order given.
func rootfs(t testing.TB, debs ...[]byte) ([]byte, error) {
	t.Helper()
	var p Packages
	for _, data := range debs {
		p.Files = append(p.Files, Fetched{Path: save(t, data)})
	}
	temp := t.TempDir()
	var b bytes.Buffer
	err := Rootfs(t.Context(), &b, p, epoch, temp, nil)
	left, rerr := os.ReadDir(temp)
	require.NoError(t, rerr)
	assert.Empty(t, left, "temporary files were left")
	return b.Bytes(), err
}

// listing describes a tar, an entry a line, and returns its files by name.
func listing(t testing.TB, data []byte) (text string, files map[string]string) {
	t.Helper()
	var b strings.Builder
	files = map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return b.String(), files
		}
		require.NoError(t, err)
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		files[h.Name] = string(content)
		assert.Equal(t, epoch.Unix(), h.ModTime.Unix(), h.Name)
		if !strings.HasPrefix(h.Name, "var/lib/dpkg/") {
			fmt.Fprintf(&b, "%c %04o %s", h.Typeflag, h.Mode, h.Name)
			if h.Linkname != "" {
				fmt.Fprintf(&b, " -> %s", h.Linkname)
			}
			b.WriteByte('\n')
		}
	}
}

const control = "Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x\nDescription: x\n%s"

func TestRootfs(t *testing.T) {
	a := makeDeb(t, fmt.Sprintf(control, "a", "1", "Multi-Arch: same"), []fileOf{
		{name: "./"}, {name: "./bin/"}, {name: "./bin/tool", content: "tool", mode: 0o4755},
		{name: "./etc/"}, {name: "./etc/a.conf", content: "conf"},
		{name: "./usr/lib/a/z", content: "linked"}, {name: "./usr/lib/a/b", link: "./usr/lib/a/z", kind: tar.TypeLink},
		{name: "./usr/share/s", link: "../lib/a", kind: tar.TypeSymlink, mode: 0o777},
	}, fileOf{name: "./conffiles", content: "/etc/a.conf\n"}, fileOf{name: "./postinst", content: "#!/bin/sh\n"})
	b := makeDeb(t, fmt.Sprintf(control, "b", "2", "Replaces: a (<< 2)"),
		[]fileOf{{name: "./usr/lib/a/"}, {name: "./usr/lib/a/z", content: "replaced"}})
	data, err := rootfs(t, a, b)
	require.NoError(t, err)
	text, files := listing(t, data)
	assert.Equal(t, `2 0777 bin -> usr/bin
5 0755 etc/
0 0644 etc/a.conf.dpkg-new
5 0755 etc/alternatives/
2 0777 lib -> usr/lib
2 0777 lib32 -> usr/lib32
2 0777 lib64 -> usr/lib64
2 0777 libx32 -> usr/libx32
2 0777 sbin -> usr/sbin
5 0755 usr/
5 0755 usr/bin/
0 4755 usr/bin/tool
5 0755 usr/lib/
5 0755 usr/lib/a/
0 0644 usr/lib/a/b
0 0644 usr/lib/a/z
5 0755 usr/lib32/
5 0755 usr/lib64/
5 0755 usr/libx32/
5 0755 usr/sbin/
5 0755 usr/share/
2 0777 usr/share/s -> ../lib/a
5 0755 var/
5 0755 var/lib/
`, text)
	assert.Equal(t, "linked", files["usr/lib/a/b"])
	assert.Equal(t, "replaced", files["usr/lib/a/z"])
	assert.Contains(t, files["var/lib/dpkg/status"], "Package: a\nStatus: install ok unpacked\n")
	assert.Contains(t, files["var/lib/dpkg/status"], "Conffiles:\n /etc/a.conf newconffile\n")
	assert.Equal(t, "/.\n/bin\n/bin/tool\n/etc\n/etc/a.conf\n/usr/lib/a/b\n/usr/share/s\n", files["var/lib/dpkg/info/a:amd64.list"])
	assert.Equal(t, "#!/bin/sh\n", files["var/lib/dpkg/info/a:amd64.postinst"])
	assert.Contains(t, files, "var/lib/dpkg/info/b.list")

	old := runtime.GOMAXPROCS(1)
	again, err := rootfs(t, a, b)
	runtime.GOMAXPROCS(old)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, again), "not the same bytes")
}

func TestRootfsRefuses(t *testing.T) {
	one := func(f ...fileOf) [][]byte { return [][]byte{makeDeb(t, fmt.Sprintf(control, "evil", "6.6.6", ""), f)} }
	good := simple(t, "good", "1")
	for name, c := range map[string]struct {
		debs [][]byte
		says string
	}{
		"climbs out":           {one(fileOf{name: "./../etc/passwd", content: "x"}), "leads out of the root"},
		"climbs out by detour": {one(fileOf{name: "./usr/../../x", content: "x"}), "leads out of the root"},
		"absolute":             {one(fileOf{name: "/etc/passwd", content: "x"}), "leads out of the root"},
		"through a link": {one(fileOf{name: "./x", link: "/etc", kind: tar.TypeSymlink}, fileOf{name: "./x/passwd", content: "x"}),
			"written through x"},
		"through another's link": {append(one(fileOf{name: "./x", link: "../..", kind: tar.TypeSymlink}),
			makeDeb(t, fmt.Sprintf(control, "evil2", "6.6.6", ""), []fileOf{{name: "./x/y", content: "z"}})), "written through x"},
		"hard link out":        {one(fileOf{name: "./x", link: "../../etc/shadow", kind: tar.TypeLink}), "leads out of the root"},
		"hard link to nothing": {one(fileOf{name: "./x", link: "./etc/shadow", kind: tar.TypeLink}), "isn't one of its files"},
		"device":               {one(fileOf{name: "./dev/sda", kind: tar.TypeBlock}), "a device or a pipe"},
		"pipe":                 {one(fileOf{name: "./x", kind: tar.TypeFifo}), "a device or a pipe"},
		"dpkg's own files":     {one(fileOf{name: "./var/lib/dpkg/status", content: "x"}), "ships a file"},
		"dpkg's own folder":    {one(fileOf{name: "./var/lib/dpkg", link: "/etc", kind: tar.TypeSymlink}), "written through var/lib/dpkg"},
		"another's file":       {append(one(fileOf{name: "./usr/good", content: "x"}), good), "is also in package"},
		"another's file, replaced in an older version only": {[][]byte{
			makeDeb(t, fmt.Sprintf(control, "evil", "6.6.6", "Replaces: good (<< 1)"), []fileOf{{name: "./usr/good", content: "x"}}), good},
			"is also in package"},
		"a folder where a file is": {append(one(fileOf{name: "./usr/good/"}), good), "is there already, as something else"},
		"cut short":                {[][]byte{good[:len(good)-100]}, "unpacking package"},
		"no package":               {[][]byte{[]byte("hello")}, "unpacking package"},
		"no data":                  {[][]byte{good[:bytes.Index(good, []byte("data.tar"))]}, "lacks a part"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rootfs(t, c.debs...)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.says)
			if strings.Contains(c.says, "root") {
				assert.Contains(t, err.Error(), "package evil")
			}
		})
	}
}

func TestRootfsFile(t *testing.T) {
	good := Packages{Files: []Fetched{{Path: save(t, simple(t, "good", "1"))}}}
	bad := Packages{Files: []Fetched{{Path: save(t, []byte("hello"))}}}
	temp := t.TempDir()
	for _, name := range []string{"rootfs.tar", "rootfs.tar.zst"} {
		name = filepath.Join(t.TempDir(), "deeper", name)
		_, err := RootfsFile(t.Context(), name, bad, epoch, temp, nil)
		require.Error(t, err)
		name, err = RootfsFile(t.Context(), name, good, epoch, temp, nil)
		require.NoError(t, err)
		data, err := os.ReadFile(name)
		require.NoError(t, err)

		stopped, stop := context.WithCancel(t.Context())
		stop()
		_, err = RootfsFile(t.Context(), name, bad, epoch, temp, nil)
		require.Error(t, err)
		_, err = RootfsFile(stopped, name, good, epoch, temp, nil)
		require.ErrorIs(t, err, context.Canceled)
		after, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(data, after), "the one before was lost")

		if filepath.Ext(name) == ".zst" {
			z, err := zstd.NewReader(nil)
			require.NoError(t, err)
			defer z.Close()
			data, err = z.DecodeAll(data, nil)
			require.NoError(t, err)
		}
		_, files := listing(t, data)
		assert.Equal(t, "good 1", files["usr/good"])
	}
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left, "temporary files were left")
}

func FuzzUnpackDeb(f *testing.F) {
	f.Add([]byte("!<arch>\n"))
	f.Add([]byte("hello"))
	f.Add(simple(f, "a", "1"))
	f.Add(makeDeb(f, "Package: a\n", []fileOf{{name: "./x", link: "./y", kind: tar.TypeLink}}, fileOf{name: "./conffiles", content: "/x\n"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if u, err := unpackDeb(save(t, data), t.TempDir()); err == nil {
			u.close()
		}
	})
}

func FuzzParseLock(f *testing.F) {
	f.Add(lockHeader + "snapshot 20260102T030405Z\nwants x\narchitecture amd64\nsuite debian bookworm main\n")
	f.Add("snapshot 20260102T030405Z\nwants x\narchitecture amd64\nsuite debian bookworm main\ndate debian bookworm 20260102T000000Z\n")
	f.Add("snapshot 20260102T030405Z\nwants x\narchitecture amd64\narchive cuda http://x/y docker/cuda.gpg ABCD\nsuite cuda ./\n")
	f.Add("package a 1 all debian pool/x 1 " + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLock(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := ParseLock(bytes.NewReader(l.Marshal()))
		require.NoError(t, err, "what was read can't be read again")
		require.Equal(t, l.Marshal(), again.Marshal())
	})
}

func FuzzParagraphs(f *testing.F) {
	f.Add("Package: a\nDepends: b (>= 1) | c,\n d:any\n\nPackage: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		eachParagraph(reader(text), func(p paragraph) error {
			if one, err := newPackage(p, "debian"); err == nil {
				require.NoError(t, one.check())
			}
			possibilities(p["Depends"])
			return nil
		})
		parseSources(text)
		parseSourcesList(text)
	})
}

func TestSources(t *testing.T) {
	m := Mirrors{}
	m.add(parseSourcesList(`# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://a.example/debian/ bookworm main # more
deb-src http://source.example/debian bookworm main
deb file:/mnt/debian bookworm main
deb http://other.example/packages bookworm main
deb [arch=amd64] https://download.docker.example/linux/debian bookworm stable
deb https://flat.example/debian ./
deb [signed-by=/usr/share/keyrings/runner.gpg arch=amd64] https://packages.gitlab.example/runner/debian/ bookworm main
deb http://a.example/debian bookworm-updates contrib main
deb
`))
	m.add(parseSources(`Types: deb deb-src
URIs: https://b.example/debian https://c.example/debian-security
Suites: bookworm
Components: contrib main

Enabled: no
Types: deb
URIs: https://off.example/debian
Components: main

Types: deb
URIs: https://download.virtualbox.example/virtualbox/debian
Suites: bookworm
Components: contrib

Types: deb
URIs: https://pkgs.vpn.example/stable/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vpn.gpg

Types: deb
URIs: https://d.example/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: https://source.example/debian
`))
	assert.Equal(t, Mirrors{"debian": {"http://a.example/debian", "https://b.example/debian", "https://d.example/debian"},
		"debian-security": {"https://c.example/debian-security"}}, m)

	t.Setenv(EnvMirror, "https://mirror.example/")
	r, err := Options{Mirrors: HostMirrors()}.reader()
	require.NoError(t, err)
	times := Lock{Snapshot: epoch}.snapshots()
	assert.Equal(t, []string{
		"https://mirror.example/debian", "https://snapshot.debian.org/archive/debian/20231114T221320Z",
		"https://snapshot.debian.org/archive/debian/20231115T041320Z", "https://snapshot.debian.org/archive/debian/20231115T221320Z",
	}, r.bases("debian", "", times...))
	assert.Equal(t, []string{"https://mirror.example/cuda", "https://cuda.example"}, r.bases("cuda", "https://cuda.example", times...))
}

func TestManifestIsStrict(t *testing.T) {
	const good = "architecture = \"amd64\"\n[[suite]]\narchive = \"debian\"\nname = \"bookworm\"\ncomponents = [\"main\"]\n"
	for text, says := range map[string]string{
		good:                                 "",
		good + "[[package]]\nname = \"a\"\n": "package a has no why",
		good + "[[package]]\nname = \"a b\"\nwhy = \"x\"\n":                                       "is no name of a package",
		good + "[[package]]\nname = \"a\"\nwhy = \"x\"\n[[package]]\nname = \"a\"\nwhy = \"y\"\n": "is there twice",
		good + "[nonsense]\n":                       `what is "nonsense"?`,
		strings.Replace(good, "main", "../main", 1): "plain words",
		"architecture = \"amd64\"\n":                "no [[suite]]",
		"":                                          "architecture is missing",
		"=":                                         "reading",
	} {
		name := save(t, []byte(text))
		_, err := ReadManifest(name)
		if says == "" {
			assert.NoError(t, err)
			continue
		}
		assert.ErrorContains(t, err, says)
	}
}

func TestCheckAndDiff(t *testing.T) {
	_, l, _ := pinned(t, "1")
	assert.Empty(t, stale(manifest("a"), l))
	assert.Equal(t, "not locked: b", stale(manifest("a", "b"), l))
	without := l
	without.Packages = nil
	assert.Equal(t, "not locked: a", stale(manifest("a"), without), "a line was lost")
	why := manifest("a")
	why.Packages[0].Why = "another reason"
	assert.Empty(t, stale(why, l))
	other := manifest("a")
	other.Suites[0].Name = "trixie"
	assert.Contains(t, stale(other, l), "changed since")

	newer := l
	newer.Packages = slices.Clone(l.Packages)
	newer.Packages[0].Version, newer.Packages[0].SHA256 = "2", strings.Repeat("1", 64)
	newer.Packages = append(newer.Packages, Package{Name: "b", Version: "1", SHA256: strings.Repeat("2", 64)})
	var text []string
	for _, c := range Diff(l, newer) {
		text = append(text, c.String())
	}
	assert.Equal(t, []string{"~ a 1 -> 2", "+ b 1"}, text)
	assert.Equal(t, "- a 1", Diff(l, without)[0].String())
}

// BenchmarkRootfs unpacks the locked packages of the image, and lets dpkg-deb
// do the same if there is one.
func BenchmarkRootfs(b *testing.B) {
	l, err := ReadLock("../../docker/packages.lock")
	require.NoError(b, err)
	dir, err := cache.Open()
	require.NoError(b, err)
	packages, err := Fetch(b.Context(), l, FetchOptions{Options: Options{Mirrors: HostMirrors(), Cache: dir}})
	require.NoError(b, err)
	var ours time.Duration
	b.Run("berth", func(b *testing.B) {
		for b.Loop() {
			var n countWriter
			require.NoError(b, Rootfs(b.Context(), &n, packages, l.Snapshot, b.TempDir(), nil))
			b.SetBytes(int64(n))
		}
		ours = b.Elapsed() / time.Duration(b.N)
	})
	b.Run("dpkg-deb", func(b *testing.B) {
		dpkgDeb := testenv.NeedsCommand(b, testenv.DpkgDeb, "dpkg-deb")
		for b.Loop() {
			target := b.TempDir()
			for _, f := range packages.Files {
				require.NoError(b, exec.Command(dpkgDeb, "-x", f.Path, target).Run())
			}
		}
		b.ReportMetric(float64(ours)/float64(b.Elapsed()/time.Duration(b.N)), "berth/dpkg-deb")
	})
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

func TestCheckFilesNamesTheStaleOne(t *testing.T) {
	_, l, _ := pinned(t, "1")
	toml := filepath.Join(t.TempDir(), "packages.toml")
	lock := filepath.Join(t.TempDir(), "packages.lock")
	require.NoError(t, l.WriteFile(lock))
	text := "architecture = \"amd64\"\n[[suite]]\narchive = \"debian\"\nname = \"bookworm\"\ncomponents = [\"main\"]\n"
	a, b := "[[package]]\nname = \"a\"\nwhy = \"x\"\n", "[[package]]\nname = \"b\"\nwhy = \"x\"\n"
	require.NoError(t, os.WriteFile(toml, []byte(text+a), 0o644))
	require.NoError(t, CheckFiles(toml, lock))
	require.NoError(t, os.WriteFile(toml, []byte(text+a+b), 0o644))
	err := CheckFiles(toml, lock)
	require.ErrorIs(t, err, input.ErrPinsDiffer)
	assert.ErrorContains(t, err, lock+" isn't what "+toml+" asks for (not locked: b)")
	assert.Contains(t, advice.Text(err, "go tool mage"), "Type\n\tgo tool mage pin")
	assert.ErrorIs(t, CheckFiles(toml, lock+".gone"), fs.ErrNotExist)
	assert.ErrorIs(t, CheckFiles(toml+".gone", lock), fs.ErrNotExist)
}

// What a package loses to one that replaces it isn't in its list of files, nor is it
// there twice: a conffile is a file like any other, whichever of the two has it as one.
func TestConffileThatAnotherTakesOver(t *testing.T) {
	conffile := fileOf{name: "./conffiles", content: "/etc/x\n"}
	deb := func(name, fields string, more ...fileOf) []byte {
		return makeDeb(t, fmt.Sprintf(control, name, "1", fields),
			[]fileOf{{name: "./etc/"}, {name: "./etc/x", content: name}, {name: "./etc/x-of-" + name}}, more...)
	}
	for name, c := range map[string]struct{ loser, winner []fileOf }{
		"both":        {[]fileOf{conffile}, []fileOf{conffile}},
		"loser only":  {[]fileOf{conffile}, nil},
		"winner only": {nil, []fileOf{conffile}},
		"neither":     {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			loser, winner := deb("loser", "", c.loser...), deb("winner", "Replaces: loser", c.winner...)
			for _, order := range [][][]byte{{loser, winner}, {winner, loser}} {
				data, err := rootfs(t, order...)
				require.NoError(t, err)
				_, files := listing(t, data)
				assert.Equal(t, "/etc\n/etc/x-of-loser\n", files["var/lib/dpkg/info/loser.list"])
				assert.Equal(t, "/etc\n/etc/x\n/etc/x-of-winner\n", files["var/lib/dpkg/info/winner.list"])
				at, other := "etc/x", "etc/x.dpkg-new"
				if c.winner != nil {
					at, other = other, at
				}
				assert.Equal(t, "winner", files[at])
				assert.NotContains(t, files, other)
			}
			_, err := rootfs(t, loser, deb("winner", "", c.winner...))
			assert.ErrorContains(t, err, "etc/x is also in package loser")
		})
	}
	_, err := rootfs(t, makeDeb(t, fmt.Sprintf(control, "a", "1", ""), []fileOf{{name: "./etc/x"}, {name: "./etc/x.dpkg-new"}}, conffile))
	assert.ErrorContains(t, err, "etc/x.dpkg-new is there already")
}

func TestExtractOverwritesNothing(t *testing.T) {
	f := Fetched{Package: Package{Name: "set", Version: "1"},
		Path: save(t, makeDeb(t, "Package: set\nVersion: 1\nArchitecture: all\n", []fileOf{
			{name: "./set/a", content: "ay"}, {name: "./set/b", content: "bee"}, {name: "./set/c", content: "sea"},
		}))}
	for name, put := range map[string]func(name string) error{
		"other content": func(name string) error { return os.WriteFile(name, []byte("own"), 0o644) },
		"longer":        func(name string) error { return os.WriteFile(name, []byte("bees"), 0o644) },
		"a folder":      func(name string) error { return os.Mkdir(name, 0o755) },
		"a dead link":   func(name string) error { return os.Symlink("nowhere", name) },
		"a pipe":        func(name string) error { return syscall.Mkfifo(name, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("ay"), 0o644))
			require.NoError(t, put(filepath.Join(dir, "b")))
			before, err := os.Lstat(filepath.Join(dir, "b"))
			require.NoError(t, err)
			_, err = extract(f, "set", dir, t.TempDir())
			require.ErrorIs(t, err, errDiffers)
			assert.ErrorContains(t, err, filepath.Join(dir, "b"))
			assert.NotContains(t, err.Error(), filepath.Join(dir, "a"), "it has the same content")
			after, err := os.Lstat(filepath.Join(dir, "b"))
			require.NoError(t, err)
			assert.True(t, os.SameFile(before, after))
			assert.NoFileExists(t, filepath.Join(dir, "c"), "something was written")
		})
	}

	// What is there with the same content stays, the rest comes to it.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "b"), []byte("bee"), 0o600))
	before, err := os.Lstat(filepath.Join(dir, "b"))
	require.NoError(t, err)
	for range 2 {
		names, err := extract(f, "set", dir, t.TempDir())
		require.NoError(t, err)
		assert.ElementsMatch(t, []string{"a", "b", "c"}, names)
	}
	after, err := os.Lstat(filepath.Join(dir, "b"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.FileExists(t, filepath.Join(dir, "c"))
}

func TestExtract(t *testing.T) {
	dir, temp := t.TempDir(), t.TempDir()
	f := Fetched{Package: Package{Name: "set", Version: "1"},
		Path: save(t, makeDeb(t, "Package: set\nVersion: 1\nArchitecture: all\n", []fileOf{
			{name: "./usr/share/set/deeper/b", content: "bee"}, {name: "./usr/share/set/a", content: "ay"},
			{name: "./usr/share/settings", content: "another's"}, {name: "./usr/share/set/link", link: "a", kind: tar.TypeSymlink},
		}))}
	names, err := extract(f, "usr/share/set/", dir, temp)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"a", "deeper/b"}, names)
	text, err := os.ReadFile(filepath.Join(dir, "deeper/b"))
	require.NoError(t, err)
	assert.Equal(t, "bee", string(text))

	_, err = extract(f, "usr/share/nothing", dir, temp)
	assert.ErrorContains(t, err, "package set 1 has no files in /usr/share/nothing")
	f.Path = save(t, makeDeb(t, "Package: set\nVersion: 1\nArchitecture: all\n",
		[]fileOf{{name: "./usr/share/set/../../../../out", content: "x"}}))
	_, err = extract(f, "usr/share/set", dir, temp)
	assert.ErrorContains(t, err, "leads out of the root file system")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// What is gone is replaced by the same package, not by what is Essential beside it.
func TestExtractWhatIsGone(t *testing.T) {
	a := newArchive(t, simple(t, "set", "1"))
	o, l, dir := a.fetchOptions(t), a.lock(), t.TempDir()
	a.publish(t, simple(t, "core", "1", "Essential: yes"), simple(t, "set", "2"))
	var report said
	o.Progress = &report
	names, err := l.extract(t.Context(), "usr", dir, o)
	require.NoError(t, err)
	assert.Equal(t, []string{"set"}, names)
	text, err := os.ReadFile(filepath.Join(dir, "set"))
	require.NoError(t, err)
	assert.Equal(t, "set 2", string(text))
	assert.Contains(t, report.text.String(),
		"DRIFT: no mirror has set 1 any more, so that the nearest version takes its place:\n\tset 2 instead of 1\n")
	o.Locked, o.Cache = true, a.options(t).Cache
	_, err = l.extract(t.Context(), "usr", dir, o)
	assert.ErrorIs(t, err, errGone)
}

func TestExtractNamesTheRemedy(t *testing.T) {
	_, err := Input{}.Extract(t.Context(), "../..", "dataset-of-dreams", "usr", t.TempDir(), input.Options{})
	require.ErrorIs(t, err, input.ErrPinsDiffer)
	assert.ErrorContains(t, err, `docker/packages.lock doesn't lock the package "dataset-of-dreams"`)
	assert.Contains(t, advice.Text(err, "./berth"), "./berth pin")
}
