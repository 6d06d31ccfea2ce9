package wheels

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"deps.dev/util/pypi"
	"github.com/BurntSushi/toml"

	"github.com/berthdev/berth/internal/advice"
)

// A pylock is a pylock.toml (https://packaging.python.org/en/latest/specifications/pylock-toml/),
// as far as it matters here.
type pylock struct {
	Version        string        `toml:"lock-version"`
	Environments   []string      `toml:"environments"`
	RequiresPython string        `toml:"requires-python"`
	Extras         []string      `toml:"extras"`
	Groups         []string      `toml:"dependency-groups"`
	DefaultGroups  []string      `toml:"default-groups"`
	Packages       []requirement `toml:"packages"`
}

// A requirement is one of its packages.
type requirement struct {
	Name           string         `toml:"name"`
	Version        string         `toml:"version"`
	Marker         string         `toml:"marker"`
	RequiresPython string         `toml:"requires-python"`
	Index          string         `toml:"index"`
	Wheels         []file         `toml:"wheels"`
	Sdist          map[string]any `toml:"sdist"`
	Archive        map[string]any `toml:"archive"`
	Directory      map[string]any `toml:"directory"`
	VCS            map[string]any `toml:"vcs"`
}

func (r requirement) String() string { return strings.TrimSpace(r.Name + " " + r.Version) }

// A file is a wheel that may be installed.
type file struct {
	Name   string            `toml:"name"`
	URL    string            `toml:"url"`
	Path   string            `toml:"path"` // relative to the pylock.toml
	Size   int64             `toml:"size"`
	Hashes map[string]string `toml:"hashes"`
}

// readPylock reads a pylock.toml. If there is none, the error says how to make one.
func readPylock(name string) (pylock, []byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return pylock{}, nil, advice.With(err, "Have it written by\n\tuv export --format pylock.toml -o pylock.toml\n"+
			"or by pip lock or pdm export -f pylock")
	} else if err != nil {
		return pylock{}, nil, err
	}
	l, err := parsePylock(data)
	if err != nil {
		err = fmt.Errorf("reading %s: %w", name, err)
	}
	return l, data, err
}

func parsePylock(data []byte) (l pylock, err error) {
	if _, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&l); err != nil {
		// Of another version, it may have another form as well.
		var head struct {
			Version any `toml:"lock-version"`
		}
		if _, herr := toml.Decode(string(data), &head); herr != nil || head.Version == nil {
			return pylock{}, err
		}
		l.Version = fmt.Sprint(head.Version)
		if versionOne(l.Version) {
			return pylock{}, err
		}
	}
	if !versionOne(l.Version) {
		err := fmt.Errorf("its lock-version is %q, and Berth knows 1.0 (PEP 751)", l.Version)
		return pylock{}, advice.With(err, "Have it written in that version, or upgrade Berth")
	}
	for _, r := range l.Packages {
		if r.Name == "" || normal(r.Name) != strings.Trim(normal(r.Name), "-") || strings.ContainsAny(r.Name+r.Version, " \t\r\n/\\") {
			return pylock{}, fmt.Errorf("%q makes no sense as a package", r.String())
		}
	}
	return l, nil
}

func versionOne(v string) bool { return v == "1" || strings.HasPrefix(v, "1.") }

// hashPylock identifies what is asked for.
func hashPylock(data []byte, extras, groups []string) string {
	sum := sha256.New()
	sum.Write(data)
	fmt.Fprintf(sum, "\n%q %q %t\n", extras, groups, groups == nil)
	return hex.EncodeToString(sum.Sum(nil))
}

// choose returns the wheels that a Python gets, sorted by name. Size and SHA-256 may be
// missing yet. The error names all packages that can't be installed, and why. dir is
// the folder of the pylock.toml, as the lock is to have it.
func (l pylock) choose(p Python, extras, groups []string, dir string) (chosen []candidate, err error) {
	err = errors.Join(undeclared("extra", extras, l.Extras), undeclared("group", groups, slices.Concat(l.Groups, l.DefaultGroups)))
	if err != nil {
		return nil, err
	}
	if groups == nil {
		groups = l.DefaultGroups
	}
	e := environment{values: p.environment(), lists: map[string][]string{"extras": extras, "dependency_groups": groups}}
	if suits, err := p.suits(l.RequiresPython); err != nil {
		return nil, err
	} else if !suits {
		err := fmt.Errorf("it is for Python %s, and the image has %s", l.RequiresPython, p.Version)
		return nil, advice.With(err, "Lock it again for Python %s, "+
			"or have another suite of Debian in the list of packages that are wanted", p.short())
	}
	if err := l.checkEnvironments(e, p); err != nil {
		return nil, err
	}
	var errs []error
	seen := map[string]requirement{}
	for _, r := range l.Packages {
		holds, err := e.evaluate(r.Marker)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r, err))
			continue
		} else if !holds {
			continue
		}
		if other, twice := seen[normal(r.Name)]; twice {
			errs = append(errs, fmt.Errorf("%s and %s are both wanted on %s: their markers don't exclude each other", other, r, p))
			continue
		}
		seen[normal(r.Name)] = r
		one, err := r.choose(p, dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		chosen = append(chosen, one)
	}
	slices.SortFunc(chosen, func(a, b candidate) int { return strings.Compare(a.Name, b.Name) })
	return chosen, errors.Join(errs...)
}

