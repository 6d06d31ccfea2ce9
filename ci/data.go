package ci

import (
	"context"
	"fmt"
	"slices"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Data writes the project's data set, as the image has it, into the folder dir,
// for work outside of the image: the files of the locked package. It returns
// their names, overwrites nothing, and needs neither Docker nor an engine.
func Data(ctx context.Context, p Project, dir string, locked bool, report *progress.Reporter) ([]string, error) {
	lock, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil {
		return nil, err
	}
	lock.Packages = slices.DeleteFunc(lock.Packages, func(one debian.Package) bool { return one.Name != p.Data.Package })
	if len(lock.Packages) == 0 {
		return nil, fmt.Errorf("%w: %s doesn't lock the package of the project's data set, %q. "+
			"Name it in %s if it isn't there, and type\n\tgo tool mage pin",
			debian.ErrPinsDiffer, p.Lock, p.Data.Package, p.Packages)
	}
	store, err := cache.Open()
	if err != nil {
		return nil, err
	}
	packages, err := debian.Fetch(ctx, lock, debian.FetchOptions{
		PinOptions: debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: report}, Cache: store, Locked: locked,
	})
	if err != nil {
		return nil, err
	}
	temp, remove, err := store.Temp("data")
	if err != nil {
		return nil, err
	}
	defer remove()
	return debian.Extract(packages.Files[0], p.Data.Folder, dir, temp)
}
