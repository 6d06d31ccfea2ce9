// Package debian turns a list of wanted Debian packages into a root file
// system: packages.toml -> packages.lock -> verified .deb files -> rootfs.tar. apt
// itself decides what is in the lock: it runs in a container, without a network, over
// indices that were fetched and verified here. What comes after the lock needs neither
// apt nor dpkg, neither root nor Linux nor Docker.
package debian

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Recipe names the way in which packages become a root file system. It changes
// whenever the same lock would give other bytes.
const Recipe = "1"

// A Suite is one part of an archive from which packages may come.
type Suite struct {
	Archive    string   `toml:"archive"`    // "debian" or "debian-security", as mirrors name its folder; of others any name
	Name       string   `toml:"name"`       // codename, such as bookworm-security; or, with a slash at its end, the folder of a flat archive
	Components []string `toml:"components"` // none of a flat archive

	// Of an archive that isn't Debian's.
	URL     string `toml:"url"`     // its base, below which dists/ lies or, if it is flat, the folder
	Keyring string `toml:"keyring"` // file with the keys that sign it, below the checkout's root
}

// A Requirement is a package that is wanted by name.
type Requirement struct {
	Name       string `toml:"name"`
	Why        string `toml:"why"`
	Version    string `toml:"version"`    // that and no other; "2.38*" is any that begins so
	From       string `toml:"from"`       // the suite that it comes from, with what it needs from there
	Recommends bool   `toml:"recommends"` // also what it recommends

	line int // of the manifest; 0 if unknown
}

// A Manifest is what packages.toml says: which packages are wanted, and from
// where. What they depend on, and what is Essential, comes with them.
type Manifest struct {
	Architecture string        `toml:"architecture"`
	Recommends   bool          `toml:"recommends"` // also what any of them recommends, as apt does unless told otherwise
	Suites       []Suite       `toml:"suite"`
	Packages     []Requirement `toml:"package"`

	file string // that it was read from
}

// ReadManifest reads a packages.toml.
func ReadManifest(file string) (Manifest, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Manifest{}, err
	}
	m, err := parseManifest(string(data))
	if err != nil {
		return Manifest{}, fmt.Errorf("reading %s: %w", file, err)
	}
	m.file = file
	return m, nil
}

func parseManifest(text string) (m Manifest, err error) {
	meta, err := toml.Decode(text, &m)
	if err != nil {
		return Manifest{}, err
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return Manifest{}, fmt.Errorf("what is %q? It knows architecture, recommends, [[suite]] with archive, name, components, url and "+
			"keyring, [[package]] with name, why, version, from and recommends", extra[0])
	}
	for i := range m.Suites {
		m.Suites[i].URL = strings.TrimRight(m.Suites[i].URL, "/")
	}
	lines := packageLines(text)
	for i := range m.Packages {
		m.Packages[i].line = lines[m.Packages[i].Name]
	}
	return m, m.check()
}

var (
	tomlTable   = regexp.MustCompile(`^\s*\[+\s*([^\]\s]*)\s*\]`)
	tomlName    = regexp.MustCompile(`^\s*name\s*=\s*["']([^"']*)["']`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*$`) // Debian Policy, 5.6.1
	debVersion  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~-]*\*?$`)
)

// packageLines returns the line on which a manifest names each package, as far as it
// is written as usual, a name on a line below [[package]]: the TOML reader doesn't tell.
func packageLines(text string) map[string]int {
	lines := map[string]int{}
	table, n := "", 0
	for line := range strings.Lines(text) {
		n++
		if found := tomlTable.FindStringSubmatch(line); found != nil {
			table = found[1]
		} else if found := tomlName.FindStringSubmatch(line); found != nil && table == "package" && lines[found[1]] == 0 {
			lines[found[1]] = n
		}
	}
	return lines
}

// where is the place of a requirement, for messages.
func (m Manifest) where(r Requirement) string {
	if r.line == 0 {
		return m.name()
	}
	return fmt.Sprintf("%s:%d", m.name(), r.line)
}

// name is that of the manifest's file, for messages.
func (m Manifest) name() string {
	if m.file == "" {
		return "packages.toml"
	}
	if filepath.Dir(m.file) == "." {
		return m.file
	}
	return filepath.Base(filepath.Dir(m.file)) + "/" + filepath.Base(m.file)
}

