package debian

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/testenv"
)

// a shop is an archive with something of everything, and backports beside it.
func shop(t *testing.T) (Manifest, Options) {
	t.Helper()
	a := newArchive(t,
		simple(t, "core", "1", "Essential: yes"), simple(t, "app", "1"), simple(t, "app", "2"),
		simple(t, "choice", "1", "Depends: first | second"), simple(t, "first", "1"), simple(t, "second", "1"),
		simple(t, "fan", "1", "Recommends: nothing | fine, absent", "Suggests: second"),
		simple(t, "fine", "1", "Recommends: finer"), simple(t, "finer", "1"),
		simple(t, "real", "1", "Provides: virtual"), simple(t, "left", "1", "Conflicts: right"), simple(t, "right", "1"),
		simple(t, "broken", "1", "Depends: fine (>= 2)"), simple(t, "chain", "1", "Pre-Depends: choice"),
	)
	o := a.options(t)
	b := newArchive(t)
	b.suite, b.dist, b.more = "backports", "backports", "NotAutomatic: yes\nButAutomaticUpgrades: yes\n"
	b.publish(t, simple(t, "app", "3", "Depends: fine (>= 2)"), simple(t, "fine", "2"))
	o.Root = t.TempDir()
	keep(t, o.Root, "b.gpg", b.key)
	m := manifest()
	m.Suites = append(m.Suites, Suite{Archive: "b", Name: "backports", Components: []string{"main"}, URL: b.base(), Keyring: "b.gpg"})
	return m, o
}

// keep writes the public key to a keyring.
func keep(t *testing.T, root, name string, key *openpgp.Entity) {
	t.Helper()
	var b bytes.Buffer
	if strings.HasSuffix(name, ".asc") {
		w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
		require.NoError(t, err)
		require.NoError(t, key.Serialize(w))
		require.NoError(t, w.Close())
	} else {
		require.NoError(t, key.Serialize(&b))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, name), b.Bytes(), 0o644))
}

