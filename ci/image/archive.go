package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthdev/berth/internal/cache"
)

// WriteArchive writes the image as an OCI image layout in a tar, whole or not
// at all. The same image and name give the same bytes.
func WriteArchive(path string, img v1.Image, name string) error {
	err := cache.Write(path, 0o644, func(w io.Writer) error { return writeLayout(tar.NewWriter(w), img, name) })
	if err != nil {
		return fmt.Errorf("writing the image to %s: %w", path, err)
	}
	return nil
}

func writeLayout(out *tar.Writer, img v1.Image, name string) error {
	top, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	top.Annotations = map[string]string{specs.AnnotationRefName: name}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{*top}})
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", index},
		{blobName(top.Digest), manifest}, {blobName(id), config},
	} {
		if err := writeFile(out, file.name, file.data); err != nil {
			return err
		}
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	written := map[v1.Hash]bool{}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		if written[d] {
			continue
		}
		written[d] = true
		if err := writeLayer(out, blobName(d), l); err != nil {
			return err
		}
	}
	return out.Close()
}
