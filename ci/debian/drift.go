package debian

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// instead is a lock with what takes the place of its packages, some of which are gone. It is
// resolved as a whole, so that no package stands beside a version of another that it
// doesn't fit. Where that can't be told, it is an error: who pins sees more.
func (o FetchOptions) instead(ctx context.Context, l Lock, gone map[int]error) (Lock, error) {
	urls := l.urls()
	for _, p := range l.Packages {
		if urls[p.Archive] != "" {
			return Lock{}, fmt.Errorf("nothing takes its place: the lock also has packages of archive %s, which only pin resolves", p.Archive)
		}
	}
	reader, err := o.reader()
	if err != nil {
		return Lock{}, err
	}
	suites := slices.DeleteFunc(slices.Clone(l.Suites), func(s Suite) bool { return s.URL != "" })
	reader.report.Printf("No mirror has %s any more. Looking for what takes its place", list(gonePackages(l, gone)))
	sources, err := reader.sources(ctx, suites, l.Architecture, l.Dates)
	if err != nil {
		return Lock{}, err
	}
	names := map[string]bool{}
	for _, p := range l.Packages {
		names[p.Name] = true
	}
	offers, err := offered(sources, names)
	if err != nil {
		return Lock{}, err
	}
	again := l
	if o.single {
		again.Packages = slices.Clone(l.Packages)
		for i := range gone {
			if again.Packages[i], err = nearest(offers, l.Packages[i]); err != nil {
				return Lock{}, err
			}
		}
		return again, nil
	}
	chosen, err := solve(ctx, l.wishes(offers), sources, o.Options, false)
	if err != nil {
		return Lock{}, fmt.Errorf("nothing takes its place, since the archive's packages don't make up the lock's any more: %w", err)
	}
	again.Packages = chosen.packages
	return again, nil
}

// wishes asks for all packages of a lock: in the locked version where it is still on offer, else
// in any.
func (l Lock) wishes(offers []Package) Manifest {
	have := map[string]bool{} // by SHA-256
	for _, p := range offers {
		have[p.SHA256] = true
	}
	m := Manifest{Architecture: l.Architecture, Suites: l.Suites, file: "the lock"}
	for _, p := range l.Packages {
		w := Requirement{Name: p.Name, Why: "it is locked"}
		if have[p.SHA256] {
			w.Version = p.Version
		}
		m.Packages = append(m.Packages, w)
	}
	return m
}

// offered lists all versions that suites have of the packages of these names.
func offered(sources []source, names map[string]bool) (offers []Package, err error) {
	for _, s := range sources {
		for _, i := range s.indices {
			err := i.eachPackage(func(text []byte) bool { return names[fieldOf(text, "Package")] }, func(p paragraph) error {
				one, err := newPackage(p, s.Archive)
				offers = append(offers, one)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return offers, nil
}

// drift lists in what the second lock isn't the first, which has nothing that the second lacks.
func drift(locked, got Lock) (all []Drift) {
	old := map[string]Package{}
	for _, p := range locked.Packages {
		old[p.Name] = p
	}
	for _, p := range got.Packages {
		if before := old[p.Name]; before.SHA256 != p.SHA256 {
			all = append(all, Drift{Locked: before, Got: p})
		}
	}
	return all
}

// tell says loudly what isn't as locked, and what to do.
func (o FetchOptions) tell(gone []Package, all []Drift) {
	if o.Progress == nil {
		return
	}
	what := "all packages were resolved again. This image isn't the locked one"
	if o.single {
		what = "the nearest version takes its place"
	}
	o.Progress.Printf("DRIFT: no mirror has %s any more, so that %s:", list(gone), what)
	for _, d := range all {
		o.Progress.Printf("\t%s", d)
	}
	o.Progress.Printf("The target pin moves the lock to what the archive has; -locked refuses instead")
}

// gonePackages are the packages at these places of a lock.
func gonePackages(l Lock, gone map[int]error) (all []Package) {
	for _, i := range slices.Sorted(maps.Keys(gone)) {
		all = append(all, l.Packages[i])
	}
	return all
}

// list names packages, the first few of many.
func list(packages []Package) string {
	const few = 3
	text := ""
	for i, p := range packages[:min(few, len(packages))] {
		if i > 0 {
			text += ", "
		}
		text += p.String()
	}
	if more := len(packages) - few; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// goneError joins the reasons, in the lock's order.
func goneError(gone map[int]error) error {
	var errs []error
	for _, i := range slices.Sorted(maps.Keys(gone)) {
		errs = append(errs, gone[i])
	}
	return errors.Join(errs...)
}
