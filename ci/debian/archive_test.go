package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/berthdev/berth/internal/cache"
)

// An archive is a Debian archive on loopback, signed by a key of its own.
type archive struct {
	*httptest.Server
	key   *openpgp.Entity
	keys  []*openpgp.Entity // that sign, in this order; key alone if none
	files map[string][]byte // by path
	date  time.Time
	until time.Time // left out if zero
	suite string
	dist  string    // folder below dists; bookworm if empty
	more  string    // further lines of the release
	split bool      // packages of no architecture have an index of their own
	flat  bool      // index and InRelease lie where the packages do, and aren't to be had by hash
	apart bool      // the signature is a file of its own
	have  []Package // that it publishes
	// answer, if set, answers instead of the archive where it returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

func newArchive(t *testing.T, debs ...[]byte) *archive {
	t.Helper()
	key, err := openpgp.NewEntity("test", "", "test@example.org", nil)
	require.NoError(t, err)
	now := time.Now().UTC().Truncate(time.Second)
	a := &archive{key: key, date: now, until: now.Add(time.Hour), suite: "bookworm"}
	a.Server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Close)
	a.publish(t, debs...)
	return a
}

func (a *archive) serve(w http.ResponseWriter, r *http.Request) {
	if a.answer != nil && a.answer(w, r) {
		return
	}
	data, ok := a.files[strings.TrimPrefix(r.URL.Path, "/debian/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// publish puts packages into the archive, and an index of them.
func (a *archive) publish(t *testing.T, debs ...[]byte) {
	t.Helper()
	a.files, a.have = map[string][]byte{}, nil
	indices := map[string]string{"amd64": "", "arm64": ""} // by architecture
	for _, data := range debs {
		control := controlOf(t, data)
		p := parse(t, control)
		file := fmt.Sprintf("pool/%s_%s.deb", p["Package"], p["Version"])
		a.files[file] = data
		one := Package{
			Name: p["Package"], Version: p["Version"], Architecture: p["Architecture"], Archive: "debian", File: file,
			Size: int64(len(data)), SHA256: fmt.Sprintf("%x", sha256.Sum256(data)),
		}
		a.have = append(a.have, one)
		text := fmt.Sprintf("%s\nFilename: %s\nSize: %d\nSHA256: %s\n\n", strings.TrimSpace(control), file, len(data), one.SHA256)
		for architecture := range indices {
			if p["Architecture"] == architecture || p["Architecture"] == "all" && !a.split || a.flat {
				indices[architecture] += text
			}
		}
		if p["Architecture"] == "all" && a.split {
			indices["all"] += text
		}
	}
	release := fmt.Sprintf("Codename: %s\nDate: %s\n%s", a.suite, a.date.Format(time.RFC1123), a.more)
	if !a.until.IsZero() {
		release += fmt.Sprintf("Valid-Until: %s\n", a.until.Format(time.RFC1123))
	}
	if a.split {
		release += "Architectures: all amd64 arm64\n"
	}
	if !a.flat {
		release += "Acquire-By-Hash: yes\n"
	}
	release += "SHA256:\n"
	for architecture, text := range indices {
		var packed bytes.Buffer
		z, err := xz.NewWriter(&packed)
		require.NoError(t, err)
		_, err = z.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		sum := fmt.Sprintf("%x", sha256.Sum256(packed.Bytes()))
		name := "Packages.xz"
		if a.flat {
			a.files[name] = packed.Bytes()
		} else {
			a.files[a.folder()+"main/binary-"+architecture+"/by-hash/SHA256/"+sum] = packed.Bytes()
			name = "main/binary-" + architecture + "/Packages.xz"
		}
		release += fmt.Sprintf(" %s %d %s\n", sum, packed.Len(), name)
		if a.flat {
			break // it has all of them
		}
	}
	a.sign(t, release)
}

// folder is that of the InRelease file.
func (a *archive) folder() string {
	if a.flat {
		return ""
	}
	return "dists/" + cmp.Or(a.dist, "bookworm") + "/"
}

func (a *archive) sign(t *testing.T, release string) {
	t.Helper()
	var signed bytes.Buffer
	keys := []*packet.PrivateKey{a.key.PrivateKey}
	if len(a.keys) > 0 {
		keys = nil
		for _, key := range a.keys {
			keys = append(keys, key.PrivateKey)
		}
	}
	if a.apart {
		for _, key := range a.keys {
			require.NoError(t, openpgp.ArmoredDetachSign(&signed, key, strings.NewReader(release), nil))
		}
		a.files[a.folder()+"Release"], a.files[a.folder()+"Release.gpg"] = []byte(release), signed.Bytes()
		return
	}
	w, err := clearsign.EncodeMulti(&signed, keys, nil)
	require.NoError(t, err)
	_, err = w.Write([]byte(release))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	a.files[a.folder()+"InRelease"] = signed.Bytes()
}

// base is the archive's address as a mirror.
func (a *archive) base() string { return a.URL + "/debian" }

// options trust the archive, and ask it and then the others.
func (a *archive) options(t *testing.T, others ...string) Options {
	t.Helper()
	t.Setenv("BERTH_CACHE", t.TempDir())
	return Options{
		Mirrors: Mirrors{"debian": append([]string{a.base()}, others...)}, Keys: openpgp.EntityList{a.key}, Cache: openCache(t),
		Snapshots: a.URL + "/snapshots", // of which there are none
	}
}

func (a *archive) fetchOptions(t *testing.T, others ...string) FetchOptions {
	t.Helper()
	return FetchOptions{Options: a.options(t, others...)}
}

// lock pins all that the archive has.
func (a *archive) lock() Lock {
	var names []string
	for _, p := range a.have {
		names = append(names, p.Name)
	}
	m := manifest(names...)
	packages := slices.Clone(a.have)
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return Lock{
		Snapshot: a.date, Wants: m.hash(), Architecture: m.Architecture, Suites: m.Suites,
		Dates: map[string]time.Time{m.Suites[0].id(): a.date}, Packages: packages,
	}
}

// read fetches and verifies the archive's index.
func read(t *testing.T, o Options, known map[string]time.Time) ([]source, error) {
	t.Helper()
	r, err := o.reader()
	require.NoError(t, err)
	return r.sources(t.Context(), manifest().Suites, "amd64", known)
}

func openCache(t testing.TB) cache.Dir {
	t.Helper()
	dir, err := cache.Open()
	require.NoError(t, err)
	return dir
}

func manifest(names ...string) Manifest {
	m := Manifest{Architecture: "amd64", Suites: []Suite{{Archive: "debian", Name: "bookworm", Components: []string{"main"}}}}
	for _, name := range names {
		m.Packages = append(m.Packages, Requirement{Name: name, Why: "a test"})
	}
	return m
}

func parse(t testing.TB, control string) (p paragraph) {
	t.Helper()
	require.NoError(t, eachParagraph(reader(control), func(one paragraph) error {
		p = one
		return nil
	}))
	return p
}

// fileOf is an entry of a package's data.
type fileOf struct {
	name, content, link string
	kind                byte // a file, or a folder if the name ends in a slash
	mode                int64
}

// makeDeb makes a .deb. more are further control files.
func makeDeb(t testing.TB, control string, files []fileOf, more ...fileOf) []byte {
	t.Helper()
	more = append([]fileOf{{name: "./control", content: strings.TrimSpace(control) + "\n"}}, more...)
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, member := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", makeTar(t, more)}, {"data.tar.gz", makeTar(t, files)}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", len(member.data))
		b.Write(member.data)
		if len(member.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func makeTar(t testing.TB, files []fileOf) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Linkname: f.link, Typeflag: f.kind, Mode: 0o644, Size: int64(len(f.content))}
		if f.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if f.mode != 0 {
			h.Mode = f.mode
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(f.content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

func controlOf(t *testing.T, data []byte) string {
	t.Helper()
	u, err := unpackDeb(save(t, data), t.TempDir())
	require.NoError(t, err)
	u.close()
	return u.text
}

// save writes data to a new file.
func save(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.deb")
	require.NoError(t, os.WriteFile(name, data, 0o644))
	return name
}

// simple is a package with one file.
func simple(t testing.TB, name, version string, fields ...string) []byte {
	t.Helper()
	return simpleFor(t, "amd64", name, version, fields...)
}

func simpleFor(t testing.TB, architecture, name, version string, fields ...string) []byte {
	t.Helper()
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: x\nDescription: x\n%s", name, version, architecture,
		strings.Join(fields, "\n"))
	return makeDeb(t, control, []fileOf{{name: "./usr/"}, {name: "./usr/" + name, content: name + " " + version}})
}

func TestPinAndFetch(t *testing.T) {
	needsApt(t)
	debs := [][]byte{simple(t, "a", "1", "Depends: b (>= 2)"), simple(t, "b", "2"), simple(t, "c", "1", "Essential: yes"), simple(t, "d", "1")}
	a := newArchive(t, debs...)
	o := a.fetchOptions(t)
	l, err := Pin(t.Context(), manifest("a"), Lock{}, o.Options)
	require.NoError(t, err)
	var names []string
	for _, p := range l.Packages {
		names = append(names, p.String())
	}
	assert.Equal(t, []string{"a 1", "b 2", "c 1"}, names, "what is wanted, what it needs, what is Essential")
	assert.Empty(t, stale(manifest("a"), l))
	assert.Equal(t, map[string]time.Time{"debian bookworm": a.date}, l.Dates)

	path := filepath.Join(t.TempDir(), "packages.lock")
	require.NoError(t, l.WriteFile(path))
	read, err := ReadLock(path)
	require.NoError(t, err)
	assert.Equal(t, l, read)

	a.date = a.date.Add(time.Minute)
	a.publish(t, debs...)
	later := o.Options
	later.Now = time.Now().Add(time.Minute)
	again, err := Pin(t.Context(), manifest("a"), l, later)
	require.NoError(t, err)
	assert.Equal(t, l, again, "pinning again changes nothing")

	undated := l
	undated.Dates = nil
	again, err = Pin(t.Context(), manifest("a"), undated, o.Options)
	require.NoError(t, err)
	assert.Equal(t, map[string]time.Time{"debian bookworm": a.date}, again.Dates, "an older lock gets its dates")
	assert.Equal(t, l.Hash(), again.Hash(), "dates change nothing in what is made from a lock")

	got, err := Fetch(t.Context(), l, o)
	require.NoError(t, err)
	assert.Equal(t, l.Hash(), got.Hash())
	a.Close() // everything is in the cache
	_, err = Fetch(t.Context(), l, o)
	assert.NoError(t, err)
}

func TestInReleaseIsChecked(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(a *archive, o *Options)
		says  string
	}{
		"unsigned": {func(a *archive, _ *Options) {
			a.files["dists/bookworm/InRelease"] = []byte("Codename: bookworm\n")
		}, "isn't signed"},
		"unsigned text before": {func(a *archive, _ *Options) {
			a.files["dists/bookworm/InRelease"] = append([]byte("Codename: other\n"), a.files["dists/bookworm/InRelease"]...)
		}, "isn't signed"},
		"changed": {func(a *archive, _ *Options) {
			a.files["dists/bookworm/InRelease"] = bytes.Replace(a.files["dists/bookworm/InRelease"], []byte("bookworm"), []byte("bookw0rm"), 1)
		}, "isn't signed"},
		"foreign key":   {func(_ *archive, o *Options) { o.Keys = nil }, "isn't signed"},
		"expired":       {func(_ *archive, o *Options) { o.Now = time.Now().Add(1000 * time.Hour) }, "has expired"},
		"another suite": {func(a *archive, _ *Options) { a.suite = "sid"; a.publish(t) }, "of another suite"},
		"no date":       {func(a *archive, _ *Options) { a.sign(t, "Codename: bookworm\nSHA256:\n") }, "Date: "},
		"not there":     {func(a *archive, _ *Options) { delete(a.files, "dists/bookworm/InRelease") }, "404"},
		"another index": {func(a *archive, _ *Options) {
			for name := range a.files {
				if strings.Contains(name, "by-hash") {
					a.files[name] = []byte("another")
				}
			}
		}, "another file than the one promised"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t)
			a.publish(t, simple(t, "a", "1"))
			o := a.options(t)
			c.spoil(a, &o)
			_, err := read(t, o, nil)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.says)
			assert.Contains(t, err.Error(), EnvMirror, "what to do is missing")
		})
	}
}

