package debian

import (
	"cmp"
	"context"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/download"
)

// Options says where to look, whom to trust, and where to keep what was fetched.
type Options struct {
	Mirrors   Mirrors
	Snapshots string             // URL of the service that is asked last; Snapshots if empty
	Cache     cache.Dir          // .deb files are kept in its folder debs, indices in its folder indices, by their hashes
	Root      string             // of the checkout, below which keyrings lie
	Progress  Progress           // may be nil
	Keys      openpgp.EntityList // the Debian archive's own if nil
	Now       time.Time          // the clock's if zero
	Stall     time.Duration      // how long a mirror may send nothing; the usual if zero
}

// Pin has apt resolve what the manifest wants, in Docker, against the archives as they
// are now. If that gives the same packages as the previous lock, its times stay, so that
// pinning again changes nothing. A suite that is older than the one that the previous
// lock was made from is refused, whoever signed it.
func Pin(ctx context.Context, m Manifest, previous Lock, o Options) (Lock, error) {
	reader, err := o.reader()
	if err != nil {
		return Lock{}, err
	}
	sources, err := reader.sources(ctx, m.Suites, m.Architecture, previous.Dates)
	if err != nil {
		return Lock{}, err
	}
	chosen, err := solve(ctx, m, sources, o, false)
	if err != nil {
		return Lock{}, err
	}
	lock := Lock{Snapshot: reader.now, Wants: m.hash(), Architecture: m.Architecture, Suites: m.Suites, Packages: chosen.packages}
	lock.Dates, lock.Signers = map[string]time.Time{}, signers(sources)
	for _, s := range sources {
		lock.Dates[s.id()] = s.release.date
		if s.URL != "" {
			reader.report.Printf("Archive %s is signed by key %s%s, of %s", s.Archive, s.release.fingerprint(), s.release.owner(), s.Keyring)
		}
	}
	if len(Diff(previous, lock)) == 0 {
		lock.Snapshot = previous.Snapshot
		for suite, date := range previous.Dates {
			if _, wanted := lock.Dates[suite]; wanted {
				lock.Dates[suite] = date
			}
		}
	}
	return lock, nil
}

// signers are the fingerprints of the keys by which archives other than Debian's are
// signed; nil if there are none.
func signers(sources []source) map[string]string {
	var all map[string]string
	for _, s := range sources {
		if s.URL != "" {
			if all == nil {
				all = map[string]string{}
			}
			all[s.Archive] = s.release.fingerprint()
		}
	}
	return all
}

func (o Options) reader() (archiveReader, error) {
	r := archiveReader{
		getter: download.Getter{Stall: o.Stall}, mirrors: o.Mirrors, snapshots: cmp.Or(o.Snapshots, Snapshots),
		keys: o.Keys, root: o.Root, now: o.Now, cache: o.Cache, report: o.Progress,
	}
	if r.now.IsZero() {
		r.now = time.Now()
	}
	r.now = r.now.UTC().Truncate(time.Second)
	if r.keys == nil {
		var err error
		if r.keys, err = archiveKeys(); err != nil {
			return r, err
		}
	}
	if r.report == nil {
		r.report = noProgress{}
	}
	return r, nil
}

// Progress is told what long work is doing. *progress.Reporter is one.
type Progress interface {
	Update(format string, args ...any) // a line that replaces the one before
	Printf(format string, args ...any) // a line that stays
}

type noProgress struct{}

func (noProgress) Update(string, ...any) {}
func (noProgress) Printf(string, ...any) {}
