package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
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
	single  bool // replace a package that is gone by the nearest version: of apt itself, and of what is taken by itself
}

// A Fetched is a verified .deb file.
type Fetched struct {
	Package
	Path string
}

// Drift is a package that isn't as locked, since one that was locked is gone from every mirror.
type Drift struct {
	Locked, Got Package // Locked is the zero value where the package came in addition
}

func (d Drift) String() string {
	if d.Locked.Name == "" {
		return fmt.Sprintf("%s %s in addition", d.Got.Name, d.Got.Version)
	}
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
// ended. Where a locked file is gone from every mirror, apt resolves all of the lock's
// packages again, and the whole of its answer takes their place, which is reported
// loudly, or, with Locked, is an error.
func Fetch(ctx context.Context, l Lock, o FetchOptions) (Packages, error) {
	result, gone, err := fetchLocked(ctx, l, o)
	if err != nil || len(gone) == 0 {
		return result, err
	}
	missing := goneError(gone)
	if o.Locked {
		return Packages{}, advice.With(missing, "Move the lock to what the archive has with\n\t%s pin\n"+
			"or name a mirror that still has it in %s, or build without -locked", advice.Berth, EnvMirror)
	}
	again, err := o.instead(ctx, l, gone)
	if err != nil {
		return Packages{}, advice.With(fmt.Errorf("%w\n%w", missing, err), "Move the lock to what the archive has with\n\t%s pin\n"+
			"or name a mirror that still has it in %s", advice.Berth, EnvMirror)
	}
	result, goneToo, err := fetchLocked(ctx, again, o)
	if err == nil && len(goneToo) > 0 {
		err = advice.With(goneError(goneToo), "The mirrors are in the middle of a change. Try again later")
	}
	if err != nil {
		return Packages{}, err
	}
	result.Drift = drift(l, again)
	o.tell(gonePackages(l, gone), result.Drift)
	return result, nil
}

// fetchLocked fetches what a lock names, and returns why files are gone, by the packages' places.
func fetchLocked(ctx context.Context, l Lock, o FetchOptions) (Packages, map[int]error, error) {
	reader, err := o.reader()
	if err != nil {
		return Packages{}, nil, err
	}
	report := reader.report
	unlock, err := o.Cache.Lock(ctx, "debs", func() { report.Printf("Waiting for another fetch of packages to end") })
	if err != nil {
		return Packages{}, nil, err
	}
	defer unlock()
	f := fetcher{archiveReader: reader, times: l.snapshots(), urls: l.urls()}
	if err := os.MkdirAll(o.Cache.Path("debs"), 0o755); err != nil {
		return Packages{}, nil, err
	}
	for _, p := range l.Packages {
		f.total += p.Size
	}

	result := Packages{Files: make([]Fetched, len(l.Packages)), snapshot: l.Snapshot}
	gone := make([]error, len(l.Packages))
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	for i, p := range l.Packages {
		work.Go(func() error {
			path, err := f.fetch(workCtx, p)
			if errors.Is(err, errGone) {
				gone[i] = err
				return nil
			}
			result.Files[i] = Fetched{p, path}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return Packages{}, nil, err
	}
	missing := map[int]error{}
	for i, err := range gone {
		if err != nil {
			missing[i] = err
		}
	}
	return result, missing, nil
}

// debPath is the place of a package's file in the cache.
func debPath(dir cache.Dir, p Package) string { return dir.Path("debs", p.SHA256+".deb") }

// A fetcher fetches single files.
type fetcher struct {
	archiveReader
	times []time.Time       // of snapshots
	urls  map[string]string // of the archives that have one
	total int64             // bytes
	done  atomic.Int64
}

// fetch returns the path of a verified file.
func (f *fetcher) fetch(ctx context.Context, p Package) (string, error) {
	path := debPath(f.cache, p)
	if err := p.file().Check(path); err == nil {
		cache.Use(path)
		f.progress(p.Size)
		return path, nil
	}
	part := path + ".part"
	var tried []string
	answered, gone, dated := 0, true, false
	for _, base := range f.bases(p.Archive, f.urls[p.Archive], f.times...) {
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
		if strings.HasPrefix(base, f.snapshots+"/") {
			if !errors.Is(err, download.ErrNotThere) {
				gone = gone && !dated // what an earlier snapshot lacks may be in this one
				break                 // those of later times, which are all that is left, are as far away
			}
			dated = true
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
