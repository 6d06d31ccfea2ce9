// Package debian turns a list of wanted Debian packages into a root file
// system: packages.toml -> packages.lock -> verified .deb files -> rootfs.tar. It
// needs neither dpkg nor apt, neither root nor Linux, and knows nothing of
// Docker, Dagger or images.
package debian

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Recipe names the way in which packages become a root file system. It changes
// whenever the same lock would give other bytes.
const Recipe = "1"

// A Suite is one part of an archive from which packages may come.
type Suite struct {
	Archive    string   `toml:"archive"` // "debian" or "debian-security": the folder that mirrors serve it under
	Name       string   `toml:"name"`    // codename, such as bookworm or bookworm-security
	Components []string `toml:"components"`
}

// A Requirement is a package that is wanted by name.
type Requirement struct {
	Name string `toml:"name"`
	Why  string `toml:"why"`
}

// A Manifest is what packages.toml says: which packages are wanted, and from
// where. What they depend on, and what is Essential, comes with them.
type Manifest struct {
	Architecture string        `toml:"architecture"`
	Suites       []Suite       `toml:"suite"`
	Packages     []Requirement `toml:"package"`
}

// ReadManifest reads a packages.toml.
func ReadManifest(path string) (Manifest, error) {
	var m Manifest
	meta, err := toml.DecodeFile(path, &m)
	if err != nil {
		return Manifest{}, fmt.Errorf("reading %s: %w", path, err)
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return Manifest{}, fmt.Errorf("reading %s: what is %q? It knows architecture, [[suite]] with archive, name and components, [[package]] "+
			"with name and why", path, extra[0])
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return m, nil
}

func (m Manifest) check() error {
	if m.Architecture == "" {
		return fmt.Errorf(`architecture is missing, such as "amd64"`)
	}
	if len(m.Suites) == 0 {
		return fmt.Errorf("no [[suite]] says where packages come from")
	}
	for _, s := range m.Suites {
		if err := s.check(); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for _, p := range m.Packages {
		switch {
		case !isPlainWord(p.Name):
			return fmt.Errorf("%q is no name of a package", p.Name)
		case strings.TrimSpace(p.Why) == "":
			return fmt.Errorf("package %s has no why: say in a few words what it is there for", p.Name)
		case seen[p.Name]:
			return fmt.Errorf("package %s is there twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// id names the suite among those of a lock.
func (s Suite) id() string { return s.Archive + " " + s.Name }

// check refuses what can't stand in a path or a line of the lock.
func (s Suite) check() error {
	for _, word := range append([]string{s.Archive, s.Name}, s.Components...) {
		if !isPlainWord(word) || len(s.Components) == 0 {
			return fmt.Errorf("a suite needs archive, name and components, plain words each: %+v", s)
		}
	}
	return nil
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
	names := make([]string, 0, len(m.Packages))
	for _, p := range m.Packages {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v %v", m.Architecture, m.Suites, names))
	return hex.EncodeToString(sum[:])
}
