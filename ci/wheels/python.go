package wheels

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"deps.dev/util/pypi"
	"deps.dev/util/semver"
	"pault.ag/go/debian/version"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/advice"
)

// A Python is what wheels are chosen for: the interpreter of an image.
type Python struct {
	Version      string // such as "3.13.5"
	Glibc        string // such as "2.41"
	Architecture string // Debian's name: "amd64" or "arm64"
}

func (p Python) String() string {
	return fmt.Sprintf("Python %s, glibc %s, %s", p.Version, p.Glibc, p.Architecture)
}

// machines are the names that Python has for Debian's architectures.
var machines = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// minor matches the first two numbers of a version.
var minor = regexp.MustCompile(`^(\d{1,4})\.(\d{1,4})`)

// PythonOf returns the Python that locked packages make up. They need a pip, too, which
// installs the wheels.
func PythonOf(l debian.Lock, name string) (p Python, err error) {
	versions := map[string]string{}
	for _, one := range l.Packages {
		v, err := version.Parse(one.Version)
		if err != nil {
			return p, err
		}
		versions[one.Name] = strings.SplitN(v.Version, "+", 2)[0]
	}
	// python3 names the interpreter's own package, which may be newer.
	interpreter := "python" + minor.FindString(versions["python3"])
	for _, needed := range []string{"python3", interpreter, "python3-pip", "libc6"} {
		if versions[needed] == "" {
			err := fmt.Errorf("%s has no %s, which wheels need", name, needed)
			return p, advice.With(err, "Name python3 and python3-pip in the list of packages that are wanted, and type\n\t%s pin", advice.Berth)
		}
	}
	full := versions[interpreter]
	p = Python{Version: strings.ReplaceAll(full, "~", ""), Glibc: minor.FindString(versions["libc6"]), Architecture: l.Architecture}
	return p, p.check()
}

// check refuses what no wheel can be chosen for.
func (p Python) check() error {
	if machines[p.Architecture] == "" {
		return fmt.Errorf("wheels can be chosen for amd64 and arm64, not for %q", p.Architecture)
	}
	if _, err := semver.PyPI.Parse(p.Version); err != nil || !strings.HasPrefix(p.Version, "3.") || minor.FindString(p.Version) == "" {
		return fmt.Errorf("%q is no version of Python 3", p.Version)
	}
	if minor.FindString(p.Glibc) != p.Glibc || !strings.HasPrefix(p.Glibc, "2.") {
		return fmt.Errorf("%q is no version of glibc 2", p.Glibc)
	}
	return nil
}

// short is the version's first two numbers.
func (p Python) short() string { return minor.FindString(p.Version) }

// second is the second number of a version that has two or more.
func second(v string) int {
	n, _ := strconv.Atoi(minor.FindStringSubmatch(v)[2])
	return n
}

// environment has the variables of environment markers
// (https://packaging.python.org/en/latest/specifications/dependency-specifiers/), but
// for those that only the machine knows on which the image runs.
func (p Python) environment() map[string]string {
	return map[string]string{
		"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": machines[p.Architecture],
		"python_version": p.short(), "python_full_version": p.Version,
		"platform_python_implementation": "CPython", "implementation_name": "cpython", "implementation_version": p.Version,
	}
}

// suits reports whether the Python is one of a version specifier, such as ">=3.9".
func (p Python) suits(specifier string) (bool, error) {
	if strings.TrimSpace(specifier) == "" {
		return true, nil
	}
	c, err := semver.PyPI.ParseConstraint(specifier)
	if err != nil {
		return false, fmt.Errorf("%q is no requirement of a Python: %w", specifier, err)
	}
	return c.Match(p.Version), nil
}

// legacy are the names that manylinux tags had before they were called after a glibc
// (PEP 600).
var legacy = map[int]string{17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

// platforms lists the platform tags of what runs on the Python, the best first.
func (p Python) platforms() (all []string) {
	machine, oldest := machines[p.Architecture], 17
	if machine == "x86_64" {
		oldest = 5
	}
	for n := second(p.Glibc); n >= oldest; n-- {
		all = append(all, fmt.Sprintf("manylinux_2_%d_%s", n, machine))
		if legacy[n] != "" {
			all = append(all, legacy[n]+"_"+machine)
		}
	}
	return append(all, "linux_"+machine)
}

// tags lists the tags of the wheels that the Python can install, the best first, in the
// order of sys_tags of Python's own packaging.
func (p Python) tags() (all []pypi.PEP425Tag) {
	n, platforms := second(p.Version), p.platforms()
	add := func(python, abi string, platforms ...string) {
		for _, one := range platforms {
			all = append(all, pypi.PEP425Tag{Python: python, ABI: abi, Platform: one})
		}
	}
	own := fmt.Sprintf("cp3%d", n)
	add(own, own, platforms...)
	add(own, "abi3", platforms...)
	add(own, "none", platforms...)
	for older := n - 1; older >= 2; older-- {
		add(fmt.Sprintf("cp3%d", older), "abi3", platforms...)
	}
	pure := []string{fmt.Sprintf("py3%d", n), "py3"}
	for older := n - 1; older >= 0; older-- {
		pure = append(pure, fmt.Sprintf("py3%d", older))
	}
	for _, python := range pure {
		add(python, "none", platforms...)
	}
	add(own, "none", "any")
	for _, python := range pure {
		add(python, "none", "any")
	}
	return all
}

// best returns the index of the wheel that the Python prefers: that with the best tag
// and, of these, the one with the highest build number. It is -1 if none will do.
func (p Python) best(names []*pypi.WheelInfo) int {
	rank := map[pypi.PEP425Tag]int{}
	for i, t := range p.tags() {
		rank[t] = i
	}
	best, at := len(rank), -1
	for i, name := range names {
		mine := len(rank)
		for _, t := range name.Platforms {
			if r, ok := rank[t]; ok {
				mine = min(mine, r)
			}
		}
		newer := at >= 0 && mine == best && mine < len(rank) && compareBuilds(name.BuildTag, names[at].BuildTag) > 0
		if mine < best || newer {
			best, at = mine, i
		}
	}
	return at
}

func compareBuilds(a, b pypi.WheelBuildTag) int {
	return cmp.Or(cmp.Compare(a.Num, b.Num), cmp.Compare(a.Tag, b.Tag))
}

// tagsOf lists the tags of wheels, for people.
func tagsOf(names []*pypi.WheelInfo) string {
	const most = 4
	var all []string
	for _, name := range names {
		for _, t := range name.Platforms {
			if text := t.Python + "-" + t.ABI + "-" + t.Platform; !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
	}
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("%d more", len(all)-most))
	}
	return strings.Join(all, ", ")
}
