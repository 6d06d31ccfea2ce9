package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/download"
)

// parallel is how many files are fetched at once.
const parallel = 8

// FetchOptions says where to look for packages, and what to do where they are gone.
type FetchOptions struct {
	Options      // keys and clock matter only for what is gone
	Locked  bool // refuse any other version than the locked one
}

// A Fetched is a verified .deb file.
type Fetched struct {
	Package
	Path string
}

// Drift is a locked package that is gone from every mirror, and what took its place.
type Drift struct {
	Locked, Got Package
}

func (d Drift) String() string {
	return fmt.Sprintf("%s %s instead of %s", d.Locked.Name, d.Got.Version, d.Locked.Version)
}

// Packages is what a lock's packages came to.
type Packages struct {
	Files     []Fetched // sorted by name
	Drift     []Drift
	Configure bool // have the root file system bring the script that configures them
	snapshot  time.Time
}

// Hash identifies the packages, as Lock.Hash does where nothing drifted.
func (p Packages) Hash() string {
	packages := make([]Package, 0, len(p.Files))
	for _, f := range p.Files {
		packages = append(packages, f.Package)
	}
	return hashPackages(p.snapshot, packages)
}

// errGone is in the chain of the error about a file that every mirror that
// answers says it doesn't have.
var errGone = errors.New("gone from every mirror")

// Fetch brings every locked package to the cache, verified by size and SHA-256.
// What is there already isn't fetched again, what was cut off goes on where it
// ended. Where a locked file is gone from every mirror, the nearest version that
// the suites still have takes its place, which is reported loudly, or, with
// Locked, is an error.
func Fetch(ctx context.Context, l Lock, o FetchOptions) (Packages, error) {
	reader, err := o.reader()
	if err != nil {
		return Packages{}, err
	}
	report := reader.report
	unlock, err := o.Cache.Lock(ctx, "debs", func() { report.Printf("Waiting for another fetch of packages to end") })
	if err != nil {
		return Packages{}, err
	}
	defer unlock()
	f := fetcher{archiveReader: reader, dir: o.Cache.Path("debs"), snapshot: l.Snapshot, urls: l.urls()}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return Packages{}, err
	}
	for _, p := range l.Packages {
		f.total += p.Size
	}

	result := Packages{Files: make([]Fetched, len(l.Packages)), snapshot: l.Snapshot}
	var gone sync.Map // index -> error
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	for i, p := range l.Packages {
		work.Go(func() error {
			path, err := f.fetch(workCtx, p)
			if errors.Is(err, errGone) {
				gone.Store(i, err)
				return nil
			}
			result.Files[i] = Fetched{p, path}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return Packages{}, err
	}
	var missing []int
	var errs []error
	gone.Range(func(i, err any) bool {
		missing = append(missing, i.(int))
		errs = append(errs, err.(error))
		return true
	})
	if len(missing) == 0 {
		return result, nil
	}
	if o.Locked {
		return Packages{}, advice.With(errors.Join(errs...), "Move the lock to what the archive has with\n\t%s pin\n"+
			"or name a mirror that still has it in %s, or build without -locked", advice.Berth, EnvMirror)
	}
	slices.Sort(missing)
	err = f.replace(ctx, l, missing, &result)
	return result, err
}

// replace fetches the nearest versions of the packages that are gone.
func (f *fetcher) replace(ctx context.Context, l Lock, missing []int, result *Packages) error {
	names := map[string]bool{}
	for _, i := range missing {
		names[l.Packages[i].Name] = true
	}
	suites := slices.DeleteFunc(slices.Clone(l.Suites), func(s Suite) bool { return s.URL != "" }) // the next version is another's word
	offers, err := f.offers(ctx, suites, l, names)
	if err != nil {
		return err
	}
	for _, i := range missing {
		locked := l.Packages[i]
		got, err := nearest(offers, locked)
		if err != nil {
			return err
		}
		path, err := f.fetch(ctx, got)
		if err != nil {
			return err
		}
		d := Drift{Locked: locked, Got: got}
		f.report.Printf("DRIFT: no mirror has %s any more; taking %s. This image isn't the locked one. The target pin moves the lock", locked,
			got.Version)
		result.Files[i] = Fetched{got, path}
		result.Drift = append(result.Drift, d)
	}
	return nil
}

// offers lists all versions that suites have of the packages of these names.
func (f *fetcher) offers(ctx context.Context, suites []Suite, l Lock, names map[string]bool) (offers []Package, err error) {
	sources, err := f.sources(ctx, suites, l.Architecture, l.Dates)
	if err != nil {
		return nil, err
	}
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

// A fetcher fetches single files.
type fetcher struct {
	archiveReader
	dir      string
	snapshot time.Time
	urls     map[string]string // of the archives that have one
	total    int64             // bytes
	done     atomic.Int64
}

// fetch returns the path of a verified file.
func (f *fetcher) fetch(ctx context.Context, p Package) (string, error) {
	path := filepath.Join(f.dir, p.SHA256+".deb")
	if err := p.file().Check(path); err == nil {
		cache.Use(path)
		f.progress(p.Size)
		return path, nil
	}
	part := path + ".part"
	var tried []string
	answered, gone := 0, true
	for _, base := range f.mirrors.bases(p.Archive, f.urls[p.Archive], f.snapshot) {
		err := f.getter.File(ctx, base+"/"+p.File, part, p.file(), f.progress)
		if err == nil {
			return path, os.Rename(part, path)
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if local := (*os.PathError)(nil); errors.As(err, &local) {
			return "", fmt.Errorf("keeping package %s: %w", p, err)
		}
		tried = append(tried, fmt.Sprintf("\n\t%s: %v", download.Public(base), err))
		if !errors.Is(err, download.ErrUnreachable) {
			answered++
			gone = gone && errors.Is(err, download.ErrNotThere)
		}
	}
	if answered > 0 && gone {
		return "", fmt.Errorf("package %s (%s) is %w:%s", p, p.File, errGone, strings.Join(tried, ""))
	}
	return "", advice.With(fmt.Errorf("fetching package %s (%s):%s", p, p.File, strings.Join(tried, "")),
		"Try again later, or name another mirror in %s. If every mirror sends the same other file, the lock is wrong: "+
			"take it from version control again, or type\n\t%s pin", EnvMirror, advice.Berth)
}

func (f *fetcher) progress(n int64) {
	f.report.Update("Fetching packages: %d of %d MB", f.done.Add(n)>>20, f.total>>20)
}
