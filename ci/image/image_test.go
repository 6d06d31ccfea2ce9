package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

var (
	epoch = time.Unix(1_700_000_000, 0).UTC()
	noon  = time.Date(2031, 2, 3, 12, 0, 0, 123456789, time.UTC) // any other time
)

// An item is one entry of a layer that a test writes.
type item struct {
	tar.Header
	content string
}

func regular(name, content string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: noon}, content}
}

func folder(name string) item {
	return item{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: noon}}
}

func link(typeflag byte, name, to string) item {
	return item{Header: tar.Header{Name: name, Typeflag: typeflag, Linkname: to, Mode: 0o777, ModTime: noon}}
}

// with returns the item with its header changed.
func (i item) with(change func(h *tar.Header)) item {
	change(&i.Header)
	return i
}

func tarOf(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.content))
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, i.content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstandard(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(data, nil)
}

// imageOf returns an image with these layers, stored as they are, made at noon.
func imageOf(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for i, data := range layers {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{
			Layer:   static.NewLayer(data, types.OCILayer),
			History: v1.History{Created: v1.Time{Time: noon}, CreatedBy: fmt.Sprint("step ", i), Comment: "a builder"},
		})
		require.NoError(t, err)
	}
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", "amd64", v1.Time{Time: noon}
	config.Config = v1.Config{Env: []string{"PATH=/bin"}, WorkingDir: "/", Labels: map[string]string{"dev.berth.role": "test"}}
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	return img
}

// store writes an image as an OCI image layout in a tar, by go-containerregistry
// so that what is tested doesn't write its own input.
func store(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, p.AppendImage(img))
	return pack(t, dir)
}

// pack writes a folder's files to a tar.
func pack(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "export.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	require.NoError(t, w.AddFS(os.DirFS(dir)))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	return path
}

func options(t testing.TB) Options {
	dir := t.TempDir()
	return Options{Epoch: epoch, Cache: filepath.Join(dir, "layers"), Temp: t.TempDir()}
}

// canonicalOf makes an image of these layers canonical.
func canonicalOf(t testing.TB, o Options, layers ...[]byte) v1.Image {
	t.Helper()
	img, err := Canonical(t.Context(), store(t, imageOf(t, layers...)), o)
	require.NoError(t, err)
	requireEmpty(t, o.Temp)
	return img
}

func digestOf(t testing.TB, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	require.NoError(t, err)
	return d.String()
}

func layersOf(t testing.TB, img v1.Image) []v1.Layer {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	return layers
}

// itemsOf reads a layer back.
func itemsOf(t testing.TB, l v1.Layer) (items []item) {
	t.Helper()
	r, err := l.Uncompressed()
	require.NoError(t, err)
	defer r.Close()
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return items
		}
		require.NoError(t, err)
		content, err := io.ReadAll(in)
		require.NoError(t, err)
		items = append(items, item{*h, string(content)})
	}
}

// requireWhole reads all of an image and checks every digest and size in it.
func requireWhole(t testing.TB, img v1.Image) {
	t.Helper()
	manifest, err := img.Manifest()
	require.NoError(t, err)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	raw, err := img.RawConfigFile()
	require.NoError(t, err)
	digest, size, err := v1.SHA256(bytes.NewReader(raw))
	require.NoError(t, err)
	require.Equal(t, manifest.Config.Digest, digest)
	require.Equal(t, manifest.Config.Size, size)
	layers := layersOf(t, img)
	require.Len(t, manifest.Layers, len(layers))
	require.Len(t, config.RootFS.DiffIDs, len(layers))
	for i, l := range layers {
		digest, size := sumOf(t, l.Compressed)
		require.Equal(t, manifest.Layers[i].Digest, digest)
		require.Equal(t, manifest.Layers[i].Size, size)
		diff, _ := sumOf(t, l.Uncompressed)
		require.Equal(t, config.RootFS.DiffIDs[i], diff)
	}
}

func sumOf(t testing.TB, open func() (io.ReadCloser, error)) (v1.Hash, int64) {
	t.Helper()
	r, err := open()
	require.NoError(t, err)
	defer r.Close()
	sum, size, err := v1.SHA256(r)
	require.NoError(t, err)
	return sum, size
}

func requireEmpty(t testing.TB, dir string) {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if path != dir {
			names = append(names, path)
		}
		return err
	}))
	require.Empty(t, names)
}
