package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// Load loads the image into Docker under a tag and returns its ID there. Layers
// that the daemon has already, by an image that berth built before, aren't sent
// again. Until the new image is in, the old one keeps its tag. It is recorded as
// Berth's, and as belonging to something, which may be empty.
func Load(ctx context.Context, docker *daemon.Client, dir cache.Dir, img v1.Image, tag, to string) (id string, err error) {
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	name, err := img.ConfigName()
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	images, err := owned.LockImages(ctx, dir, docker)
	if err != nil {
		return "", err
	}
	defer images.Unlock()
	// Recorded before anything is sent, under the names that it may get: other stores
	// than the classic one name images by their manifest.
	if err := images.Record(to, name.String(), digest.String()); err != nil {
		return "", err
	}
	old, err := docker.Image(ctx, tag)
	if err != nil && !errors.Is(err, daemon.ErrNotFound) {
		return "", err
	}
	known, err := knownLayers(ctx, docker, config.RootFS.DiffIDs, old)
	if err != nil {
		return "", err
	}
	err = load(ctx, docker, img, tag, known)
	if err != nil && known > 0 && ctx.Err() == nil && !errors.Is(err, ErrDamaged) {
		// A daemon with another image store wants every layer each time.
		err = load(ctx, docker, img, tag, 0)
	}
	if err != nil {
		return "", err
	}
	now, err := docker.Image(ctx, tag)
	if err != nil {
		return "", err
	}
	// The ID can't tell.
	if n := common(config.RootFS.DiffIDs, now.Layers); n != len(config.RootFS.DiffIDs) || n != len(now.Layers) {
		return "", fmt.Errorf("the image was loaded, but %s in Docker is another one, %s. Build again", tag, now.ID)
	}
	return now.ID, images.Record(to, now.ID)
}

// common is how many layers, from the lowest, are the same.
func common(want []v1.Hash, have []string) int {
	n := 0
	for n < len(want) && n < len(have) && have[n] == want[n].String() {
		n++
	}
	return n
}

// knownLayers is how many of the layers, from the lowest, the daemon has.
func knownLayers(ctx context.Context, docker *daemon.Client, layers []v1.Hash, old daemon.Image) (int, error) {
	have := []daemon.Image{old}
	ids, err := docker.Images(ctx, daemon.LabelInputs)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if id == old.ID {
			continue
		}
		other, err := docker.Image(ctx, id)
		if errors.Is(err, daemon.ErrNotFound) {
			continue // removed meanwhile
		} else if err != nil {
			return 0, err
		}
		have = append(have, other)
	}
	known := 0
	for _, other := range have {
		known = max(known, common(layers, other.Layers))
	}
	return known, nil
}

// load streams a docker-archive to the daemon in which the lowest layers are
// only named. Docker's classic store opens a layer only if it lacks it.
func load(ctx context.Context, docker *daemon.Client, img v1.Image, tag string, known int) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeDockerArchive(w, img, tag, known)
		w.CloseWithError(err)
		written <- err
	}()
	err := docker.Load(ctx, r)
	r.Close()
	// What went wrong on this side is the cause of what the daemon says.
	if werr := <-written; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
		return fmt.Errorf("loading an image: %w", werr)
	}
	return err
}

func writeDockerArchive(w io.Writer, img v1.Image, tag string, known int) error {
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	names := make([]string, len(layers))
	for i, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		names[i] = d.Hex + ".tar.gz"
		if i < known {
			continue
		}
		if err := writeLoadable(out, names[i], l); err != nil {
			return err
		}
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": id.Hex + ".json", "RepoTags": []string{tag}, "Layers": names}})
	if err != nil {
		return err
	}
	if err := writeFile(out, id.Hex+".json", config); err != nil {
		return err
	}
	if err := writeFile(out, "manifest.json", manifest); err != nil {
		return err
	}
	return out.Close()
}

// writeLayer writes a layer as it is stored.
func writeLayer(out *tar.Writer, name string, l v1.Layer) error {
	size, err := l.Size()
	if err != nil {
		return err
	}
	return writeStream(out, name, size, l.Compressed)
}

// writeLoadable writes a layer so that every version of Docker can load it: one of a base
// image may be compressed by Zstandard, which old ones don't know. Docker names it by
// what is in it.
func writeLoadable(out *tar.Writer, name string, l v1.Layer) error {
	mediaType, err := l.MediaType()
	if err != nil {
		return err
	}
	if mediaType == types.OCILayer {
		return writeLayer(out, name, l)
	}
	size, err := length(l)
	if err != nil {
		return err
	}
	return writeStream(out, name, size, l.Uncompressed)
}

func writeStream(out *tar.Writer, name string, size int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	if _, err := io.Copy(out, r); err != nil {
		return fmt.Errorf("writing layer %s: %w", name, err)
	}
	return nil
}

// length is how long a layer is without its compression.
func length(l v1.Layer) (int64, error) {
	r, err := l.Uncompressed()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

func writeFile(out *tar.Writer, name string, data []byte) error {
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}