func (m Manifest) check() error {
	if !isPlainWord(m.Architecture) {
		return fmt.Errorf(`architecture is missing, such as "amd64"`)
	}
	if len(m.Suites) == 0 {
		return errors.New("no [[suite]] says where packages come from")
	}
	if err := checkSuites(m.Suites); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, p := range m.Packages {
		switch {
		case !packageName.MatchString(p.Name):
			return fmt.Errorf("%q is no name of a package", p.Name)
		case strings.TrimSpace(p.Why) == "":
			return fmt.Errorf("package %s has no why: say in a few words what it is there for", p.Name)
		case seen[p.Name]:
			return fmt.Errorf("package %s is there twice", p.Name)
		case p.Version != "" && !debVersion.MatchString(p.Version):
			return fmt.Errorf("package %s: %q is no version, such as 1.2-3 or 1.2*", p.Name, p.Version)
		case p.From != "" && !slices.ContainsFunc(m.Suites, func(s Suite) bool { return s.Name == p.From && !s.flat() }):
			return fmt.Errorf("package %s is wanted from %q, which is none of the suites", p.Name, p.From)
		case p.Version != "" && p.From != "":
			return fmt.Errorf("package %s has a version and a suite that it comes from. Give one of them", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// id names the suite among those of a lock.
func (s Suite) id() string { return s.Archive + " " + s.Name }

// flat reports whether the suite is a folder with the packages and their index in it.
func (s Suite) flat() bool { return strings.HasSuffix(s.Name, "/") }

// folder is that of the suite's InRelease file, below the archive's base.
func (s Suite) folder() string {
	if s.flat() {
		return path.Clean(s.Name)
	}
	return "dists/" + s.Name
}

func checkSuites(suites []Suite) error {
	archives := map[string]Suite{}
	for _, s := range suites {
		if err := s.check(); err != nil {
			return err
		}
		if same, known := archives[s.Archive]; known && (same.URL != s.URL || same.Keyring != s.Keyring) {
			return fmt.Errorf("archive %s has two URLs or keyrings. Name them apart", s.Archive)
		}
		archives[s.Archive] = s
	}
	return nil
}

// check refuses what can't stand in a path or a line of the lock.
func (s Suite) check() error {
	for _, word := range append([]string{s.Archive, strings.TrimSuffix(strings.TrimPrefix(s.Name, "./"), "/")}, s.Components...) {
		if !isPlainWord(word) && !(s.flat() && word == "") || s.flat() != (len(s.Components) == 0) || s.Archive == "" {
			return fmt.Errorf("a suite needs archive, name and components, plain words each, or no components and the folder of a flat archive, "+
				"such as ./, for its name: %q %q %q", s.Archive, s.Name, s.Components)
		}
	}
	switch {
	case (s.URL == "") != (s.Keyring == ""):
		return fmt.Errorf("archive %s: url and keyring go together: whoever isn't Debian signs with keys of their own", s.Archive)
	case s.URL == "":
		return nil
	case s.Archive == "debian" || s.Archive == "debian-security":
		return fmt.Errorf("archive %s has a URL, but this is the name of Debian's own. Give it another one", s.Archive)
	case !isPlainURL(s.URL):
		return fmt.Errorf("archive %s: its url is no http or https address of a folder, without user and password "+
			"(name a mirror that wants these in %s)", s.Archive, EnvMirror)
	case !filepath.IsLocal(filepath.FromSlash(s.Keyring)) || !isOneWord(s.Keyring):
		return fmt.Errorf("archive %s: its keyring %q is no path of a file below the checkout's root, without spaces", s.Archive, s.Keyring)
	}
	return nil
}

// isPlainURL reports whether an address can stand in a lock and have a path added.
func isPlainURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		!strings.HasSuffix(address, "/") && !strings.ContainsAny(address, "@?#") && isOneWord(address)
}

// isOneWord reports whether a text is one word in a line of a lock.
func isOneWord(text string) bool {
	fields := strings.Fields(text)
	return len(fields) == 1 && fields[0] == text && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// isPlainWord reports whether a word can stand in a line of the lock and in a path.
func isPlainWord(word string) bool {
	if word == "" || word[0] == '.' || word[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".+-_~:", r))
	})
}

// hash identifies what a manifest asks for; comments, order and reasons don't matter.
func (m Manifest) hash() string {
	var suites, wishes []string
	for _, s := range m.Suites {
		text := fmt.Sprintf("%s %s %v", s.Archive, s.Name, s.Components)
		if s.URL != "" {
			text += " " + s.URL + " " + s.Keyring
		}
		suites = append(suites, "{"+text+"}")
	}
	for _, p := range m.Packages {
		text := p.Name
		if p.Version != "" {
			text += "=" + p.Version
		}
		if p.From != "" {
			text += "/" + p.From
		}
		if p.Recommends {
			text += " recommends"
		}
		wishes = append(wishes, text)
	}
	slices.Sort(wishes)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %v %v", m.Architecture, suites, wishes)
	if m.Recommends {
		b.WriteString(" recommends")
	}
	sum := sha256.Sum256(b.Bytes())
	return hex.EncodeToString(sum[:])
}
