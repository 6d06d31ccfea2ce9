package debian

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
)

func TestQuestion(t *testing.T) {
	m := manifest("a", "bash", "c")
	m.Packages[1].Version, m.Packages[2].From = "5.2*", "bookworm"
	q := question{
		Manifest: m, essential: []string{"bash", "dpkg"}, recommend: map[string]string{"c": "x | y, z"},
		sources: []source{
			{Suite: m.Suites[0], release: release{text: []byte("signed"), name: "InRelease"},
				indices: []index{{"main", "binary-amd64", "/cache/1"}, {"main", "binary-all", "/cache/2"}}},
			{Suite: Suite{Archive: "flat", Name: "./"}, release: release{text: []byte("flat"), name: "Release"},
				indices: []index{{path: "/cache/3"}}},
			{Suite: Suite{Archive: "odd", Name: "a_b~c/"}, release: release{name: "Release"}, indices: []index{{path: "/cache/4"}}},
		},
	}
	assert.Equal(t, []string{"apt-get", "-q", "-y", "--print-uris", "install", "dpkg", "a", "bash=5.2*", "c/bookworm", extra}, q.command())
	assert.Equal(t, "deb [trusted=yes] http://berth/0 bookworm main\ndeb [trusted=yes] http://berth/1 ./\n"+
		"deb [trusted=yes] http://berth/2 a_b~c/\ndeb [trusted=yes] http://berth/3 ./\n", q.sourcesList())
	assert.Equal(t, map[string]string{
		"berth_0_dists_bookworm_main_binary-amd64_Packages": "/cache/1", "berth_0_dists_bookworm_main_binary-all_Packages": "/cache/2",
		"berth_1_._Packages": "/cache/3", "berth_2_a%5fb%7ec_Packages": "/cache/4",
	}, q.lists())
	texts := q.texts()
	assert.Equal(t, "signed", texts[aptLists+"berth_0_dists_bookworm_InRelease"])
	assert.Equal(t, "flat", texts[aptLists+"berth_1_._Release"])
	assert.Contains(t, texts[aptLists+"berth_3_._Packages"], "\nRecommends: x | y, z\n")
	assert.Contains(t, texts[aptConf], `APT::Architectures { "amd64"; };`)
}

func TestParseURIs(t *testing.T) {
	all, err := parseURIs("Reading package lists...\n'http://berth/12/pool/a/a_1%2bb%7ec_all.deb' a_1+b~c_all.deb 7 SHA256:x\n" +
		"'http://berth/0/./b.deb' b_1_all.deb 7 \n0 upgraded\n")
	require.NoError(t, err)
	assert.Equal(t, []origin{{12, "pool/a/a_1+b~c_all.deb"}, {0, "b.deb"}}, all)
	for _, bad := range []string{
		"'http://other/0/x' x 1 ", "'http://berth/x/y' ", "'http://berth/0/%zz' x 1 ", "'http://berth/99999999999999999999/x' ",
	} {
		_, err := parseURIs(bad + "\n")
		assert.Error(t, err, bad)
	}
}

func FuzzParseURIs(f *testing.F) {
	f.Add("'http://berth/12/pool/a/a_1%2bb%7ec_all.deb' a_1+b~c_all.deb 7 SHA256:x\n")
	f.Add("'http://berth/0/../../etc' x 1 \n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseURIs(text)
		if err == nil {
			for _, at := range all {
				assert.Equal(t, path.Clean(at.file), at.file)
				assert.GreaterOrEqual(t, at.source, 0)
			}
		}
		parseTrace(text)
		manifest("a").unsatisfiable(text)
	})
}

func TestParseTrace(t *testing.T) {
	assert.Equal(t, map[string]cause{"libcurl4": {"curl", "Depends"}, "libssl3": {"libcurl4", "PreDepends"}, "x": {extra, "Recommends"}},
		parseTrace("  Installing libcurl4:amd64 as Depends of curl:amd64\n    Installing libssl3:amd64 as PreDepends of libcurl4:amd64\n"+
			"  Installing libssl3:amd64 as Depends of other:amd64\n Installing x:amd64 as Recommends of berth-recommends:amd64\nand more\n"))
}

func TestUnsatisfiableNamesTheLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docker", "packages.toml")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(`architecture = "amd64"
[[suite]]
archive = "debian"
name = "bookworm"
components = ["main"]

[[package]]
name = "lib"
why = "a part of the others' names"

[[package]]
why = "later"
name = 'libc++-dev'
`), 0o644))
	m, err := ReadManifest(file)
	require.NoError(t, err)
	err = m.unsatisfiable("Reading package lists...\n'http://berth/0/x' x 1 \n\n libc++-dev : Depends: nothing\nE: broken packages.\n")
	assert.EqualError(t, err, "apt can't choose packages: docker/packages.toml:13 wants libc++-dev. It says:\n"+
		"\t libc++-dev : Depends: nothing\n\tE: broken packages.")
	assert.EqualError(t, m.unsatisfiable("E: x"), "apt can't choose packages: for what docker/packages.toml wants. It says:\n\tE: x")
	assert.Contains(t, advice.Text(err, ""), "Change these wishes")
}

func TestManifestOptions(t *testing.T) {
	const head = "architecture = \"amd64\"\n"
	suite := func(lines ...string) string { return head + "[[suite]]\n" + strings.Join(lines, "\n") + "\n" }
	good := suite(`archive = "debian"`, `name = "bookworm"`, `components = ["main", "contrib", "non-free-firmware"]`)
	flat := func(url, keyring string) string {
		return suite(`archive = "cuda"`, `name = "./"`, `url = "`+url+`"`, `keyring = "`+keyring+`"`)
	}
	wish := func(lines ...string) string {
		return good + "[[package]]\nwhy = \"x\"\n" + strings.Join(lines, "\n") + "\n"
	}
	for text, says := range map[string]string{
		good: "",
		flat("https://example.org/cuda/", "docker/cuda.gpg"):                                              "",
		flat("https://example.org/cuda", ""):                                                              "url and keyring go together",
		flat("", "docker/cuda.gpg"):                                                                       "url and keyring go together",
		flat("ftp://example.org/cuda", "x"):                                                               "no http or https address",
		flat("https://user:secret@example.org/cuda", "x"):                                                 "no http or https address",
		flat("https://example.org/cuda", "../cuda.gpg"):                                                   "no path of a file below",
		flat("https://example.org/a", "x") + strings.TrimPrefix(flat("https://example.org/b", "x"), head): "two URLs or keyrings",
		strings.Replace(flat("https://example.org/cuda", "x"), `"cuda"`, `"debian"`, 1):                   "the name of Debian's own",
		suite(`archive = "debian"`, `name = "bookworm"`):                                                  "a suite needs",
		suite(`archive = "debian"`, `name = "./"`, `components = ["main"]`):                               "a suite needs",
		suite(`archive = "debian"`, `name = "../"`):                                                       "a suite needs",
		wish(`name = "libc6"`, `version = "2.3*"`):                                                        "",
		wish(`name = "libc6"`, `from = "bookworm"`, `recommends = true`):                                  "",
		"recommends = true\n" + good:                                                                      "",
		wish(`name = "libc6"`, `from = "sid"`):                                                            "none of the suites",
		wish(`name = "libc6"`, `from = "bookworm"`, `version = "1"`):                                      "Give one of them",
		wish(`name = "libc6"`, `version = "1 2"`):                                                         "is no version",
		wish(`name = "~nfoo"`):                                                                            "is no name of a package",
		wish(`name = "foo bar"`):                                                                          "is no name of a package",
		wish(`name = "x11"`, `pin = "1"`):                                                                 "what is",
	} {
		_, err := parseManifest(text)
		if says == "" {
			assert.NoError(t, err, text)
		} else {
			assert.ErrorContains(t, err, says, text)
			assert.NotContains(t, fmt.Sprint(err), "secret")
		}
	}
}

// The hash of a manifest stands in locks that were written long ago.
func TestWantsStayTheSame(t *testing.T) {
	assert.Equal(t, "6904276d4c9df727e79508fb9212da03fa247e599caf115d8028476ee6178f4e", manifest("b", "a").hash())
	seen := map[string]bool{}
	for _, change := range []func(*Manifest){
		func(*Manifest) {},
		func(m *Manifest) { m.Recommends = true },
		func(m *Manifest) { m.Packages[0].Recommends = true },
		func(m *Manifest) { m.Packages[0].Version = "1" },
		func(m *Manifest) { m.Packages[0].From = "bookworm" },
		func(m *Manifest) { m.Suites[0].URL, m.Suites[0].Keyring = "http://x", "y" },
		func(m *Manifest) { m.Suites[0].URL, m.Suites[0].Keyring = "http://x", "z" },
	} {
		m := manifest("a", "b")
		change(&m)
		assert.False(t, seen[m.hash()])
		seen[m.hash()] = true
	}
}

func FuzzManifest(f *testing.F) {
	f.Add("architecture = \"amd64\"\n[[suite]]\narchive = \"cuda\"\nname = \"./\"\nurl = \"http://x/y\"\nkeyring = \"z\"\n" +
		"[[package]]\nname = \"abc\"\nwhy = \"x\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		lines := strings.Split(text, "\n")
		for _, w := range m.Packages {
			if w.line > 0 {
				require.Contains(t, lines[w.line-1], w.Name)
			}
		}
		l := Lock{Snapshot: epoch, Wants: m.hash(), Architecture: m.Architecture, Suites: m.Suites, Signers: map[string]string{}}
		for _, s := range m.Suites {
			l.Signers[s.Archive] = "ABCD"
		}
		again, err := ParseLock(strings.NewReader(string(l.Marshal())))
		require.NoError(t, err)
		require.Len(t, again.Suites, len(m.Suites))
		for i, s := range m.Suites {
			require.Equal(t, s.URL+s.Keyring+s.id(), again.Suites[i].URL+again.Suites[i].Keyring+again.Suites[i].id())
		}
	})
}

// Whatever an archive signs is read without a panic, and only what was asked for.
func FuzzIndex(f *testing.F) {
	f.Add("Package: a\nEssential: yes\nFilename: ./pool/a\n\nPackage: b\nDescription: x\n Package: c\n")
	f.Add("Codename: bookworm\nDate: Sat, 1 Nov 2026 09:15:44 +0000\nValid-Until: Sat, 01 Nov 2126 09:15:44 UTC\n" +
		"SHA256:\n " + strings.Repeat("0", 64) + " 7 ./main/Packages\n")
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := (archiveReader{now: epoch}).parseRelease([]byte(text), manifest().Suites[0]); err == nil {
			for name, file := range r.files {
				require.GreaterOrEqual(t, file.size, int64(0), name)
				require.Len(t, file.sum, 64)
			}
			r.find("main/binary-amd64")
		}
		path := filepath.Join(t.TempDir(), "Packages")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		index{path: path}.eachPackage(func(text []byte) bool { return fieldOf(text, "Package") == "a" }, func(p paragraph) error { return nil })
	})
}

func TestFieldOf(t *testing.T) {
	const text = "Package: a\nDescription: Version: 1\n Version: 2\nX-Version: 3\nVersion:  4 \nFilename:"
	for name, want := range map[string]string{"Package": "a", "Version": "4", "Filename": "", "None": ""} {
		assert.Equal(t, want, fieldOf([]byte(text), name), name)
	}
}

func TestNearest(t *testing.T) {
	for name, c := range map[string]struct{ have, got string }{
		"the lowest above":      {"1 5 4 3", "3"},
		"the same":              {"1 2 3", "2"},
		"the highest below":     {"1 1.5 1.2", "1.5"},
		"tilde is below":        {"2~rc1 9", "9"},
		"of another name, none": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			offers := []Package{{Name: "b", Version: "2"}}
			for _, version := range strings.Fields(c.have) {
				offers = append(offers, Package{Name: "a", Version: version})
			}
			got, err := nearest(offers, Package{Name: "a", Version: "2"})
			if c.got == "" {
				require.ErrorIs(t, err, errGone)
				assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.got, got.Version)
		})
	}
}
