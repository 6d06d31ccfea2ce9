package debian

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"pault.ag/go/debian/version"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/download"
)

// A Package is one pinned package.
type Package struct {
	Name         string
	Version      string
	Architecture string // "all" or the manifest's
	Archive      string // as in its suite
	File         string // path below the archive's base, pool/…
	Size         int64  // bytes
	SHA256       string // hex
}

func (p Package) String() string { return p.Name + " " + p.Version }

func (p Package) file() download.File { return download.File{Size: p.Size, SHA256: p.SHA256} }

// A Lock pins everything that a manifest asks for.
type Lock struct {
	Snapshot     time.Time // of the pin: then or soon after, snapshot.debian.org has every file; also the epoch of what is made
	Wants        string    // hash of the manifest that it was made for
	Architecture string
	Suites       []Suite
	Dates        map[string]time.Time // of the suites that it was made from, by archive and name; none of a suite in older locks
	Signers      map[string]string    // fingerprints of the keys that signed archives other than Debian's, by archive
	Packages     []Package            // sorted by name
}

const lockHeader = "# Written by `go tool mage pin`. A package a line: name, version, architecture,\n" +
	"# archive, file, size, SHA-256. Every file is for good at\n" +
	"# https://snapshot.debian.org/archive/<archive>/<snapshot>/<file>.\n"

// unkept warns of packages that no snapshot has.
const unkept = "# No snapshot service keeps the packages of %s: what its url drops is gone. `go tool mage materials`\n" +
	"# writes them to rootfs.kept, from which they can be served again (BERTH_DEBIAN_MIRROR).\n"

const snapshotLayout = "20060102T150405Z"

// urls are those of the archives that have one.
func (l Lock) urls() map[string]string {
	all := map[string]string{}
	for _, s := range l.Suites {
		if s.URL != "" {
			all[s.Archive] = s.URL
		}
	}
	return all
}

// snapshots are the times for which snapshot.debian.org is asked. It answers with its last
// import before a time, of which there are several a day: what was published between that
// and the pin comes with a later one.
func (l Lock) snapshots() []time.Time {
	return []time.Time{l.Snapshot, l.Snapshot.Add(6 * time.Hour), l.Snapshot.Add(24 * time.Hour)}
}

// WriteFile writes the lock, whole or not at all.
func (l Lock) WriteFile(path string) error { return cache.WriteFile(path, l.Marshal(), 0o644) }

// Marshal returns the content of the lock's file.
func (l Lock) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(lockHeader)
	fmt.Fprintf(&b, "snapshot %s\nwants %s\narchitecture %s\n", l.Snapshot.UTC().Format(snapshotLayout), l.Wants, l.Architecture)
	archives := map[string]bool{}
	for _, s := range l.Suites {
		if s.URL != "" && !archives[s.Archive] {
			archives[s.Archive] = true
			fmt.Fprintf(&b, unkept+"archive %s %s %s %s\n", s.Archive, s.Archive, s.URL, s.Keyring, l.Signers[s.Archive])
		}
		fmt.Fprintln(&b, strings.Join(append([]string{"suite", s.Archive, s.Name}, s.Components...), " "))
	}
	for _, suite := range slices.Sorted(maps.Keys(l.Dates)) {
		fmt.Fprintf(&b, "date %s %s\n", suite, l.Dates[suite].UTC().Format(snapshotLayout))
	}
	for _, p := range l.Packages {
		fmt.Fprintf(&b, "package %s %s %s %s %s %d %s\n", p.Name, p.Version, p.Architecture, p.Archive, p.File, p.Size, p.SHA256)
	}
	return b.Bytes()
}

// Hash identifies the lock's packages. Dates aren't part of it: they change nothing in
// what is made from the lock.
func (l Lock) Hash() string { return hashPackages(l.Snapshot, l.Packages) }

