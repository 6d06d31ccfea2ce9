package debian

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/testenv"
)

// said keeps the lines of progress that stay.
type said struct{ text strings.Builder }

func (s *said) Update(string, ...any)             {}
func (s *said) Printf(format string, args ...any) { fmt.Fprintf(&s.text, format+"\n", args...) }

// isDeb reports whether a request is for a package.
func isDeb(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".deb") }

// pinned is an archive with one package, and the lock that pins it.
func pinned(t *testing.T, version string) (*archive, Lock, FetchOptions) {
	t.Helper()
	a := newArchive(t, simple(t, "a", version))
	o := a.fetchOptions(t)
	return a, a.lock(), o
}

func TestBadMirrors(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		says   string // a pattern
	}{
		"500":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "500 Internal Server Error"},
		"hangs":           {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "it sent nothing for 300ms"},
		"hangs half-way":  {func(w http.ResponseWriter, r *http.Request) { half(w); <-r.Context().Done() }, "it sent nothing for 300ms"},
		"another file":    {nil, "it sent another file: SHA-256 [0-9a-f]{64}, locked is [0-9a-f]{64}"}, // as long as the right one
		"nothing":         {func(http.ResponseWriter, *http.Request) {}, `it sent 0 bytes of \d+`},
		"breaks off":      {func(w http.ResponseWriter, _ *http.Request) { half(w); panic(http.ErrAbortHandler) }, "unexpected EOF"},
		"too much for it": {func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) }, `it sent \d+ bytes of \d+`},
	} {
		t.Run(name, func(t *testing.T) {
			bad, l, o := pinned(t, "1")
			bad.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if isDeb(r) && c.answer == nil {
					w.Write(make([]byte, l.Packages[0].Size))
				} else if isDeb(r) {
					c.answer(w, r)
				}
				return isDeb(r)
			}
			hangs := strings.Contains(c.says, "300ms")
			if hangs {
				o.Stall = 300 * time.Millisecond
			}
			_, err := Fetch(t.Context(), l, o)
			require.Error(t, err)
			assert.Contains(t, err.Error(), "package a 1")
			assert.Regexp(t, c.says, err.Error())
			assert.Contains(t, advice.Text(err, "berth"), EnvMirror)
			assert.NotErrorIs(t, err, errGone, "such a mirror may have the file")
			left, err := os.ReadDir(o.Cache.Path("debs"))
			require.NoError(t, err)
			for _, e := range left {
				assert.NotEqual(t, ".deb", e.Name()[len(e.Name())-4:], "a bad file was kept")
			}

			// The next mirror makes up for it, and isn't hurried.
			if hangs {
				o.Stall = 5 * time.Second
			}
			good := newArchive(t)
			good.files = bad.files
			o.Mirrors["debian"] = append(o.Mirrors["debian"], good.base())
			_, err = Fetch(t.Context(), l, o)
			assert.NoError(t, err)
		})
	}
}

// half sends less than it promises.
func half(w http.ResponseWriter) {
	w.Header().Set("Content-Length", "1000")
	w.Write(make([]byte, 10))
	w.(http.Flusher).Flush()
}

func TestCutDownloadIsResumed(t *testing.T) {
	a, l, o := pinned(t, "1")
	var ranges atomic.Value
	a.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !isDeb(r) {
			return false
		}
		if r.Header.Get("Range") != "" {
			ranges.Store(r.Header.Get("Range"))
			return false
		}
		data := a.files[strings.TrimPrefix(r.URL.Path, "/debian/")]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:100])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	_, err := Fetch(t.Context(), l, o)
	require.Error(t, err)
	_, err = Fetch(t.Context(), l, o)
	require.NoError(t, err)
	assert.Equal(t, "bytes=100-", ranges.Load())
}

func TestWrongBeginningIsForgotten(t *testing.T) {
	_, l, o := pinned(t, "1")
	require.NoError(t, os.MkdirAll(o.Cache.Path("debs"), 0o755))
	require.NoError(t, os.WriteFile(o.Cache.Path("debs", l.Packages[0].SHA256+".deb.part"), make([]byte, 50), 0o644))
	_, err := Fetch(t.Context(), l, o)
	assert.NoError(t, err)
}

// Packages stay in the cache as long as what is made of them is used, though nobody reads them.
func TestPackagesAreKeptForWhatIsMadeOfThem(t *testing.T) {
	a, l, o := pinned(t, "1")
	t.Setenv(EnvMirror, a.URL)
	made := input.Options{Cache: o.Cache, Folder: o.Cache.Path("rootfs")}
	_, err := locked{l}.Make(t.Context(), made)
	require.NoError(t, err)
	a.Close()
	deb := debPath(o.Cache, l.Packages[0])
	long := time.Now().Add(-40 * 24 * time.Hour)
	require.NoError(t, os.Chtimes(deb, long, long))
	_, err = locked{l}.Make(t.Context(), made)
	require.NoError(t, err)
	require.NoError(t, o.Cache.Prune(30*24*time.Hour, "debs"))
	assert.FileExists(t, deb)
}

