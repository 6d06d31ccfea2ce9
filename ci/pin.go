package ci

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// PinOptions says how to pin.
type PinOptions struct {
	Report *progress.Reporter // may be nil
}

// Pin resolves what the project's inputs ask for as it is available now. It writes
// their locks and, with them, the digest of the image's base stage, and returns what
// changed. It writes all or, on an error, nothing.
func Pin(ctx context.Context, p Project, o PinOptions) (changes []string, err error) {
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	m := maker{project: p, cache: dir, entries: string(dir), report: o.Report}
	all, err := m.pin(ctx)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	var locked []input.Locked
	for _, pinned := range all {
		locked = append(locked, pinned.Locked)
		changes = append(changes, pinned.Changes...)
		for name, data := range pinned.Files {
			files[p.Path(name)] = data
		}
	}
	if p.BaseStage != "" {
		if m.inputs, err = inputsOf(p, locked); err != nil {
			return nil, err
		}
		digest, _, err := m.baseDigest(ctx)
		if err != nil {
			return nil, err
		}
		files[p.Path(p.BaseDigest)] = baseRecord{digest, locked[0].Hash()}.marshal()
	}
	return changes, writeFiles(files)
}

// pin resolves what each input asks for. It writes nothing.
func (m maker) pin(ctx context.Context) (all []input.Pinned, err error) {
	written := map[string][]byte{}
	for _, in := range m.project.Inputs {
		o := m.options(in)
		o.Pinned = written
		one, err := in.Pin(ctx, m.project.Root, o)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
		maps.Copy(written, one.Files)
	}
	return all, nil
}

// A Resolved is a part of what Pin would lock, such as a package.
type Resolved struct {
	Input string `json:"input"` // its name, such as rootfs.tar
	input.Item
}

// Resolve returns all that Pin would lock, and writes nothing.
func Resolve(ctx context.Context, p Project, o PinOptions) (items []Resolved, err error) {
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	all, err := maker{project: p, cache: dir, entries: string(dir), report: o.Report}.pin(ctx)
	for i, pinned := range all {
		for _, item := range pinned.Items {
			items = append(items, Resolved{p.Inputs[i].Name(), item})
		}
	}
	return items, err
}

// Why returns how a package comes into what Pin would lock, from the package to the wish
// that brings it. Several inputs may have it, each for a reason of its own.
func Why(ctx context.Context, p Project, name string, o PinOptions) (chains [][]string, err error) {
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	m := maker{project: p, cache: dir, entries: string(dir), report: o.Report}
	for _, in := range p.Inputs {
		explainer, ok := in.(input.Explainer)
		if !ok {
			continue
		}
		chain, err := explainer.Why(ctx, p.Root, name, m.options(in))
		if err != nil {
			return nil, err
		}
		if len(chain) > 0 {
			chains = append(chains, chain)
		}
	}
	if len(chains) == 0 {
		err := fmt.Errorf("nothing that is wanted brings a package %q", name)
		return nil, advice.With(err, "What would be locked is listed by\n\t%s pin -dry", advice.Berth)
	}
	return chains, nil
}

// writeFiles writes files, by path, or puts back those that it has written.
func writeFiles(files map[string][]byte) (err error) {
	undo := []func() error{}
	defer func() {
		if err == nil {
			return
		}
		for _, step := range undo {
			err = errors.Join(err, step())
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		before, err := os.ReadFile(name)
		restore := func() error { return cache.WriteFile(name, before, 0o644) }
		if errors.Is(err, fs.ErrNotExist) {
			restore = func() error { return os.Remove(name) }
		} else if err != nil {
			return err
		}
		if err := cache.WriteFile(name, files[name], 0o644); err != nil {
			return fmt.Errorf("%w. All files stay as they were", err)
		}
		undo = append(undo, restore)
	}
	return nil
}

// CheckPins returns an error that wraps input.ErrPinsDiffer unless the locks are what
// the project asks for, and the digest of the base stage was made from them. It asks
// nobody, and builds nothing.
func CheckPins(p Project) error {
	var errs []error
	for _, in := range p.Inputs {
		errs = append(errs, in.Check(p.Root))
	}
	return errors.Join(append(errs, checkBaseRecord(p))...)
}

// checkBaseRecord returns an error if the file of the base stage's digest is missing or
// damaged, or of another lock than the one next to it.
func checkBaseRecord(p Project) error {
	if p.BaseStage == "" {
		return nil
	}
	lock, err := p.Inputs[0].Read(p.Root)
	if err != nil {
		return nil // reported already
	}
	r, err := readBaseRecord(p)
	if err != nil {
		return err
	}
	if r.lock != "" && r.lock != lock.Hash() {
		err := fmt.Errorf("%w: %s is the digest of a base stage with another %s than the locked one",
			input.ErrPinsDiffer, p.BaseDigest, p.Inputs[0].Name())
		return advice.With(err, "Type\n\t%s pin", advice.Berth)
	}
	return nil
}

// BaseDigest builds the base stage, which depends on the locks and the
// Dockerfile's first part alone, and returns its digest and what drifted from
// the locks.
func BaseDigest(ctx context.Context, p Project, report *progress.Reporter) (digest string, drift []string, err error) {
	in, err := ReadInputs(p)
	if err != nil {
		return "", nil, err
	}
	dir, err := cache.Open()
	if err != nil {
		return "", nil, err
	}
	return maker{project: p, inputs: in, cache: dir, entries: string(dir), report: report}.baseDigest(ctx)
}

func (m maker) baseDigest(ctx context.Context) (digest string, drift []string, err error) {
	made, drift, err := m.make(ctx, m.base())
	if err != nil {
		return "", nil, err
	}
	d, err := made[0].Digest()
	return d.String(), drift, err
}

// PinnedBaseDigest is the digest that the checkout promises for its base stage.
func PinnedBaseDigest(p Project) (string, error) {
	r, err := readBaseRecord(p)
	return r.digest, err
}

// A baseRecord is what the file of the base stage's digest says.
type baseRecord struct {
	digest string
	lock   string // hash of the locked input that the stage was built from; "" in older files
}

func (r baseRecord) marshal() []byte { return fmt.Appendf(nil, "%s\nlock %s\n", r.digest, r.lock) }

func readBaseRecord(p Project) (baseRecord, error) {
	data, err := os.ReadFile(p.Path(p.BaseDigest))
	if errors.Is(err, fs.ErrNotExist) {
		err := fmt.Errorf("%w: the digest of the base stage isn't recorded: %w", input.ErrPinsDiffer, err)
		return baseRecord{}, advice.With(err, "Type\n\t%s pin", advice.Berth)
	} else if err != nil {
		return baseRecord{}, err
	}
	r, err := parseBaseRecord(string(data))
	if err != nil {
		return baseRecord{}, advice.With(fmt.Errorf("reading %s: %w", p.Path(p.BaseDigest), err),
			"Take the file from version control again, or type\n\t%s pin", advice.Berth)
	}
	return r, nil
}

func parseBaseRecord(text string) (r baseRecord, err error) {
	first, second, _ := strings.Cut(strings.TrimSpace(text), "\n")
	d, err := v1.NewHash(strings.TrimSpace(first))
	if err != nil {
		return r, fmt.Errorf("%q is no digest", first)
	}
	r.digest = d.String()
	if second == "" {
		return r, nil
	}
	words := strings.Fields(second)
	if len(words) != 2 || words[0] != "lock" {
		return r, fmt.Errorf("%q isn't a line with the hash of a lock", second)
	}
	r.lock = words[1]
	return r, nil
}
