package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
)

// A solution is what apt chose.
type solution struct {
	packages  []Package         // sorted by name
	causes    map[string]cause  // of what is neither wanted nor Essential; nil unless they were asked for
	essential []string          // names
	recommend map[string]string // Recommends fields that were heeded
}

// solve has apt choose packages for a manifest. trace is for the causes.
func solve(ctx context.Context, m Manifest, sources []source, o Options, trace bool) (solution, error) {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return solution{}, fmt.Errorf("apt, which resolves packages, runs in a container: %w", err)
	}
	defer docker.Close()
	image, err := aptImage(ctx, docker, o)
	if err != nil {
		return solution{}, fmt.Errorf("making the image in which apt runs: %w", err)
	}
	if o.Progress != nil {
		o.Progress.Update("Resolving dependencies")
	}
	q := question{Manifest: m, sources: sources, trace: trace}
	if q.essential, err = essential(sources, m.Architecture); err != nil {
		return solution{}, err
	}
	s := solution{essential: q.essential}
	answer, err := ask(ctx, docker, image, q, o)
	if err != nil {
		return solution{}, err
	}
	chosen, err := answer.paragraphs(sources)
	if err != nil {
		return solution{}, err
	}
	// What a package recommends depends on its version.
	if q.recommend = m.recommended(chosen); len(q.recommend) > 0 {
		if answer, err = ask(ctx, docker, image, q, o); err != nil {
			return solution{}, err
		}
		if chosen, err = answer.paragraphs(sources); err != nil {
			return solution{}, err
		}
	}
	for at, p := range chosen {
		one, err := newPackage(p, sources[at.source].Archive)
		if err != nil {
			return solution{}, err
		}
		s.packages = append(s.packages, one)
	}
	slices.SortFunc(s.packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	s.causes, s.recommend = answer.causes, q.recommend
	return s, m.checkTaken(s.packages)
}

// recommended returns the Recommends fields of the packages that are wanted with what they
// recommend, unless all are.
func (m Manifest) recommended(chosen map[origin]paragraph) map[string]string {
	fields := map[string]string{}
	for _, p := range chosen {
		wanted := func(w Requirement) bool { return w.Recommends && w.Name == p["Package"] }
		if !m.Recommends && p["Recommends"] != "" && slices.ContainsFunc(m.Packages, wanted) {
			fields[p["Package"]] = strings.Join(strings.Fields(p["Recommends"]), " ")
		}
	}
	return fields
}

// An answer is apt's.
type answer struct {
	origins []origin
	causes  map[string]cause // nil unless they were asked for
}

// paragraphs returns what the indices say of the packages that apt chose.
func (a answer) paragraphs(sources []source) (map[origin]paragraph, error) {
	wanted := map[origin]bool{}
	for _, at := range a.origins {
		if at.source < len(sources) { // not the package for apt alone
			wanted[at] = true
		}
	}
	found := map[origin]paragraph{}
	for n, s := range sources {
		at := func(name string) origin { return origin{n, path.Clean(name)} }
		for _, i := range s.indices {
			err := i.eachPackage(func(text []byte) bool { return wanted[at(fieldOf(text, "Filename"))] }, func(p paragraph) error {
				found[at(p["Filename"])] = p
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	for at := range wanted {
		if found[at] == nil {
			return nil, fmt.Errorf("apt would fetch %s from suite %s, whose index has no such file", at.file, sources[at.source].Name)
		}
	}
	return found, nil
}

// ask runs apt in a container that has no network, and of this machine only the files
// that the question names. That is all removed again.
func ask(ctx context.Context, docker *daemon.Client, image string, q question, o Options) (answer, error) {
	scope, err := owned.Claim(o.Cache, docker, "apt")
	if err != nil {
		return answer{}, err
	}
	defer scope.Close(context.WithoutCancel(ctx))
	spec := daemon.Container{
		Image: image, Command: q.command(), Env: []string{"APT_CONFIG=" + aptConf}, Network: "none", AutoRemove: true,
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, Labels: map[string]string{daemon.LabelRole: aptRole},
	}
	files := map[string]string{}
	lists := q.lists()
	for name := range lists {
		files[aptLists+name] = lists[name]
	}
	texts := q.texts()
	for n, target := range slices.Sorted(maps.Keys(texts)) {
		files[target] = filepath.Join(scope.Path(), fmt.Sprint("file-", n))
		// For root in the container, who may be another user than the files' and has no
		// capabilities: whatever the umask, everybody may read them.
		if err := errors.Join(os.WriteFile(files[target], []byte(texts[target]), 0o644), os.Chmod(files[target], 0o644)); err != nil {
			return answer{}, err
		}
	}
	for _, target := range slices.Sorted(maps.Keys(files)) {
		spec.Mounts = append(spec.Mounts, daemon.Mount{Type: "bind", Source: files[target], Target: target, ReadOnly: true})
	}
	stdout, stderr, code, err := output(ctx, docker, scope, spec)
	if err != nil {
		return answer{}, fmt.Errorf("running apt: %w", err)
	}
	if code != 0 && q.trace { // its explanation alone
		q.trace = false
		return ask(ctx, docker, image, q, o)
	} else if code != 0 {
		return answer{}, q.unsatisfiable(stdout + stderr)
	}
	var a answer
	if q.trace {
		a.causes = parseTrace(stdout + stderr)
	}
	a.origins, err = parseURIs(stdout)
	return a, err
}

// output runs a container and returns what it prints, and its exit code.
func output(ctx context.Context, docker *daemon.Client, scope *owned.Scope, spec daemon.Container) (
	stdout, stderr string, code int, err error,
) {
	id, err := scope.Container(ctx, spec)
	if err != nil {
		return "", "", 0, err
	}
	ended, err := docker.Wait(ctx, id)
	if err != nil {
		return "", "", 0, err
	}
	session, err := docker.Attach(ctx, id)
	if err != nil {
		return "", "", 0, err
	}
	defer session.Close()
	defer context.AfterFunc(ctx, func() { session.Close() })()
	if err := docker.Start(ctx, id); err != nil {
		return "", "", 0, err
	}
	var out, complaints bytes.Buffer
	if err := session.CopyStreams(&out, &complaints); ctx.Err() != nil {
		return "", "", 0, context.Cause(ctx)
	} else if err != nil {
		return "", "", 0, err
	}
	code, err = ended()
	return out.String(), complaints.String(), code, err
}
