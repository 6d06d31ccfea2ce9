package wheels

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"deps.dev/util/pypi"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/download"
)

// A Wheel is a pinned wheel.
type Wheel struct {
	Name    string // as indexes have it
	Version string
	File    string // its name, by which pip knows what it is for
	Size    int64  // bytes
	SHA256  string // hex
	URL     string // or a path below the checkout's root
	Index   string // a simple index that has it; may be empty
}

func (w Wheel) String() string { return w.Name + " " + w.Version }

func (w Wheel) want() download.File { return download.File{Size: w.Size, SHA256: w.SHA256} }

// local reports whether the wheel is in the checkout.
func (w Wheel) local() bool { return !strings.Contains(w.URL, "://") }

// A Lock pins the wheels that a Python gets of a pylock.toml.
type Lock struct {
	Wants  string // hash of what was asked for
	Python Python
	Wheels []Wheel // sorted by name
}

const lockHeader = "# Written by `go tool mage pin`. A wheel a line: name, version, file, size, SHA-256,\n" +
	"# address (or path in this repository), index.\n"

// none stands for a missing word.
const none = "-"

// Marshal returns the content of the lock's file.
func (l Lock) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(lockHeader)
	fmt.Fprintf(&b, "wants %s\npython %s\nglibc %s\narchitecture %s\n", l.Wants, l.Python.Version, l.Python.Glibc, l.Python.Architecture)
	for _, w := range l.Wheels {
		fmt.Fprintf(&b, "wheel %s %s %s %d %s %s %s\n", w.Name, w.Version, w.File, w.Size, w.SHA256, w.URL, cmp.Or(w.Index, none))
	}
	return b.Bytes()
}

// Hash identifies the lock's wheels, wherever they come from.
func (l Lock) Hash() string {
	h := sha256.New()
	for _, w := range l.Wheels {
		fmt.Fprintln(h, w.Name, w.Version, w.File, w.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ReadLock reads a wheels.lock. If there is none the error wraps fs.ErrNotExist and
// says how to make one.
func ReadLock(name string) (Lock, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Lock{}, advice.With(err, "Make it with\n\t%s pin", advice.Berth)
	} else if err != nil {
		return Lock{}, err
	}
	l, err := parseLock(string(data))
	if err != nil {
		return Lock{}, advice.With(fmt.Errorf("reading %s: %w", name, err),
			"Take the file from version control again, or remove it and type\n\t%s pin", advice.Berth)
	}
	return l, nil
}

func parseLock(text string) (l Lock, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := l.parseLine(strings.Fields(line)); err != nil {
			return Lock{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if l.Wants == "" {
		return Lock{}, errors.New("it lacks its first lines (wants, python, glibc, architecture)")
	}
	for i := 1; i < len(l.Wheels); i++ {
		if l.Wheels[i].Name <= l.Wheels[i-1].Name {
			return Lock{}, fmt.Errorf("the wheel of %s is there twice, or not in its place", l.Wheels[i].Name)
		}
	}
	return l, l.Python.check()
}

func (l *Lock) parseLine(words []string) (err error) {
	switch {
	case len(words) == 2 && words[0] == "wants":
		l.Wants = words[1]
	case len(words) == 2 && words[0] == "python":
		l.Python.Version = words[1]
	case len(words) == 2 && words[0] == "glibc":
		l.Python.Glibc = words[1]
	case len(words) == 2 && words[0] == "architecture":
		l.Python.Architecture = words[1]
	case len(words) == 8 && words[0] == "wheel":
		w := Wheel{Name: words[1], Version: words[2], File: words[3], SHA256: words[5], URL: words[6], Index: words[7]}
		if w.Index == none {
			w.Index = ""
		}
		if w.Size, err = strconv.ParseInt(words[4], 10, 64); err == nil {
			err = w.check()
		}
		l.Wheels = append(l.Wheels, w)
	default:
		err = fmt.Errorf("%q is no line of a lock", strings.Join(words, " "))
	}
	return err
}

// check refuses what could lead out of a folder or past a check.
func (w Wheel) check() error {
	if sum, err := hex.DecodeString(w.SHA256); err != nil || len(sum) != sha256.Size || w.SHA256 != strings.ToLower(w.SHA256) {
		return fmt.Errorf("%q is no SHA-256", w.SHA256)
	}
	for _, word := range []string{w.Name, w.Version, w.File, w.URL, w.Index} {
		if strings.ContainsFunc(word, unicode.IsSpace) { // which isn't quoted: it may have a password
			return advice.With(errors.New("there is white space in its name, path or address, at which a line of the lock would be split"),
				"Write %%20 in an address, or move the wheel to a folder whose name has none, and lock it there")
		}
	}
	info, err := pypi.ParseWheelName(w.File)
	if err != nil {
		return err
	}
	if w.File != path.Base(w.File) || strings.ContainsAny(w.File, "\\%") || normal(info.Name) != w.Name || w.Size <= 0 {
		return fmt.Errorf("%s makes no sense as a wheel of %s", w.File, w)
	}
	if strings.ContainsAny(w.Version, "'\"\\;=<>!~#[]()") {
		return fmt.Errorf("%q is no version", w.Version)
	}
	if w.local() && !filepath.IsLocal(filepath.FromSlash(w.URL)) {
		return fmt.Errorf("%q is no path below the root", w.URL)
	}
	for _, address := range []string{w.URL, w.Index} {
		u, err := url.Parse(address)
		if err != nil || u.User != nil || u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" || u.Scheme != "" && u.Host == "" {
			return fmt.Errorf("an address of %s isn't one of http or https, without a password", w)
		}
	}
	return nil
}

// diff lists what changed from one lock to the next, a line each.
func diff(old, new Lock) (lines []string) {
	was, is := map[string]Wheel{}, map[string]Wheel{}
	for _, w := range old.Wheels {
		was[w.Name] = w
	}
	names := map[string]bool{}
	for _, w := range new.Wheels {
		is[w.Name] = w
	}
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	for name := range names {
		a, b := was[name], is[name]
		switch {
		case a.SHA256 == b.SHA256:
		case a.SHA256 == "":
			lines = append(lines, fmt.Sprintf("+ wheel %s %s", name, b.Version))
		case b.SHA256 == "":
			lines = append(lines, fmt.Sprintf("- wheel %s %s", name, a.Version))
		case a.Version == b.Version:
			lines = append(lines, fmt.Sprintf("~ wheel %s %s: %s -> %s", name, a.Version, a.File, b.File))
		default:
			lines = append(lines, fmt.Sprintf("~ wheel %s %s -> %s", name, a.Version, b.Version))
		}
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	return lines
}

// requirements is the file from which pip installs the lock's wheels.
func (l Lock) requirements(w io.Writer) error {
	for _, one := range l.Wheels {
		if _, err := fmt.Fprintf(w, "%s==%s --hash=sha256:%s\n", one.Name, one.Version, one.SHA256); err != nil {
			return err
		}
	}
	return nil
}