// Each InRelease is signed, and none says how long it is valid.
func TestRollbackIsRefused(t *testing.T) {
	a := newArchive(t)
	a.until = time.Time{}
	a.publish(t, simple(t, "a", "1"))
	older, olderDate := a.files, a.date
	a.date = a.date.Add(time.Hour)
	a.publish(t, simple(t, "a", "2"))
	o := a.fetchOptions(t)
	l := a.lock()
	require.Equal(t, "a 2", l.Packages[0].String())

	newer := a.files
	a.files = older
	_, err := read(t, o.Options, l.Dates)
	require.ErrorIs(t, err, errOlder)
	assert.ErrorContains(t, err, olderDate.Format(time.RFC1123))
	assert.ErrorContains(t, err, a.date.Format(time.RFC1123))
	assert.ErrorContains(t, err, EnvMirror, "what to do is missing")
	_, err = Fetch(t.Context(), l, o)
	assert.ErrorIs(t, err, errOlder, "nor does an older suite replace what is gone")

	// A mirror that is up to date makes up for it.
	good := newArchive(t)
	good.files = newer
	o.Mirrors["debian"] = append(o.Mirrors["debian"], good.base())
	_, err = read(t, o.Options, l.Dates)
	require.NoError(t, err)
}

func TestAnyGoodSignatureWillDo(t *testing.T) {
	key := func(made time.Time, lifetime time.Duration) *openpgp.Entity {
		e, err := openpgp.NewEntity("test", "", "test@example.org", &packet.Config{
			Time: func() time.Time { return made }, KeyLifetimeSecs: uint32(lifetime.Seconds()),
		})
		require.NoError(t, err)
		return e
	}
	a := newArchive(t)
	good, expired, unknown := a.key, key(time.Now().Add(-48*time.Hour), 24*time.Hour), key(time.Now(), 0)
	for name, c := range map[string]struct {
		keys []*openpgp.Entity
		good bool
	}{
		"good, expired":          {[]*openpgp.Entity{good, expired}, true},
		"expired, good":          {[]*openpgp.Entity{expired, good}, true},
		"unknown, expired, good": {[]*openpgp.Entity{unknown, expired, good}, true},
		"expired":                {[]*openpgp.Entity{expired}, false},
		"unknown, expired":       {[]*openpgp.Entity{unknown, expired}, false},
		"too many":               {append(slices.Repeat([]*openpgp.Entity{expired}, maxSignatures), good), false},
	} {
		t.Run(name, func(t *testing.T) {
			a.keys = c.keys
			a.publish(t, simple(t, "a", "1"))
			o := a.options(t)
			o.Keys = openpgp.EntityList{expired, good}
			_, err := read(t, o, nil)
			if c.good {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, errUnsigned)
			}
		})
	}
}

func reader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }
