package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berthdev/berth/internal/progress"
)

// A Base is an image of a registry that others begin with, kept in a file: an OCI image
// layout in a tar, with the manifest for one platform, and the index that lists it, if the
// digest was one's of several platforms.
type Base struct {
	path     string
	manifest v1.Hash
	all      []v1.Layer
	diffIDs  []v1.Hash
}

// Path is the file.
func (b *Base) Path() string { return b.path }

// Manifest is the digest of the image itself, also where the one that was asked for is of
// several platforms.
func (b *Base) Manifest() v1.Hash { return b.manifest }

func (b *Base) layers() []v1.Layer {
	if b == nil {
		return nil
	}
	return b.all
}

// baseOf returns the base with the most layers with which an image begins, nil if none.
func baseOf(all []*Base, diffIDs []v1.Hash) (found *Base) {
	for _, b := range all {
		n := len(b.diffIDs)
		if n <= len(diffIDs) && slices.Equal(b.diffIDs, diffIDs[:n]) && (found == nil || n > len(found.diffIDs)) {
			found = b
		}
	}
	return found
}

// PullBase writes an image of a registry as a Base's file, with every byte as the registry
// has it, checked against its digest.
func PullBase(ctx context.Context, ref name.Digest, platform v1.Platform, out io.Writer, report *progress.Reporter) error {
	top, err := remote.Get(ref, registryOptions(ctx, remote.WithPlatform(platform))...)
	if err != nil {
		return registryError(ctx, "pulling", ref, err)
	}
	img, err := top.Image()
	if err != nil {
		return registryError(ctx, "pulling", ref, err)
	}
	if err := writeBase(tar.NewWriter(out), top, img, func(done, all int64) {
		report.Update("Pulling %s: %d of %d MB", ref.Context(), done>>20, all>>20)
	}); err != nil {
		return registryError(ctx, "pulling", ref, err)
	}
	return nil
}

func writeBase(out *tar.Writer, top *remote.Descriptor, img v1.Image, progress func(done, all int64)) error {
	described, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	configName, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{
		{MediaType: described.MediaType, Size: described.Size, Digest: described.Digest},
	}})
	if err != nil {
		return err
	}
	small := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index,
		blobName(top.Digest): top.Manifest, blobName(described.Digest): manifest, blobName(configName): config,
	}
	for _, name := range slices.Sorted(maps.Keys(small)) {
		if err := writeFile(out, name, small[name]); err != nil {
			return err
		}
	}
	var done, all int64
	sizes := make([]int64, len(layers))
	for i, l := range layers {
		if sizes[i], err = l.Size(); err != nil {
			return err
		}
		all += sizes[i]
	}
	written := map[v1.Hash]bool{} // an image may have the same layer twice
	for i, l := range layers {
		progress(done, all)
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		if !written[digest] {
			if err := writeLayer(out, blobName(digest), l); err != nil { // which reads no wrong bytes
				return err
			}
		}
		written[digest] = true
		done += sizes[i]
	}
	return out.Close()
}

// OpenBase opens a Base's file, which must be of the image that a digest names. Whoever calls
// it has checked that the file is what was written.
func OpenBase(path string, digest v1.Hash) (*Base, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := openArchive(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if a.digest != digest {
		index, err := parseBlob(a, digest, v1.ParseIndexManifest)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		if !slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == a.digest }) {
			return nil, fmt.Errorf("%s has an image that %s doesn't list", path, digest)
		}
	}
	b := &Base{path: path, manifest: a.digest, diffIDs: a.config.RootFS.DiffIDs}
	for i, d := range a.manifest.Layers {
		blob, ok := a.entries[blobName(d.Digest)]
		if !ok {
			return nil, fmt.Errorf("%s lacks layer %s", path, d.Digest)
		}
		_, at, size := blob.Outer()
		l, err := partial.CompressedToLayer(&baseLayer{path: path, offset: at, size: size, digest: d.Digest, diffID: b.diffIDs[i], mediaType: ociType(d.MediaType)})
		if err != nil {
			return nil, err
		}
		b.all = append(b.all, l)
	}
	return b, nil
}

// ociType is what an OCI manifest calls a layer: the same bytes have another name in Docker's.
func ociType(t types.MediaType) types.MediaType {
	switch t {
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	}
	return t
}

// A baseLayer is a layer in a Base's file.
type baseLayer struct {
	path           string
	offset, size   int64
	digest, diffID v1.Hash
	mediaType      types.MediaType
}

func (l *baseLayer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *baseLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *baseLayer) Size() (int64, error)                { return l.size, nil }
func (l *baseLayer) MediaType() (types.MediaType, error) { return l.mediaType, nil }

// Compressed returns the layer as the registry has it.
func (l *baseLayer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, l.offset, l.size), f}, nil
}
