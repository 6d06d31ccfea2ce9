package owned

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// The kinds of persistent objects.
const (
	KindContainer = "container"
	KindImage     = "image"
	KindVolume    = "volume"
)

// A Persistent is an object in Docker that stays when the process that made it ends.
type Persistent struct {
	Kind   string `json:"kind"`
	Daemon string `json:"daemon"`          // its own ID
	ID     string `json:"id"`              // of a container or image; a volume's name
	Claim  string `json:"claim,omitempty"` // that a volume was made under, by its label: a name may be given again
	For    string `json:"for,omitempty"`   // what it belongs to, for example an engine's name
}

func (p Persistent) path(dir cache.Dir) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", p.Daemon, p.ID))
	return dir.Path("owned", fmt.Sprintf("%s-%x.json", p.Kind, sum[:8]))
}

// Record records that something is Berth's.
func Record(dir cache.Dir, l Persistent) error { return cache.WriteRecord(l.path(dir), l) }

// Forget removes the record, and nothing else.
func Forget(dir cache.Dir, l Persistent) error {
	if err := os.Remove(l.path(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting what was Berth's: %w", err)
	}
	return nil
}

// Recorded lists what of a kind is on record in a daemon. Damaged records count as
// none.
func Recorded(dir cache.Dir, kind, daemon string) ([]Persistent, error) {
	entries, err := os.ReadDir(dir.Path("owned"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var all []Persistent
	for _, e := range entries {
		var l Persistent
		if cache.ReadRecord(dir.Path("owned", e.Name()), &l) && l.Kind == kind && l.Daemon == daemon {
			all = append(all, l)
		}
	}
	return all, nil
}

// Owns reports whether a container or image is on record.
func Owns(dir cache.Dir, kind, daemon, id string) (bool, error) {
	all, err := Recorded(dir, kind, daemon)
	for _, l := range all {
		if l.ID == id {
			return true, err
		}
	}
	return false, err
}

// OwnsVolume reports whether a volume is on record: not another one that has its
// name now.
func OwnsVolume(dir cache.Dir, daemonID string, v daemon.VolumeStatus) (bool, error) {
	all, err := Recorded(dir, KindVolume, daemonID)
	for _, l := range all {
		if l.ID == v.Name && l.Claim != "" && l.Claim == v.Labels[daemon.LabelClaim] {
			return true, err
		}
	}
	return false, err
}

// Images are what a user's builds have loaded into a daemon. While they are locked,
// no other process of this user's loads images there or removes them: an image that
// is being loaded has no name at first.
type Images struct {
	dir    cache.Dir
	docker *daemon.Client
	where  string
	unlock func()
}

// LockImages waits until it can lock the images on record.
func LockImages(ctx context.Context, dir cache.Dir, docker *daemon.Client) (Images, error) {
	where, err := docker.ID(ctx)
	if err != nil {
		return Images{}, err
	}
	unlock, err := dir.Lock(ctx, "images", nil)
	return Images{dir, docker, where, unlock}, err
}

// Unlock lets others in again.
func (i Images) Unlock() { i.unlock() }

// Record records that the images with these IDs, which there need not be yet, belong
// to something, for example an engine.
func (i Images) Record(to string, ids ...string) error {
	for _, id := range ids {
		if err := Record(i.dir, Persistent{Kind: KindImage, Daemon: i.where, ID: id, For: to}); err != nil {
			return err
		}
	}
	return nil
}

// RemoveUntaggedImages removes the images on record that have no name any more and
// that nothing uses: the one that lost its tag now, and those of builds that were
// killed after they had loaded theirs.
func RemoveUntaggedImages(ctx context.Context, dir cache.Dir, docker *daemon.Client) error {
	locked, err := LockImages(ctx, dir, docker)
	if err != nil {
		return err
	}
	defer locked.Unlock()
	images, err := Recorded(dir, KindImage, locked.where)
	if err != nil {
		return err
	}
	for _, l := range images {
		image, err := docker.Image(ctx, l.ID)
		if err == nil && image.ID == l.ID && len(image.Tags) == 0 && len(image.Digests) == 0 {
			err = docker.RemoveImage(ctx, l.ID)
			if err == nil {
				err = Forget(dir, l)
			}
		}
		switch {
		case errors.Is(err, daemon.ErrNotFound):
			err = Forget(dir, l)
		case errors.Is(err, daemon.ErrConflict):
			err = nil // in use
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// RemoveImages removes the images on record that belong to something and have a tag in
// its repository, but for the one with the tag to keep, and those that a container uses.
// Names that others gave them stay.
func RemoveImages(ctx context.Context, dir cache.Dir, docker *daemon.Client, to, repository, keep string) error {
	locked, err := LockImages(ctx, dir, docker)
	if err != nil {
		return err
	}
	defer locked.Unlock()
	images, err := Recorded(dir, KindImage, locked.where)
	if err != nil {
		return err
	}
	for _, l := range images {
		if l.For != to {
			continue
		}
		i, err := docker.Image(ctx, l.ID)
		if keep != "" && slices.Contains(i.Tags, keep) {
			continue
		}
		for _, tag := range i.Tags {
			if strings.HasPrefix(tag, repository+":") {
				err = errors.Join(err, docker.RemoveImage(ctx, tag))
			}
		}
		if errors.Is(err, daemon.ErrConflict) {
			continue // in use
		}
		if err == nil || errors.Is(err, daemon.ErrNotFound) {
			err = Forget(dir, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
