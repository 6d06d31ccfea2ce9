package wheels

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/download"
)

// EnvMirror names the variable with the address of a simple index (PEP 503 or 691) that
// is asked for wheels before their own addresses, as pip's --index-url takes it.
const EnvMirror = "BERTH_PYPI_MIRROR"

// folder is that of the cache with single wheels, each under its SHA-256.
const folder = "pypi"

// parallel is how many wheels are fetched at once.
const parallel = 4

// A fetcher fetches single wheels.
type fetcher struct {
	getter download.Getter
	root   string // of the checkout
	mirror string // address of a simple index; may be empty
	o      input.Options
	total  int64
	done   atomic.Int64
}

func newFetcher(root string, o input.Options) *fetcher {
	return &fetcher{root: root, mirror: strings.TrimRight(os.Getenv(EnvMirror), "/"), o: o}
}

// lock keeps other processes from fetching at the same time.
func (f *fetcher) lock(ctx context.Context) (unlock func(), err error) {
	unlock, err = f.o.Cache.Lock(ctx, folder, func() { f.o.Report.Printf("Waiting for another fetch of wheels to end") })
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.o.Cache.Path(folder), 0o755); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// fetchAll brings the wheels to the cache, each checked by size and SHA-256, and returns
// their paths. What is there already isn't fetched again, what was cut off goes on
// where it ended.
func (f *fetcher) fetchAll(ctx context.Context, wheels []Wheel) ([]string, error) {
	unlock, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, w := range wheels {
		f.total += w.Size
	}
	paths := make([]string, len(wheels))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	for i, w := range wheels {
		work.Go(func() (err error) {
			paths[i], err = f.fetch(ctx, w)
			return err
		})
	}
	return paths, work.Wait()
}

func (f *fetcher) path(sum string) string { return f.o.Cache.Path(folder, sum+".whl") }

// fetch returns the path of a wheel that was checked.
func (f *fetcher) fetch(ctx context.Context, w Wheel) (string, error) {
	path := f.path(w.SHA256)
	if err := w.want().Check(path); err == nil {
		cache.Use(path)
		f.progress(w.Size)
		return path, nil
	}
	part := path + ".part"
	if err := f.bring(ctx, w, part, w.want()); err != nil {
		return "", err
	}
	return path, os.Rename(part, path)
}

