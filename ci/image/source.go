package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An archive is an image layout in a tar, of which only the small parts were read.
type archive struct {
	file     *os.File
	entries  map[string]*io.SectionReader
	digest   v1.Hash // of the manifest
	manifest *v1.Manifest
	config   *v1.ConfigFile
}

// maxMetadata is how large an index, manifest or configuration may be.
const maxMetadata = 16 << 20

func openArchive(f *os.File) (*archive, error) {
	a := &archive{file: f, entries: map[string]*io.SectionReader{}}
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		// The tar reader reads headers only and seeks over contents.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		a.entries[filepath.ToSlash(filepath.Clean(h.Name))] = io.NewSectionReader(f, at, h.Size)
	}
	index, err := a.read("index.json")
	if err != nil {
		return nil, err
	}
	var top v1.IndexManifest
	if err := json.Unmarshal(index, &top); err != nil {
		return nil, fmt.Errorf("reading index.json: %w", err)
	}
	if len(top.Manifests) != 1 {
		return nil, fmt.Errorf("index.json names %d images, not one: build for one platform", len(top.Manifests))
	}
	a.digest = top.Manifests[0].Digest
	a.manifest, err = parseBlob(a, a.digest, v1.ParseManifest)
	if err != nil {
		return nil, err
	}
	a.config, err = parseBlob(a, a.manifest.Config.Digest, v1.ParseConfigFile)
	if err != nil {
		return nil, err
	}
	if have, want := len(a.config.RootFS.DiffIDs), len(a.manifest.Layers); have != want {
		return nil, fmt.Errorf("the configuration lists %d layers, the manifest %d", have, want)
	}
	return a, nil
}

func (a *archive) read(name string) ([]byte, error) {
	r, ok := a.entries[name]
	if !ok {
		return nil, fmt.Errorf("the archive has no %s, so it is no OCI image layout", name)
	}
	if r.Size() > maxMetadata {
		return nil, fmt.Errorf("%s in the archive is too large (%d bytes)", name, r.Size())
	}
	data := make([]byte, r.Size())
	if _, err := r.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the archive ends within %s: %w", name, err)
	}
	return data, nil
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

func parseBlob[T any](a *archive, digest v1.Hash, parse func(io.Reader) (T, error)) (T, error) {
	var zero T
	data, err := a.read(blobName(digest))
	if err != nil {
		return zero, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest.Hex {
		return zero, fmt.Errorf("%s in the archive doesn't have the content that its name promises", blobName(digest))
	}
	value, err := parse(bytes.NewReader(data))
	if err != nil {
		return zero, fmt.Errorf("reading %s: %w", blobName(digest), err)
	}
	return value, nil
}
