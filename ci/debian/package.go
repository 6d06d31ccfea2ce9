package debian

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/advice"
)

// Extract writes the files that a locked package has below a folder ("usr/share/…")
// into the folder dir, as the image has them: a data set, to work with it outside of
// the image. It returns their names, and overwrites nothing. Of the options, it takes
// cache, locked and report.
func (i Input) Extract(ctx context.Context, root, name, folder, dir string, o input.Options) ([]string, error) {
	lock, err := ReadLock(i.Path(root))
	if err != nil {
		return nil, err
	}
	lock.Packages = slices.DeleteFunc(lock.Packages, func(one Package) bool { return one.Name != name })
	if len(lock.Packages) == 0 {
		err := fmt.Errorf("%w: %s doesn't lock the package %q", input.ErrPinsDiffer, i.lock(), name)
		return nil, advice.With(err, "Name it in the list of packages that are wanted, if it isn't there, and type\n\t%s pin", advice.Berth)
	}
	return lock.extract(ctx, folder, dir, FetchOptions{Options: hostOptions("", o), Locked: o.Locked})
}

// extract does that for the one package of a lock. Where it is gone, the nearest version takes
// its place: it needs no other package.
func (l Lock) extract(ctx context.Context, folder, dir string, o FetchOptions) ([]string, error) {
	o.single = true
	packages, err := Fetch(ctx, l, o)
	if err != nil {
		return nil, err
	}
	temp, remove, err := o.Cache.Temp("data")
	if err != nil {
		return nil, err
	}
	defer remove()
	return extract(packages.Files[0], folder, dir, temp)
}