func listed(packages []Package) string {
	var all []string
	for _, p := range packages {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

func TestAptChooses(t *testing.T) {
	needsApt(t)
	m, o := shop(t)
	for name, c := range map[string]struct {
		wants []Requirement
		all   bool // what they recommend, too
		got   string
		says  []string // with a colon at its beginning: a place in the manifest
	}{
		"the newest, and what is Essential":   {wants: []Requirement{{Name: "app"}}, got: "app 2, core 1"},
		"nothing but what is Essential":       {got: "core 1"},
		"a version":                           {wants: []Requirement{{Name: "app", Version: "1"}}, got: "app 1, core 1"},
		"a version's beginning":               {wants: []Requirement{{Name: "app", Version: "1*"}}, got: "app 1, core 1"},
		"from a suite, with what it needs":    {wants: []Requirement{{Name: "app", From: "backports"}}, got: "app 3, core 1, fine 2"},
		"the first alternative":               {wants: []Requirement{{Name: "choice"}}, got: "choice 1, core 1, first 1"},
		"the wanted alternative":              {wants: []Requirement{{Name: "choice"}, {Name: "second"}}, got: "choice 1, core 1, second 1"},
		"no recommendations":                  {wants: []Requirement{{Name: "fan"}}, got: "core 1, fan 1"},
		"the recommendations of one":          {wants: []Requirement{{Name: "fan", Recommends: true}}, got: "core 1, fan 1, fine 1"},
		"all recommendations":                 {wants: []Requirement{{Name: "fan"}}, all: true, got: "core 1, fan 1, fine 1, finer 1"},
		"an Essential one in another version": {wants: []Requirement{{Name: "core", Version: "1"}}, got: "core 1"},
		"no such version": {wants: []Requirement{{Name: "app", Version: "7"}},
			says: []string{"Version '7' for 'app' was not found", ":9 wants app"}},
		"not in that suite": {wants: []Requirement{{Name: "left", From: "backports"}},
			says: []string{"Release 'backports' for 'left' was not found"}},
		"no such package": {wants: []Requirement{{Name: "app"}, {Name: "nope"}},
			says: []string{"Unable to locate package nope", ":10 wants nope"}},
		"a virtual package": {wants: []Requirement{{Name: "virtual"}}, says: []string{":9 wants virtual, but no package has that name"}},
		"a pattern":         {wants: []Requirement{{Name: "fine."}}, says: []string{":9 wants fine., but no package has that name"}},
		"a minus":           {wants: []Requirement{{Name: "app-"}}, says: []string{":9 wants app-, but no package has that name"}},
		"a conflict": {wants: []Requirement{{Name: "left"}, {Name: "right"}},
			says: []string{"left : Conflicts: right", ":9 wants left", ":10 wants right"}},
		"what can't be met": {wants: []Requirement{{Name: "broken"}}, says: []string{"broken : Depends: fine (>= 2)", ":9 wants broken"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := m
			m.file, m.Packages, m.Recommends = "/x/docker/packages.toml", c.wants, c.all
			for i := range m.Packages {
				m.Packages[i].line = 9 + i
			}
			l, err := Pin(t.Context(), m, Lock{}, o)
			for _, says := range c.says {
				if says[0] == ':' {
					says = "docker/packages.toml" + says
				}
				assert.ErrorContains(t, err, says)
			}
			if len(c.says) == 0 {
				require.NoError(t, err)
				assert.Equal(t, c.got, listed(l.Packages))
			}
		})
	}
	left, err := os.ReadDir(o.Cache.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestWhy(t *testing.T) {
	needsApt(t)
	m, o := shop(t)
	m.Packages = []Requirement{{Name: "chain", Why: "links"}, {Name: "fan", Why: "air", Recommends: true}}
	for name, want := range map[string]string{
		"chain": "chain 1 | packages.toml: links",
		"first": "first 1 | choice (Depends) | chain (PreDepends) | packages.toml: links",
		"fine":  "fine 1 | fan (Recommends) | packages.toml: air",
		"core":  "core 1 | Essential: part of every Debian system",
		"right": "",
		"nope":  "",
	} {
		chain, err := why(t.Context(), m, name, o)
		require.NoError(t, err)
		assert.Equal(t, want, strings.Join(chain, " | "))
	}
	m.Packages = append(m.Packages, Requirement{Name: "broken"})
	_, err := why(t.Context(), m, "fine", o)
	require.ErrorContains(t, err, "broken : Depends: fine (>= 2)")
	assert.NotContains(t, err.Error(), "Installing", "apt's trace is no explanation")
}

// The lock is for one architecture, whichever apt itself runs on. Packages of none may have
// an index of their own.
func TestArchitectures(t *testing.T) {
	needsApt(t)
	for _, split := range []bool{false, true} {
		a := newArchive(t)
		a.split = split
		a.publish(t, simpleFor(t, "amd64", "core", "1", "Essential: yes"), simpleFor(t, "arm64", "core", "2", "Essential: yes"),
			simpleFor(t, "arm64", "tool", "1", "Depends: data, core (= 2)"), simpleFor(t, "all", "data", "1"),
			simpleFor(t, "amd64", "other", "1", "Depends: data"))
		o := a.fetchOptions(t)
		m := manifest("tool")
		m.Architecture = "arm64"
		l, err := Pin(t.Context(), m, Lock{}, o.Options)
		require.NoError(t, err)
		assert.Equal(t, "core 2, data 1, tool 1", listed(l.Packages))
		packages, err := Fetch(t.Context(), l, o)
		require.NoError(t, err)
		var tar bytes.Buffer
		require.NoError(t, Rootfs(t.Context(), &tar, packages, epoch, t.TempDir(), nil))
		_, files := listing(t, tar.Bytes())
		assert.Contains(t, files["var/lib/dpkg/status"], "\nArchitecture: arm64\n")

		l, err = Pin(t.Context(), manifest("other"), Lock{}, o.Options)
		require.NoError(t, err)
		assert.Equal(t, "core 1, data 1, other 1", listed(l.Packages))
		_, err = Pin(t.Context(), manifest("tool"), Lock{}, o.Options)
		assert.ErrorContains(t, err, "apt can't choose packages")
	}
}

// apt's container runs as root without capabilities, who may read no other user's closed files.
func TestPinByWhoClosesFiles(t *testing.T) {
	if os.Getenv(asSomebodyElse) != "" {
		syscall.Umask(0o077)
		a := newArchive(t, simple(t, "a", "1"))
		l, err := Pin(t.Context(), manifest("a"), Lock{}, a.options(t))
		require.NoError(t, err)
		assert.Equal(t, "a 1", listed(l.Packages))
		return
	}
	docker := needsApt(t)
	testenv.NeedsRoot(t, "become somebody else")
	socket, _ := strings.CutPrefix(docker.Host(), "unix://")
	info, err := os.Stat(socket)
	if err != nil {
		testenv.Skip(t, testenv.DockerSocket, "%v", err)
	}
	dir, err := os.MkdirTemp("", "berth-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777))
	data, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), data, 0o755))
	again := exec.CommandContext(t.Context(), filepath.Join(dir, "program"), "-test.run=^TestPinByWhoClosesFiles$", "-test.v")
	again.Dir, again.Env = dir, append(os.Environ(), asSomebodyElse+"=1", "HOME="+dir)
	again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: 54321, Gid: 54321, Groups: []uint32{info.Sys().(*syscall.Stat_t).Gid},
	}}
	out, err := again.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "PASS: TestPinByWhoClosesFiles", "it didn't run")
}