// undeclared refuses an extra or a group that the lock doesn't have: no marker would hold for
// it, and nobody would know. kind is also the option of uv.
func undeclared(kind string, named, declared []string) error {
	for _, name := range named {
		if slices.ContainsFunc(declared, func(one string) bool { return normal(one) == normal(name) }) {
			continue
		}
		err := fmt.Errorf("it has no %s %q, and no other either", kind, name)
		if len(declared) > 0 {
			err = fmt.Errorf("it has no %s %q, only %s", kind, name, strings.Join(declared, ", "))
		}
		return advice.With(err, "Name one that it has in the input, or lock it again with this one. "+
			"What uv export --%s=%s takes in, it takes in for everybody: that needs no name in the input", kind, name)
	}
	return nil
}

// checkEnvironments refuses a Python that is none of those that were locked for.
func (l pylock) checkEnvironments(e environment, p Python) error {
	if len(l.Environments) == 0 {
		return nil
	}
	for _, marker := range l.Environments {
		if holds, err := e.evaluate(marker); err != nil || holds {
			return err
		}
	}
	err := fmt.Errorf("it isn't for %s, but for: %s", p, strings.Join(l.Environments, "; "))
	return advice.With(err, "Lock it again for this one, too")
}

// A candidate is a wheel that was chosen, with all that its pylock.toml tells of it.
type candidate struct {
	Wheel
	hashes map[string]string
}

// choose returns the wheel of a package that a Python gets.
func (r requirement) choose(p Python, dir string) (candidate, error) {
	for kind, is := range map[string]map[string]any{
		"a directory": r.Directory, "a repository (vcs)": r.VCS, "an archive of sources": r.Archive,
	} {
		if is != nil {
			err := fmt.Errorf("%s comes from %s: only wheels are installed, since sources run programs to become one", r, kind)
			return candidate{}, advice.With(err, "Make a wheel of it (pip wheel --no-deps, uv build --wheel) and lock that, "+
				"or leave it out of the lock and have the Dockerfile copy it")
		}
	}
	if suits, err := p.suits(r.RequiresPython); err != nil {
		return candidate{}, fmt.Errorf("%s: %w", r, err)
	} else if !suits {
		err := fmt.Errorf("%s is for Python %s, and the image has %s", r, r.RequiresPython, p.Version)
		return candidate{}, advice.With(err, "Lock again for Python %s", p.short())
	}
	if len(r.Wheels) == 0 {
		err := fmt.Errorf("%s has no wheel, only sources (sdist), which run programs to become one", r)
		return candidate{}, advice.With(err, "Lock a version that has one, "+
			"or make one (pip wheel --no-deps, uv build --wheel) and lock that by its path")
	}
	var names []*pypi.WheelInfo
	for _, f := range r.Wheels {
		name, err := f.name()
		if err != nil {
			return candidate{}, fmt.Errorf("%s: %w", r, err)
		}
		info, err := pypi.ParseWheelName(name)
		if err != nil {
			return candidate{}, fmt.Errorf("%s: %w", r, err)
		}
		if normal(info.Name) != normal(r.Name) {
			return candidate{}, fmt.Errorf("%s: the wheel %s is of another package", r, name)
		}
		names = append(names, info)
	}
	at := p.best(names)
	if at < 0 {
		err := fmt.Errorf("%s has no wheel for %s, only for %s", r, p, tagsOf(names))
		return candidate{}, advice.With(err, "Lock a version that has one")
	}
	f := r.Wheels[at]
	w, err := r.wheel(f, dir)
	w.Version = cmp.Or(w.Version, names[at].Version)
	if err != nil {
		return candidate{}, fmt.Errorf("%s: %w", r, err)
	}
	return candidate{w, f.Hashes}, nil
}

// wheel is the entry of the lock for a file.
func (r requirement) wheel(f file, dir string) (w Wheel, err error) {
	w = Wheel{
		Name: normal(r.Name), Version: r.Version, Size: f.Size, SHA256: strings.ToLower(f.Hashes["sha256"]),
		Index: strings.TrimSuffix(r.Index, "/"),
	}
	w.URL, _, _ = strings.Cut(f.URL, "#")
	if w.File, err = f.name(); err != nil {
		return w, err
	}
	if f.URL == "" {
		w.URL = path.Join(dir, f.Path)
	}
	for _, address := range []string{f.URL, r.Index} {
		u, err := url.Parse(address)
		if err != nil {
			return w, errors.New("an address of it isn't a URL")
		}
		if u.User != nil {
			err := fmt.Errorf("its address at %s bears a user or a password, which a lock in version control shouldn't have", u.Host)
			return w, advice.With(err, "Remove them from there, and name the index with them in %s", EnvMirror)
		}
	}
	return w, nil
}

// name is that of the wheel's file.
func (f file) name() (string, error) {
	name := f.Name
	switch {
	case name != "":
	case f.Path != "":
		name = path.Base(f.Path)
	default:
		u, err := url.Parse(f.URL)
		if err != nil {
			return "", errors.New("the address of a wheel isn't a URL")
		}
		name = path.Base(u.Path) // decoded
	}
	if name == "" || name == "." || strings.ContainsAny(name, "/\\ \t\r\n") || !strings.HasSuffix(name, ".whl") {
		return "", fmt.Errorf("%q is no name of a wheel", name)
	}
	return name, nil
}
