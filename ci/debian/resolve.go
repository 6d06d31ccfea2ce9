package debian

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// A candidate is a package that an archive offers. Its relations are parsed
// only when it comes into question: an index has 60,000 packages.
type candidate struct {
	Package
	version   version.Version
	essential bool
	depends   string // Pre-Depends and Depends
	provides  string
	conflicts string // Conflicts and Breaks
}

func newCandidate(p paragraph, archive string) (candidate, error) {
	size, err := strconv.ParseInt(p["Size"], 10, 64)
	if err != nil {
		return candidate{}, fmt.Errorf("its size: %w", err)
	}
	c := candidate{
		Package: Package{
			Name: p["Package"], Version: p["Version"], Architecture: p["Architecture"],
			Archive: archive, File: p["Filename"], Size: size, SHA256: p["SHA256"],
		},
		essential: p["Essential"] == "yes",
		depends:   joinFields(p["Pre-Depends"], p["Depends"]),
		provides:  p["Provides"],
		conflicts: joinFields(p["Conflicts"], p["Breaks"]),
	}
	if err := c.check(); err != nil {
		return candidate{}, err
	}
	c.version, err = version.Parse(c.Version)
	return c, err
}

func joinFields(a, b string) string {
	return strings.Trim(strings.TrimSpace(a)+", "+strings.TrimSpace(b), ", ")
}

// A resolver chooses packages so that every dependency is met.
type resolver struct {
	newest    map[string]*candidate   // of each name
	providers map[string][]*candidate // of each virtual name, by name
	chosen    map[string]*candidate
	because   map[string]string // who asked first for a package
}

// resolve returns what is wanted, what is Essential, and everything that they
// depend on, by name. Of alternatives it takes one that is chosen anyway, else
// the one that brings the fewest packages, else the first. Source of the rules:
// Debian Policy, chapter 7.
func resolve(all []candidate, wanted []string) ([]Package, error) {
	r := resolver{
		newest: map[string]*candidate{}, providers: map[string][]*candidate{},
		chosen: map[string]*candidate{}, because: map[string]string{},
	}
	for i := range all {
		c := &all[i]
		if old := r.newest[c.Name]; old == nil || version.Compare(c.version, old.version) > 0 {
			r.newest[c.Name] = c
		}
	}
	names := slices.Sorted(maps.Keys(r.newest))
	for _, name := range names {
		if c := r.newest[name]; c.provides != "" {
			provided, err := possibilities(c.provides)
			if err != nil {
				return nil, fmt.Errorf("what %v provides: %w", c.Package, err)
			}
			for _, group := range provided {
				r.providers[group[0].Name] = append(r.providers[group[0].Name], c)
			}
		}
	}

	var queue []*candidate
	for _, name := range names {
		if c := r.newest[name]; c.essential {
			queue = append(queue, c)
			r.because[name] = "it is Essential"
		}
	}
	for _, name := range slices.Sorted(slices.Values(wanted)) {
		c := r.newest[name]
		if c == nil {
			return nil, fmt.Errorf("no suite has a package %s. Look for its name with apt-cache search, and correct packages.toml", name)
		}
		queue = append(queue, c)
		r.because[name] = "packages.toml wants it"
	}
	if err := r.choose(queue); err != nil {
		return nil, err
	}
	if err := r.checkConflicts(); err != nil {
		return nil, err
	}
	var packages []Package
	for _, name := range slices.Sorted(maps.Keys(r.chosen)) {
		packages = append(packages, r.chosen[name].Package)
	}
	return packages, nil
}

// choose chooses the packages and what they need. First it follows all that has
// one way to go, then takes one open alternative, and so on.
func (r *resolver) choose(queue []*candidate) error {
	type open struct {
		by    *candidate
		group []dependency.Possibility
	}
	var undecided []open
	for _, c := range queue {
		r.chosen[c.Name] = c
	}
	for {
		for len(queue) > 0 {
			c := queue[0]
			queue = queue[1:]
			groups, err := possibilities(c.depends)
			if err != nil {
				return fmt.Errorf("dependencies of %v: %w", c.Package, err)
			}
			for _, group := range groups {
				if r.isMet(group) {
					continue
				}
				switch ways := r.candidates(group); len(ways) {
				case 0:
					return r.unmet(c, group)
				case 1:
					queue = append(queue, r.take(ways[0], c))
				default:
					undecided = append(undecided, open{c, group})
				}
			}
		}
		if len(undecided) == 0 {
			return nil
		}
		next := undecided[0]
		undecided = undecided[1:]
		if r.isMet(next.group) {
			continue
		}
		queue = append(queue, r.take(r.cheapest(r.candidates(next.group)), next.by))
	}
}

func (r *resolver) take(c, by *candidate) *candidate {
	r.chosen[c.Name] = c
	r.because[c.Name] = by.Name
	return c
}

