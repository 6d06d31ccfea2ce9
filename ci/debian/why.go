package debian

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// why resolves what a manifest wants and returns the chain from a package to the wish that
// brings it; nil if nothing does.
func why(ctx context.Context, m Manifest, name string, o Options) ([]string, error) {
	reader, err := o.reader()
	if err != nil {
		return nil, err
	}
	sources, err := reader.sources(ctx, m.Suites, m.Architecture, nil)
	if err != nil {
		return nil, err
	}
	s, err := solve(ctx, m, sources, o, true)
	if err != nil {
		return nil, err
	}
	return s.chain(m, name), nil
}

// chain says how a package came to be chosen, a step each.
func (s solution) chain(m Manifest, name string) []string {
	i := slices.IndexFunc(s.packages, func(p Package) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	chain := []string{s.packages[i].String()}
	for range s.packages { // no way is longer
		for _, w := range m.Packages {
			if w.Name == name {
				return append(chain, fmt.Sprintf("%s: %s", m.where(w), w.Why))
			}
		}
		c, known := s.causes[name]
		switch {
		case slices.Contains(s.essential, name):
			return append(chain, "Essential: part of every Debian system")
		case !known:
			return append(chain, "apt doesn't say why")
		case c.by == extra:
			c.by = s.recommender(name)
		}
		chain = append(chain, fmt.Sprintf("%s (%s)", c.by, c.kind))
		name = c.by
	}
	return chain
}

// recommender is the wish that recommends a package by its name.
func (s solution) recommender(name string) string {
	for _, by := range slices.Sorted(maps.Keys(s.recommend)) {
		for _, word := range strings.FieldsFunc(s.recommend[by], func(r rune) bool { return strings.ContainsRune(" ,|():", r) }) {
			if word == name {
				return by
			}
		}
	}
	return "something that provides what is recommended"
}