func TestWrongHashInTheLock(t *testing.T) {
	_, l, o := pinned(t, "1")
	l.Packages[0].SHA256 = strings.Repeat("0", 64)
	_, err := Fetch(t.Context(), l, o)
	require.Error(t, err)
	assert.Contains(t, err.Error(), "it sent another file")
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
}

// What was published between a snapshot and the pin is in the next one.
func TestGoneToALaterSnapshot(t *testing.T) {
	a, l, o := pinned(t, "1")
	file := "pool/a_1.deb"
	data := a.files[file]
	a.publish(t)
	o.Locked = true
	for name, c := range map[string]struct {
		at    time.Duration // after the pin
		state int           // that other snapshots answer with; 0: all but the first hang up
		asked int32         // snapshots
		gone  bool
	}{
		"at once":     {at: 0, state: http.StatusNotFound, asked: 1},
		"the next":    {at: 6 * time.Hour, state: http.StatusNotFound, asked: 2},
		"a day later": {at: 24 * time.Hour, state: http.StatusNotFound, asked: 3},
		"never":       {at: time.Minute, state: http.StatusNotFound, asked: 3, gone: true},
		"no answer":   {at: time.Minute, state: http.StatusBadGateway, asked: 1},
		"cut off":     {at: time.Minute, asked: 3}, // the second twice, since the connection had been good
	} {
		t.Run(name, func(t *testing.T) {
			o.Cache = a.options(t).Cache
			var asked atomic.Int32
			a.answer = func(w http.ResponseWriter, r *http.Request) bool {
				rest, snapshot := strings.CutPrefix(r.URL.Path, "/snapshots/")
				if !snapshot {
					return false
				}
				nth := asked.Add(1)
				if rest == "debian/"+l.Snapshot.Add(c.at).Format(snapshotLayout)+"/"+file {
					w.Write(data)
				} else if c.state == 0 && nth > 1 {
					panic(http.ErrAbortHandler)
				} else {
					w.WriteHeader(cmp.Or(c.state, http.StatusNotFound))
				}
				return true
			}
			_, err := Fetch(t.Context(), l, o)
			assert.Equal(t, c.asked, asked.Load())
			assert.Equal(t, c.at == time.Minute, err != nil)
			assert.Equal(t, c.gone, errors.Is(err, errGone))
		})
	}
}

// What is gone is replaced after resolving again: with what needs its version, and with what
// the new version needs.
func TestGoneFromEveryMirror(t *testing.T) {
	needsApt(t)
	a := newArchive(t, simple(t, "lib", "1"), simple(t, "tool", "1", "Depends: lib (= 1)"), simple(t, "other", "1"))
	o := a.fetchOptions(t)
	l := a.lock()
	var report said
	o.Progress = &report
	tool := simple(t, "tool", "2", "Depends: lib (= 2), new")
	a.publish(t, simple(t, "lib", "2"), tool, simple(t, "new", "1"), simple(t, "other", "1"), simple(t, "other", "2"))

	locked := o
	locked.Locked = true
	_, err := Fetch(t.Context(), l, locked)
	require.ErrorIs(t, err, errGone)
	assert.Contains(t, err.Error(), "package lib 1")
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")

	got, err := Fetch(t.Context(), l, o)
	require.NoError(t, err)
	var all []string
	for _, d := range got.Drift {
		all = append(all, d.String())
	}
	assert.Equal(t, []string{"lib 2 instead of 1", "new 1 in addition", "tool 2 instead of 1"}, all, "other is there as locked")
	assert.Contains(t, report.text.String(), "DRIFT: no mirror has lib 1, tool 1 any more")
	assert.Contains(t, report.text.String(), "The target pin moves the lock")
	assert.NotEqual(t, l.Hash(), got.Hash())

	// lib alone has moved: version by version, it would stand beside a tool that it doesn't fit.
	a.publish(t, simple(t, "lib", "2"), simple(t, "tool", "1", "Depends: lib (= 1)"), simple(t, "other", "1"))
	o.Cache = a.options(t).Cache
	_, err = Fetch(t.Context(), l, o)
	require.ErrorIs(t, err, errGone)
	assert.Contains(t, err.Error(), "tool : Depends: lib (= 1)", "apt's own words")
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")

	a.publish(t, simple(t, "unrelated", "1"))
	_, err = Fetch(t.Context(), l, o)
	require.ErrorIs(t, err, errGone)
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
}