// isMet reports whether a chosen package meets one of the alternatives.
func (r *resolver) isMet(group []dependency.Possibility) bool {
	for _, p := range group {
		if c := r.chosen[p.Name]; c != nil && satisfies(c, p) {
			return true
		}
		for _, c := range r.providers[p.Name] {
			if r.chosen[c.Name] == c && provides(c, p) {
				return true
			}
		}
	}
	return false
}

// candidates lists the packages that would meet one of the alternatives, best first:
// as the dependency has them, a real package before those that provide it.
func (r *resolver) candidates(group []dependency.Possibility) (found []*candidate) {
	add := func(c *candidate) {
		if !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	for _, p := range group {
		if c := r.newest[p.Name]; c != nil && satisfies(c, p) {
			add(c)
		}
		for _, c := range r.providers[p.Name] {
			if provides(c, p) {
				add(c)
			}
		}
	}
	return found
}

// cheapest returns the way that brings the fewest packages, of equals the first.
func (r *resolver) cheapest(ways []*candidate) *candidate {
	best, fewest := ways[0], -1
	for _, c := range ways {
		if n := r.cost(c); fewest < 0 || n >= 0 && n < fewest {
			best, fewest = c, n
		}
	}
	return best
}

// cost is about how many packages a choice brings: of its own alternatives the
// first is counted. It is negative if the choice can't be met.
func (r *resolver) cost(c *candidate) int {
	trial := resolver{newest: r.newest, providers: r.providers, chosen: maps.Clone(r.chosen), because: map[string]string{}}
	queue := []*candidate{c}
	trial.chosen[c.Name] = c
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		groups, err := possibilities(next.depends)
		if err != nil {
			return -1
		}
		for _, group := range groups {
			if trial.isMet(group) {
				continue
			}
			ways := trial.candidates(group)
			if len(ways) == 0 {
				return -1
			}
			queue = append(queue, trial.take(ways[0], next))
		}
	}
	return len(trial.chosen) - len(r.chosen)
}

// unmet returns an error that names the dependency that can't be met, and who brought
// in the package that has it.
func (r *resolver) unmet(c *candidate, group []dependency.Possibility) error {
	chain := c.Package.String()
	for name := c.Name; ; {
		by := r.because[name]
		if r.chosen[by] == nil {
			chain += ", " + by
			break
		}
		chain += " <- " + by
		name = by
	}
	var alternatives []string
	for _, p := range group {
		text := p.String()
		if have := r.newest[p.Name]; have != nil {
			text += " (the archive has " + have.Version + ")"
		}
		alternatives = append(alternatives, text)
	}
	return fmt.Errorf("nothing meets the dependency on %s of %s. Add the suite that has it to packages.toml, or want another package",
		strings.Join(alternatives, " | "), chain)
}

// checkConflicts fails if two chosen packages can't be installed together.
func (r *resolver) checkConflicts() error {
	for _, name := range slices.Sorted(maps.Keys(r.chosen)) {
		c := r.chosen[name]
		groups, err := possibilities(c.conflicts)
		if err != nil {
			return fmt.Errorf("conflicts of %v: %w", c.Package, err)
		}
		for _, group := range groups {
			p := group[0]
			others := r.providers[p.Name]
			if real := r.newest[p.Name]; real != nil && satisfies(real, p) {
				others = append([]*candidate{real}, others...)
			}
			for _, other := range others {
				if other != c && r.chosen[other.Name] == other && (other.Name == p.Name || provides(other, p)) {
					return fmt.Errorf("%s can't be installed beside %s: it conflicts with %s. Want only one of them in packages.toml", name, other.Name,
						p.String())
				}
			}
		}
	}
	return nil
}

// satisfies reports whether a package of that name meets the version asked for.
func satisfies(c *candidate, p dependency.Possibility) bool {
	return p.Version == nil || p.Version.SatisfiedBy(c.version)
}

// provides reports whether a package provides the virtual one asked for. A
// version is met only by a Provides that has one.
func provides(c *candidate, p dependency.Possibility) bool {
	groups, err := possibilities(c.provides)
	if err != nil {
		return false
	}
	for _, group := range groups {
		given := group[0]
		if given.Name != p.Name {
			continue
		}
		if p.Version == nil {
			return true
		}
		if given.Version == nil {
			continue
		}
		if v, err := version.Parse(given.Version.Number); err == nil && p.Version.SatisfiedBy(v) {
			return true
		}
	}
	return false
}

// possibilities parses a relation field: a list of groups of alternatives.
func possibilities(field string) ([][]dependency.Possibility, error) {
	if field == "" {
		return nil, nil
	}
	d, err := dependency.Parse(field)
	if err != nil {
		return nil, err
	}
	var groups [][]dependency.Possibility
	for _, relation := range d.Relations {
		if len(relation.Possibilities) > 0 {
			groups = append(groups, relation.Possibilities)
		}
	}
	return groups, nil
}
