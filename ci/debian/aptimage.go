package debian

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// Apt is what the image has in it in which apt runs, as an input in Berth's own checkout,
// where it is pinned. What builds the image is what was embedded.
var Apt = Input{Manifest: "ci/debian/apt.toml", Lock: "ci/debian/apt.lock"}

//go:embed apt.lock
var aptLock []byte

const (
	aptRole       = "apt"       // of its image and containers
	aptRepository = "berth-apt" // the name of its images in Docker, and of nothing else there
	aptRecipe     = "1"         // changes whenever the same packages give another image
)

// aptImage makes sure that the daemon has the image in which apt runs, and returns its
// tag. Its packages are unpacked and not configured, which is enough for apt. It runs on
// amd64, whichever architecture it chooses packages for.
func aptImage(ctx context.Context, docker *daemon.Client, o Options) (tag string, err error) {
	sum := sha256.Sum256(append([]byte(aptRecipe+"\n"), aptLock...))
	tag = fmt.Sprintf("%s:%x", aptRepository, sum[:6])
	have := func() (bool, error) {
		_, err := docker.Image(ctx, tag)
		if errors.Is(err, daemon.ErrNotFound) {
			return false, nil
		}
		return err == nil, err
	}
	if there, err := have(); there || err != nil {
		return tag, err
	}
	unlock, err := o.Cache.Lock(ctx, "apt-image", nil)
	if err != nil {
		return "", err
	}
	defer unlock()
	if there, err := have(); there || err != nil {
		return tag, err // another process has built it
	}
	if err := buildAptImage(ctx, docker, tag, o); err != nil {
		return "", err
	}
	return tag, owned.RemoveImages(ctx, o.Cache, docker, aptRole, aptRepository, tag)
}

func buildAptImage(ctx context.Context, docker *daemon.Client, tag string, o Options) error {
	lock, err := ParseLock(bytes.NewReader(aptLock))
	if err != nil {
		return err
	}
	packages, err := Fetch(ctx, lock, FetchOptions{
		Options: Options{Mirrors: HostMirrors(), Cache: o.Cache, Progress: o.Progress}, single: true,
	})
	if err != nil {
		return err
	}
	temp, remove, err := o.Cache.Temp("apt")
	if err != nil {
		return err
	}
	defer remove()
	rootfs, err := RootfsFile(ctx, filepath.Join(temp, "rootfs.tar"), packages, lock.Snapshot, temp, o.Progress)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(rootfs, tarball.WithCompressionLevel(gzip.NoCompression)) // it stays on this machine
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", lock.Architecture
	config.Config.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C"}
	config.Config.Labels = map[string]string{daemon.LabelRole: aptRole}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	_, err = image.Load(ctx, docker, o.Cache, img, tag, aptRole)
	return err
}

// RemoveAptImages removes the images in which apt ran.
func RemoveAptImages(ctx context.Context, dir cache.Dir, docker *daemon.Client) error {
	return owned.RemoveImages(ctx, dir, docker, aptRole, aptRepository, "")
}