// apt itself resolves what is gone; what is gone of apt can't wait for that.
func TestGoneOfAptItself(t *testing.T) {
	a, l, o := pinned(t, "2")
	a.publish(t, simple(t, "a", "1"), simple(t, "a", "4"), simple(t, "a", "3"))
	o.single = true
	got, err := Fetch(t.Context(), l, o)
	require.NoError(t, err)
	require.Len(t, got.Drift, 1)
	assert.Equal(t, "a 3 instead of 2", got.Drift[0].String(), "the nearest that isn't older")
}

func TestPasswordsStayOut(t *testing.T) {
	_, l, o := pinned(t, "1")
	for _, base := range []string{
		"http://user:secret@127.0.0.1:1", "http://secret@127.0.0.1:1", // the first is well-formed, the second a token
		"http://user:secret@127.0.0.1:port", "http://us er:secret@127.0.0.1", "http://user:%secret@127.0.0.1", "http://user:se\ncret@127.0.0.1",
		"http://user:/secret@127.0.0.1", "http://user:1#secret@127.0.0.1", "http://127.0.0.1:1/?token=secret",
		"http:user:secret@127.0.0.1", "http:/user:secret@127.0.0.1", "http//user:secret@127.0.0.1", "user:secret@127.0.0.1",
		"ftp://user:secret@127.0.0.1",
	} {
		t.Setenv(EnvMirror, base)
		o.Mirrors = HostMirrors()
		_, err := Fetch(t.Context(), l, o)
		require.Error(t, err)
		assert.NotRegexp(t, `secret|cret@`, err.Error(), base)
		_, err = read(t, o.Options, nil)
		require.Error(t, err)
		assert.NotRegexp(t, `secret|cret@`, err.Error(), base)
	}
}

func TestRealMirror(t *testing.T) {
	mirrors := HostMirrors()
	if len(mirrors["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	m, err := ReadManifest("../../docker/packages.toml")
	require.NoError(t, err)
	needsApt(t)
	l, err := Pin(t.Context(), m, Lock{}, Options{Mirrors: mirrors, Cache: openCache(t)})
	if err != nil && strings.Contains(err.Error(), errExpired.Error()) {
		testenv.Skip(t, testenv.Mirror, "it is out of date: %v", err)
	}
	require.NoError(t, err)
	assert.Empty(t, stale(m, l))
	assert.Len(t, l.Dates, len(m.Suites))
	assert.Greater(t, len(l.Packages), len(m.Packages))
	assert.WithinDuration(t, time.Now(), l.Snapshot, time.Minute)
}

// The packages of the image, as they are locked, from the real archive.
func TestRealPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("it fetches 140 MB")
	}
	mirrors := HostMirrors()
	if len(mirrors["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	l, err := ReadLock("../../docker/packages.lock")
	require.NoError(t, err)
	t.Setenv("BERTH_CACHE", t.TempDir())
	dir := openCache(t)
	packages, err := Fetch(t.Context(), l, FetchOptions{Options: Options{Mirrors: mirrors, Cache: dir}})
	if errors.Is(err, errExpired) {
		testenv.Skip(t, testenv.Mirror, "it is out of date: %v", err)
	}
	require.NoError(t, err)
	require.Len(t, packages.Files, len(l.Packages))
	for _, f := range packages.Files {
		require.NoError(t, f.file().Check(f.Path))
	}
	temp, remove, err := dir.Temp("test")
	require.NoError(t, err)
	defer remove()
	name, err := RootfsFile(t.Context(), dir.Path("rootfs.tar"), packages, l.Snapshot, temp, nil)
	require.NoError(t, err)

	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	kinds := map[string]byte{}
	var status []byte
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		require.NotContains(t, kinds, h.Name)
		require.True(t, filepath.IsLocal(h.Name), h.Name)
		kinds[h.Name] = h.Typeflag
		if h.Name == "var/lib/dpkg/status" {
			status, err = io.ReadAll(r)
			require.NoError(t, err)
		}
	}
	for name, kind := range map[string]byte{
		"bin": tar.TypeSymlink, "usr/bin/bash": tar.TypeReg, "usr/bin/git": tar.TypeReg, "etc/": tar.TypeDir,
		"etc/bash.bashrc.dpkg-new": tar.TypeReg, "var/lib/dpkg/info/bash.list": tar.TypeReg,
	} {
		assert.Equal(t, string(kind), string(kinds[name]), name)
	}
	var unpacked []string
	require.NoError(t, eachParagraph(reader(string(status)), func(p paragraph) error {
		assert.Equal(t, "install ok unpacked", p["Status"])
		unpacked = append(unpacked, p["Package"]+" "+p["Version"])
		return nil
	}))
	var want []string
	for _, f := range packages.Files {
		want = append(want, f.String())
	}
	assert.Equal(t, want, unpacked)
}