// Archives that aren't Debian's, with keys of their own.
func TestOtherArchives(t *testing.T) {
	needsApt(t)
	expired, err := openpgp.NewEntity("old", "", "old@example.org", &packet.Config{
		Time: func() time.Time { return time.Now().Add(-48 * time.Hour) }, KeyLifetimeSecs: 24 * 60 * 60,
	})
	require.NoError(t, err)
	other, err := openpgp.NewEntity("other", "", "other@example.org", nil)
	require.NoError(t, err)
	const remedy = "compare its fingerprint"
	file := func(text string) func(*testing.T, *archive, string) {
		return func(t *testing.T, _ *archive, keyring string) {
			require.NoError(t, os.WriteFile(keyring, []byte(text), 0o644))
		}
	}
	serve := func(name, text string) func(*testing.T, *archive, string) {
		return func(_ *testing.T, a *archive, _ string) { a.files[name] = []byte(text) }
	}
	apart := func(a *archive) { a.apart, a.keys = true, []*openpgp.Entity{a.key} }
	for name, c := range map[string]struct {
		change func(a *archive)
		key    *openpgp.Entity // in the keyring, instead of the archive's own
		file   string          // that is the keyring
		spoil  func(t *testing.T, a *archive, keyring string)
		says   []string
	}{
		"flat":                 {},
		"armored key":          {file: "key.asc"},
		"no Valid-Until":       {change: func(a *archive) { a.until = time.Time{} }},
		"signed apart":         {change: apart},
		"with dists":           {change: func(a *archive) { a.flat = false }},
		"a wrong key":          {key: other, says: []string{"isn't signed by a valid key of key.gpg", remedy}},
		"a wrong key, apart":   {key: other, change: apart, says: []string{"isn't signed by a valid key of key.gpg", remedy}},
		"an expired key":       {key: expired, change: func(a *archive) { a.key = expired }, says: []string{"key.gpg", "expired", remedy}},
		"past its Valid-Until": {change: func(a *archive) { a.until = a.date.Add(-time.Hour) }, says: []string{"it has expired"}},
		"no key at all": {spoil: func(t *testing.T, _ *archive, f string) { require.NoError(t, os.Remove(f)) },
			says: []string{"key.gpg", "no such file", remedy}},
		"something else as key": {spoil: file("<html>"), says: []string{"key.gpg", remedy}},
		"an empty file as key":  {spoil: file(""), says: []string{"no public key", remedy}},
		"unsigned":              {spoil: serve("InRelease", "Date: x\n"), says: []string{"isn't signed", remedy}},
		"neither signature": {spoil: func(_ *testing.T, a *archive, _ string) { delete(a.files, "InRelease") },
			says: []string{"404", remedy}},
		"another index": {spoil: serve("Packages.xz", "x"), says: []string{"another file than the one promised"}},
		"an index that's absent": {spoil: func(t *testing.T, a *archive, _ string) {
			a.sign(t, "Date: "+a.date.Format(time.RFC1123)+"\nSHA256:\n")
		},
			says: []string{"has no"}},
	} {
		t.Run(name, func(t *testing.T) {
			base := newArchive(t, simple(t, "core", "1", "Essential: yes"))
			o := base.fetchOptions(t)
			a := newArchive(t)
			a.flat, a.suite = true, "whatever"
			if c.change != nil {
				c.change(a)
			}
			s := Suite{Archive: "own", Name: "./", URL: a.base(), Keyring: "key.gpg"}
			if !a.flat {
				a.suite, s.Name, s.Components = "bookworm", "bookworm", []string{"main"}
			}
			a.publish(t, simple(t, "tool", "1", "Depends: core"))
			o.Root = t.TempDir()
			if c.file != "" {
				s.Keyring = c.file
			}
			if c.key == nil {
				c.key = a.key
			}
			keep(t, o.Root, s.Keyring, c.key)
			if c.spoil != nil {
				c.spoil(t, a, filepath.Join(o.Root, s.Keyring))
			}
			var report said
			o.Progress = &report
			m := manifest("tool")
			m.Suites = append(m.Suites, s)
			l, err := Pin(t.Context(), m, Lock{}, o.Options)
			if len(c.says) > 0 {
				require.Error(t, err)
				for _, says := range c.says {
					assert.Contains(t, advice.Text(err, "berth"), says)
				}
				return
			}
			require.NoError(t, err)
			fingerprint := strings.ToUpper(strings.TrimSpace(release{signer: a.key}.fingerprint()))
			assert.Contains(t, report.text.String(), "Archive own is signed by key "+fingerprint)
			assert.Equal(t, map[string]string{"own": fingerprint}, l.Signers)
			text := string(l.Marshal())
			assert.Contains(t, text, "No snapshot service keeps the packages of own")
			assert.Contains(t, text, "archive own "+a.base()+" "+s.Keyring+" "+fingerprint+"\nsuite own "+s.Name)
			read, err := ParseLock(strings.NewReader(text))
			require.NoError(t, err)
			assert.Equal(t, l, read)
			assert.Empty(t, stale(m, read))

			packages, err := Fetch(t.Context(), read, o)
			require.NoError(t, err)
			var tar bytes.Buffer
			require.NoError(t, Rootfs(t.Context(), &tar, packages, epoch, t.TempDir(), nil))
			_, files := listing(t, tar.Bytes())
			assert.Equal(t, "tool 1", files["usr/tool"])

			kept, err := locked{read}.Unkept(t.Context(), input.Options{Cache: o.Cache})
			require.NoError(t, err)
			require.Contains(t, kept, "own/pool/tool_1.deb")
			assert.Len(t, kept, 1, "the snapshot service keeps the others")
			assert.NoError(t, read.Packages[1].file().Check(kept["own/pool/tool_1.deb"]))
		})
	}
}

