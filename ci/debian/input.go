package debian

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/cache"
)

// Input is the root file system of locked Debian packages. A project may have several: one
// for its image, and others for stages that the image takes no more than files from.
type Input struct {
	Archive  string // its name in the build context; rootfs.tar if empty
	Manifest string // what is wanted, and why; docker/packages.toml if empty
	Lock     string // docker/packages.lock if empty
}

var _ input.Explainer = Input{}

func (i Input) manifest(root string) string {
	return filepath.Join(root, filepath.FromSlash(cmp.Or(i.Manifest, "docker/packages.toml")))
}

func (i Input) lock() string { return cmp.Or(i.Lock, "docker/packages.lock") }

// Path is that of the lock, below a checkout's root.
func (i Input) Path(root string) string { return filepath.Join(root, filepath.FromSlash(i.lock())) }

// Name implements input.Input.
func (i Input) Name() string { return cmp.Or(i.Archive, "rootfs.tar") }

// Read implements input.Input.
func (i Input) Read(root string) (input.Locked, error) {
	lock, err := ReadLock(i.Path(root))
	return locked{lock}, err
}

// Check implements input.Input.
func (i Input) Check(root string) error { return CheckFiles(i.manifest(root), i.Path(root)) }

// Pin implements input.Input: it resolves the packages against the archive as it is now.
func (i Input) Pin(ctx context.Context, root string, o input.Options) (input.Pinned, error) {
	manifest, err := ReadManifest(i.manifest(root))
	if err != nil {
		return input.Pinned{}, err
	}
	old, err := ReadLock(i.Path(root))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return input.Pinned{}, err
	}
	lock, err := Pin(ctx, manifest, old, hostOptions(root, o))
	if err != nil {
		return input.Pinned{}, err
	}
	p := input.Pinned{Locked: locked{lock}, Files: map[string][]byte{i.lock(): lock.Marshal()}}
	for _, archive := range slices.Sorted(maps.Keys(lock.Signers)) {
		if was, is := old.Signers[archive], lock.Signers[archive]; was != is {
			p.Changes = append(p.Changes, fmt.Sprintf("~ archive %s is signed by key %s, it was %s", archive, is, cmp.Or(was, "none before")))
		}
	}
	for _, c := range Diff(old, lock) {
		p.Changes = append(p.Changes, c.String())
	}
	for _, one := range lock.Packages {
		p.Items = append(p.Items, input.Item{Name: one.Name, Version: one.Version})
	}
	return p, nil
}

// Why implements input.Explainer. It resolves the packages as Pin does.
func (i Input) Why(ctx context.Context, root, name string, o input.Options) (chain []string, err error) {
	manifest, err := ReadManifest(i.manifest(root))
	if err != nil {
		return nil, err
	}
	return why(ctx, manifest, name, hostOptions(root, o))
}

// hostOptions are those of this machine, for a checkout.
func hostOptions(root string, o input.Options) Options {
	return Options{Mirrors: HostMirrors(), Cache: o.Cache, Root: root, Progress: o.Report}
}

// locked is a lock as an input.Locked.
type locked struct{ lock Lock }

func (l locked) Hash() string {
	sum := sha256.Sum256([]byte(recipe() + " " + l.lock.Hash()))
	return hex.EncodeToString(sum[:])
}

// recipe is Recipe, and that of the script.
func recipe() string {
	sum := sha256.Sum256(configure)
	return fmt.Sprintf("%s-%x", Recipe, sum[:6])
}

func (l locked) Date() time.Time { return l.lock.Snapshot }

// Make makes the root file system once for each set of packages, compressed:
// builders tell by its first bytes. While that is in use, so are the packages: without a
// network, or once they are gone from the mirrors, nobody else has them.
func (l locked) Make(ctx context.Context, o input.Options) (input.Made, error) {
	name := func(hash string) string { return filepath.Join(o.Folder, hash+"-"+recipe()+".tar.zst") }
	if path, err := cache.Find(name(l.lock.Hash())); path != "" || err != nil {
		for _, p := range l.lock.Packages {
			cache.Use(debPath(o.Cache, p))
		}
		return input.Made{Path: path}, err
	}
	packages, err := Fetch(ctx, l.lock, FetchOptions{Options: hostOptions("", o), Locked: o.Locked})
	if err != nil {
		return input.Made{}, err
	}
	var made input.Made
	for _, d := range packages.Drift {
		made.Drift = append(made.Drift, d.String())
	}
	if made.Path, err = cache.Find(name(packages.Hash())); made.Path != "" || err != nil {
		return made, err
	}
	temp, remove, err := o.Cache.Temp("rootfs")
	if err != nil {
		return input.Made{}, err
	}
	defer remove()
	packages.Configure = true
	made.Path, err = RootfsFile(ctx, name(packages.Hash()), packages, l.lock.Snapshot, temp, o.Report)
	return made, err
}

var (
	_ input.Keeper = locked{}
	_ input.Listed = locked{}
)

// Files implements input.Listed.
func (l locked) Files() (all []input.File) {
	urls := l.lock.urls()
	for _, p := range l.lock.Packages {
		base := cmp.Or(urls[p.Archive], snapshotBase(Snapshots, p.Archive, l.lock.Snapshot))
		all = append(all, input.File{
			Kind: "deb", Name: p.Name, Version: p.Version, Architecture: p.Architecture, SHA256: p.SHA256,
			URL: strings.TrimRight(base, "/") + "/" + p.File,
		})
	}
	return all
}

// Unkept implements input.Keeper. The names are those below a mirror's base URL.
func (l locked) Unkept(ctx context.Context, o input.Options) (map[string]string, error) {
	urls, part := l.lock.urls(), l.lock
	part.Packages = slices.DeleteFunc(slices.Clone(l.lock.Packages), func(p Package) bool { return urls[p.Archive] == "" })
	packages, err := Fetch(ctx, part, FetchOptions{Options: hostOptions("", o), Locked: o.Locked})
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, f := range packages.Files {
		files[f.Archive+"/"+f.File] = f.Path
	}
	return files, nil
}