func hashPackages(snapshot time.Time, packages []Package) string {
	h := sha256.New()
	fmt.Fprintln(h, snapshot.Unix())
	for _, p := range packages {
		fmt.Fprintln(h, p.Name, p.Version, p.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ReadLock reads a packages.lock. If there is none the error wraps
// fs.ErrNotExist and says how to make one.
func ReadLock(path string) (Lock, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Lock{}, advice.With(err, "Make it with\n\t%s pin", advice.Berth)
	} else if err != nil {
		return Lock{}, err
	}
	l, err := ParseLock(bytes.NewReader(data))
	if err != nil {
		return Lock{}, advice.With(fmt.Errorf("reading %s: %w", path, err),
			"Take the file from version control again, or remove it (which forgets the dates of its suites) and type\n\t%s pin",
			advice.Berth)
	}
	return l, nil
}

// ParseLock reads the text of a packages.lock.
func ParseLock(r io.Reader) (Lock, error) {
	var l Lock
	archives := map[string]Suite{} // URL and keyring
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if err := l.parseLine(strings.Fields(text), archives); err != nil {
			return Lock{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return Lock{}, err
	}
	if l.Snapshot.IsZero() || l.Wants == "" || l.Architecture == "" || len(l.Suites) == 0 {
		return Lock{}, errors.New("it lacks its first lines (snapshot, wants, architecture, suite)")
	}
	if err := checkSuites(l.Suites); err != nil {
		return Lock{}, err
	}
	if !slices.IsSortedFunc(l.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) }) {
		return Lock{}, errors.New("its packages aren't sorted by name")
	}
	for i := 1; i < len(l.Packages); i++ {
		if l.Packages[i].Name == l.Packages[i-1].Name {
			return Lock{}, fmt.Errorf("package %s is there twice", l.Packages[i].Name)
		}
	}
	return l, nil
}

func (l *Lock) parseLine(words []string, archives map[string]Suite) (err error) {
	switch {
	case len(words) == 2 && words[0] == "snapshot":
		l.Snapshot, err = time.Parse(snapshotLayout, words[1])
	case len(words) == 2 && words[0] == "wants":
		l.Wants = words[1]
	case len(words) == 2 && words[0] == "architecture":
		l.Architecture = words[1]
	case len(words) == 5 && words[0] == "archive":
		archives[words[1]] = Suite{URL: words[2], Keyring: words[3]}
		if l.Signers == nil {
			l.Signers = map[string]string{}
		}
		l.Signers[words[1]] = words[4]
	case len(words) >= 3 && words[0] == "suite":
		s := archives[words[1]]
		s.Archive, s.Name = words[1], words[2]
		if len(words) > 3 {
			s.Components = words[3:]
		}
		l.Suites = append(l.Suites, s)
		err = s.check()
	case len(words) == 4 && words[0] == "date":
		s := Suite{Archive: words[1], Name: words[2]}
		if _, twice := l.Dates[s.id()]; twice {
			return fmt.Errorf("suite %s has two dates", s.id())
		}
		if l.Dates == nil {
			l.Dates = map[string]time.Time{}
		}
		l.Dates[s.id()], err = time.Parse(snapshotLayout, words[3])
	case len(words) == 8 && words[0] == "package":
		p := Package{Name: words[1], Version: words[2], Architecture: words[3], Archive: words[4], File: words[5], SHA256: words[7]}
		if p.Size, err = strconv.ParseInt(words[6], 10, 64); err == nil {
			err = p.check()
		}
		l.Packages = append(l.Packages, p)
	default:
		err = fmt.Errorf("%q is no line of a lock", strings.Join(words, " "))
	}
	return err
}

// check refuses what could lead out of a folder or past a check.
func (p Package) check() error {
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != sha256.Size || p.SHA256 != strings.ToLower(p.SHA256) {
		return fmt.Errorf("%q is no SHA-256", p.SHA256)
	}
	if _, err := version.Parse(p.Version); err != nil {
		return fmt.Errorf("%q is no version: %w", p.Version, err)
	}
	if !isPlainWord(p.Name) || !isPlainWord(p.Archive) || !isPlainWord(p.Architecture) || p.Size <= 0 {
		return fmt.Errorf("%v makes no sense as a package", p)
	}
	if path.IsAbs(p.File) || path.Clean(p.File) != p.File || p.File == "." || strings.HasPrefix(p.File, "..") ||
		strings.ContainsAny(p.File, "?#\\") {
		return fmt.Errorf("%q is no path in an archive", p.File)
	}
	return nil
}

// CheckFiles compares a packages.lock with the packages.toml that it should be made
// for, without asking any archive. If the lock is stale, the error wraps
// input.ErrPinsDiffer.
func CheckFiles(manifest, lock string) error {
	m, err := ReadManifest(manifest)
	if err != nil {
		return err
	}
	l, err := ReadLock(lock)
	if err != nil {
		return err
	}
	if what := stale(m, l); what != "" {
		err := fmt.Errorf("%w: %s isn't what %s asks for (%s)", input.ErrPinsDiffer, lock, manifest, what)
		return advice.With(err, "Type\n\t%s pin", advice.Berth)
	}
	return nil
}

// stale returns in what way a lock isn't what the manifest asks for, or "".
func stale(m Manifest, l Lock) string {
	locked := map[string]bool{}
	for _, p := range l.Packages {
		locked[p.Name] = true
	}
	var missing []string
	for _, p := range m.Packages {
		if !locked[p.Name] {
			missing = append(missing, p.Name)
		}
	}
	switch {
	case len(missing) > 0:
		return "not locked: " + strings.Join(missing, ", ")
	case l.Wants != m.hash():
		return "its packages, suites or architecture changed since"
	default:
		return ""
	}
}

// A Change is what became of one package from one lock to the next.
type Change struct {
	Name     string
	Old, New string // versions; empty where there is none
}

func (c Change) String() string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("+ %s %s", c.Name, c.New)
	case c.New == "":
		return fmt.Sprintf("- %s %s", c.Name, c.Old)
	default:
		return fmt.Sprintf("~ %s %s -> %s", c.Name, c.Old, c.New)
	}
}

// Diff lists what changed, by name.
func Diff(old, new Lock) []Change {
	changes := map[string]Change{}
	sums := map[string]string{}
	for _, p := range old.Packages {
		changes[p.Name] = Change{Name: p.Name, Old: p.Version}
		sums[p.Name] = p.SHA256
	}
	for _, p := range new.Packages {
		if sums[p.Name] == p.SHA256 {
			delete(changes, p.Name)
			continue
		}
		changes[p.Name] = Change{Name: p.Name, Old: changes[p.Name].Old, New: p.Version}
	}
	all := make([]Change, 0, len(changes))
	for _, c := range changes {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	return all
}
