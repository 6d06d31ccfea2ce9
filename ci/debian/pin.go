package debian

import (
	"context"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// PinOptions says where to look and whom to trust.
type PinOptions struct {
	Mirrors  Mirrors
	Progress Progress           // may be nil
	Keys     openpgp.EntityList // the Debian archive's own if nil
	Now      time.Time          // the clock's if zero
}

// Pin resolves what the manifest wants against the archives as they are now. If
// that gives the same packages as the previous lock, its times stay, so that
// pinning again changes nothing. A suite that is older than the one that the previous
// lock was made from is refused, whoever signed it.
func Pin(ctx context.Context, m Manifest, previous Lock, o PinOptions) (Lock, error) {
	reader, report, err := o.reader()
	if err != nil {
		return Lock{}, err
	}
	all, dates, err := reader.packages(ctx, m.Suites, m.Architecture, previous.Dates, report)
	if err != nil {
		return Lock{}, err
	}
	report.Update("Resolving dependencies")
	wanted := make([]string, 0, len(m.Packages))
	for _, p := range m.Packages {
		wanted = append(wanted, p.Name)
	}
	packages, err := resolve(all, wanted)
	if err != nil {
		return Lock{}, err
	}
	lock := Lock{Snapshot: reader.now, Wants: m.hash(), Architecture: m.Architecture, Suites: m.Suites, Dates: dates, Packages: packages}
	if len(Diff(previous, lock)) == 0 {
		lock.Snapshot = previous.Snapshot
		for suite, date := range previous.Dates {
			if _, wanted := dates[suite]; wanted {
				dates[suite] = date
			}
		}
	}
	return lock, nil
}

func (o PinOptions) reader() (archiveReader, Progress, error) {
	r := archiveReader{mirrors: o.Mirrors, keys: o.Keys, now: o.Now}
	if r.now.IsZero() {
		r.now = time.Now()
	}
	r.now = r.now.UTC().Truncate(time.Second)
	if r.keys == nil {
		var err error
		if r.keys, err = archiveKeys(); err != nil {
			return r, nil, err
		}
	}
	report := o.Progress
	if report == nil {
		report = noProgress{}
	}
	return r, report, nil
}