// bring brings a wheel to a path: from the checkout, the mirror, its own address, or its
// index, whichever has it first.
func (f *fetcher) bring(ctx context.Context, w Wheel, to string, want download.File) error {
	if w.local() {
		return f.copy(w, to, want)
	}
	var tried []string
	for _, source := range f.sources(w) {
		address, err := source.find(ctx)
		if err == nil {
			err = f.getter.File(ctx, address, to, want, f.progress)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if local := (*os.PathError)(nil); errors.As(err, &local) {
			return fmt.Errorf("keeping the wheel %s: %w", w.File, err)
		}
		tried = append(tried, fmt.Sprintf("\n\t%s: %v", download.Public(source.base), err))
	}
	return advice.With(fmt.Errorf("fetching the wheel %s:%s", w.File, strings.Join(tried, "")),
		"Try again later, or name an index that has it in %s. If every one sends the same other file, the lock is wrong: "+
			"take it from version control again, or lock anew and type\n\t%s pin", EnvMirror, advice.Berth)
}

// A source is a place that may have a wheel.
type source struct {
	base string // by which it is named, perhaps with a password
	find func(context.Context) (address string, err error)
}

// sources lists the places to look for a wheel, in this order.
func (f *fetcher) sources(w Wheel) (all []source) {
	index := func(base string) {
		if base != "" {
			all = append(all, source{base, func(ctx context.Context) (string, error) { return f.lookUp(ctx, base, w) }})
		}
	}
	index(f.mirror)
	all = append(all, source{w.URL, func(context.Context) (string, error) { return w.URL, nil }})
	index(w.Index)
	return all
}

// copy brings a wheel from the checkout.
func (f *fetcher) copy(w Wheel, to string, want download.File) error {
	from := filepath.Join(f.root, filepath.FromSlash(w.URL))
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("reading the wheel of %s: %w", w, err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	n, err := io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	f.progress(n)
	if is, err := download.FileAt(to); err != nil {
		return err
	} else if want.SHA256 != "" && is.SHA256 != want.SHA256 {
		os.Remove(to)
		err := fmt.Errorf("%s isn't the wheel that is locked: its SHA-256 is %s, not %s", from, is.SHA256, want.SHA256)
		return advice.With(err, "If the change is meant, lock it again, and type\n\t%s pin", advice.Berth)
	}
	return nil
}

func (f *fetcher) progress(n int64) {
	done := f.done.Add(n)
	f.o.Report.Update("Fetching wheels: %d of %d MB", done>>20, max(done, f.total)>>20)
}

// complete returns the wheels of candidates, with sizes and SHA-256 sums. Those that neither
// the pylock.toml nor the lock before has any of are downloaded, and it says so.
func (f *fetcher) complete(ctx context.Context, name string, candidates []candidate, old Lock) ([]Wheel, error) {
	var all []Wheel
	unlock, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, c := range candidates {
		for _, was := range old.Wheels {
			known := c.SHA256 == "" && !strongHash(c.hashes) || was.SHA256 == c.SHA256
			if known && was.URL == c.URL && was.File == c.File && (c.Size == 0 || c.Size == was.Size) {
				c.Size, c.SHA256 = was.Size, was.SHA256
			}
		}
		w, err := f.completeOne(ctx, name, c)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (f *fetcher) completeOne(ctx context.Context, name string, c candidate) (Wheel, error) {
	w := c.Wheel
	if w.SHA256 != "" && w.Size > 0 {
		return w, explain(w, w.check())
	}
	if w.SHA256 != "" {
		if is, err := download.FileAt(f.path(w.SHA256)); err == nil && is.SHA256 == w.SHA256 {
			w.Size = is.Size
			return w, explain(w, w.check())
		}
	}
	// Size and sum aren't known yet, and the rest is refused before it is fetched.
	probe := w
	probe.Size = max(probe.Size, 1)
	if probe.SHA256 == "" {
		probe.SHA256 = strings.Repeat("0", hex.EncodedLen(sha256.Size))
	}
	if err := probe.check(); err != nil {
		return w, explain(w, err)
	}
	missing := "size"
	if w.SHA256 == "" {
		missing = "SHA-256"
	}
	f.o.Report.Printf("%s has no %s of %s: fetching it, to lock what there is", name, missing, w.File)
	// Under the name of its address, so that what is cut off goes on the next time.
	key := sha256.Sum256([]byte(w.URL + w.SHA256))
	part := f.o.Cache.Path(folder, hex.EncodeToString(key[:])+".part")
	if err := f.bring(ctx, w, part, w.want()); err != nil {
		return w, err
	}
	is, err := download.FileAt(part)
	if err != nil {
		return w, err
	}
	if err := checkOthers(part, c.hashes); err != nil {
		os.Remove(part)
		return w, fmt.Errorf("%s: %w", w.File, err)
	}
	w.Size, w.SHA256 = is.Size, is.SHA256
	if err := os.Rename(part, f.path(w.SHA256)); err != nil {
		return w, err
	}
	return w, explain(w, w.check())
}

// explain says which wheel an error is about.
func explain(w Wheel, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the wheel of %s: %w", w, err)
}

// algorithms are those, beside SHA-256, by which a sum is worth a comparison.
var algorithms = map[string]func() hash.Hash{"sha512": sha512.New, "sha384": sha512.New384}

// strongHash reports whether one of the sums is by one of these algorithms.
func strongHash(hashes map[string]string) bool {
	for name := range hashes {
		if algorithms[name] != nil {
			return true
		}
	}
	return false
}

// checkOthers compares a file with sums by these algorithms.
func checkOthers(path string, hashes map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		algorithm := algorithms[name]
		if algorithm == nil {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		sum := algorithm()
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return err
		}
		if have := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(have, hashes[name]) {
			return fmt.Errorf("another file was sent: its %s is %s, locked is %s", name, have, hashes[name])
		}
	}
	return nil
}