// Which of Debian's versions fit another archive's packages, a build can't tell.
func TestGoneBesideAnotherArchive(t *testing.T) {
	a := newArchive(t, simple(t, "lib", "1"), simple(t, "tool", "1"))
	o := a.fetchOptions(t)
	l := a.lock()
	l.Suites = append(l.Suites, Suite{Archive: "own", Name: "bookworm", Components: []string{"main"}, URL: a.base(), Keyring: "key.gpg"})
	l.Packages[1].Archive = "own"
	a.publish(t, simple(t, "lib", "2"), simple(t, "tool", "1"))
	_, err := Fetch(t.Context(), l, o)
	require.ErrorIs(t, err, errGone)
	assert.ErrorContains(t, err, "package lib 1")
	assert.ErrorContains(t, err, "packages of archive own")
	assert.Contains(t, advice.Text(err, "berth"), "berth pin")
}

// What an archive without snapshots drops isn't replaced by something else.
func TestGoneFromAnotherArchive(t *testing.T) {
	a := newArchive(t, simple(t, "tool", "1"))
	o := a.fetchOptions(t)
	l := a.lock()
	l.Suites[0] = Suite{Archive: "own", Name: "bookworm", Components: []string{"main"}, URL: a.base(), Keyring: "key.gpg"}
	l.Packages[0].Archive = "own"
	a.publish(t, simple(t, "tool", "2"))
	_, err := Fetch(t.Context(), l, o)
	require.ErrorIs(t, err, errGone)
	assert.Contains(t, advice.Text(err, "berth"), "berth pin")
	assert.NotContains(t, err.Error(), "snapshot")

	// Who kept it can serve it, under the archive's name.
	kept := newArchive(t, simple(t, "tool", "1"))
	kept.answer = func(w http.ResponseWriter, r *http.Request) bool {
		file, ours := strings.CutPrefix(r.URL.Path, "/mirror/own/")
		if ours {
			w.Write(kept.files[file])
		}
		return ours
	}
	t.Setenv(EnvMirror, kept.URL+"/mirror")
	o.Mirrors = HostMirrors()
	_, err = Fetch(t.Context(), l, o)
	assert.NoError(t, err)
}
