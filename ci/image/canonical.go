// Package image treats OCI images as values: it makes them canonical, so that
// their digest depends on their files and configuration alone, compares them,
// and hands them to Docker or a file. It builds nothing and knows neither Dagger
// nor packages.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/internal/cache"
)

// Recipe names the way in which images are made canonical. It changes whenever
// the same image would come out with other bytes.
const Recipe = "1"

// Options says how an image is made canonical.
type Options struct {
	Epoch  time.Time         // of every file, of the configuration and its history
	Labels map[string]string // added to the configuration
	Seal   bool              // add the labels that Sealed looks at
	Cache  string            // folder of canonical layers, made if missing
	Temp   string            // folder for temporary files, on Cache's file system; the caller removes it
}

// Canonical returns the image in an archive (an OCI image layout in a tar, as
// Dagger exports it), rewritten so that its bytes depend on its files and
// configuration only: all times are the epoch, owners are numbers, entries are
// sorted, of hard links the first by name has the content, layers are
// compressed by a compressor that go.mod pins. Layers whose source is in the
// cache already are not read.
func Canonical(ctx context.Context, archive string, o Options) (v1.Image, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := canonical(ctx, f, o)
	if err != nil {
		return nil, fmt.Errorf("making the image in %s canonical: %w", archive, err)
	}
	return img, nil
}

func canonical(ctx context.Context, f *os.File, o Options) (v1.Image, error) {
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return nil, err
	}
	source, err := openArchive(f)
	if err != nil {
		return nil, err
	}
	layers := make([]*layer, len(source.manifest.Layers))
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i, d := range source.manifest.Layers {
		work.Go(func() (err error) {
			layers[i], err = canonicalLayer(workCtx, source, d, o)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return assemble(source, layers, o)
}

func assemble(source *archive, layers []*layer, o Options) (v1.Image, error) {
	at := v1.Time{Time: o.Epoch.UTC()}
	var notes []string
	for _, h := range source.config.History {
		if !h.EmptyLayer {
			notes = append(notes, h.CreatedBy)
		}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, l := range layers {
		h := v1.History{Created: at}
		if len(notes) == len(layers) {
			h.CreatedBy = notes[i]
		}
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: h, MediaType: types.OCILayer}); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created, config.Architecture, config.OS, config.Variant = at, source.config.Architecture, source.config.OS, source.config.Variant
	config.Config = source.config.Config
	config.Config.Hostname = "" // of the container that built it
	if len(o.Labels) > 0 {
		if config.Config.Labels == nil {
			config.Config.Labels = map[string]string{}
		}
		maps.Copy(config.Config.Labels, o.Labels)
	}
	if img, err = mutate.ConfigFile(img, config); err != nil || !o.Seal {
		return img, err
	}
	return seal(img)
}

// An archive is an image layout in a tar, of which only the small parts were read.
type archive struct {
	file     *os.File
	entries  map[string]*io.SectionReader
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
	a.manifest, err = parseBlob(a, top.Manifests[0].Digest, v1.ParseManifest)
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

// canonicalLayer returns the canonical form of a layer, from the cache if it is
// there.
func canonicalLayer(ctx context.Context, source *archive, d v1.Descriptor, o Options) (*layer, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", Recipe, d.Digest, o.Epoch.Unix()))
	record := filepath.Join(o.Cache, hex.EncodeToString(key[:])+".json")
	if l := cachedLayer(record, o.Cache); l != nil {
		return l, nil
	}
	blob, ok := source.entries[blobName(d.Digest)]
	if !ok {
		return nil, fmt.Errorf("the archive has no %s", blobName(d.Digest))
	}
	l, err := rewrite(ctx, blob, d.Digest, o)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return l, cache.WriteRecord(record, l)
}

func cachedLayer(record, dir string) *layer {
	l := &layer{}
	if !cache.ReadRecord(record, l) {
		return nil
	}
	l.path = filepath.Join(dir, l.Sum.Hex)
	// A wrong content shows when it is read: Compressed checks the digest.
	if info, err := os.Stat(l.path); err != nil || info.Size() != l.Bytes {
		return nil
	}
	cache.Use(record)
	cache.Use(l.path)
	return l
}

// rewrite writes the canonical form of a layer to the cache.
func rewrite(ctx context.Context, blob *io.SectionReader, digest v1.Hash, o Options) (*layer, error) {
	spool, err := os.CreateTemp(o.Temp, "layer-*.tar")
	if err != nil {
		return nil, err
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	if err := decompress(ctx, spool, blob, digest); err != nil {
		return nil, err
	}
	entries, err := readEntries(spool)
	if err != nil {
		return nil, err
	}

	out, err := os.CreateTemp(o.Temp, "layer-*.tar.gz")
	if err != nil {
		return nil, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	sum, diff, size := sha256.New(), sha256.New(), &counter{}
	zip, err := gzip.NewWriterLevel(io.MultiWriter(out, sum, size), gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := writeEntries(ctx, io.MultiWriter(zip, diff), spool, entries, o.Epoch); err != nil {
		return nil, err
	}
	if err := errors.Join(zip.Close(), out.Sync(), out.Close()); err != nil {
		return nil, err
	}
	l := &layer{Sum: hashOf(sum), Diff: hashOf(diff), Bytes: size.n}
	l.path = filepath.Join(o.Cache, l.Sum.Hex)
	return l, errors.Join(os.Rename(out.Name(), l.path), cache.Sync(o.Cache))
}

// decompress writes a layer's tar to spool and checks the blob's digest.
func decompress(ctx context.Context, spool io.Writer, blob *io.SectionReader, digest v1.Hash) error {
	sum := sha256.New()
	raw := io.TeeReader(&contextReader{ctx, io.NewSectionReader(blob, 0, blob.Size())}, sum)
	magic := make([]byte, 4)
	blob.ReadAt(magic, 0)
	plain := raw
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return err
		}
		plain = z
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(raw)
		if err != nil {
			return err
		}
		defer z.Close()
		plain = z
	}
	if _, err := io.Copy(spool, plain); err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return err
	}
	if hashOf(sum) != digest {
		return fmt.Errorf("its content isn't what its name promises")
	}
	return nil
}

// An entry is one entry of a layer, and where its content lies in the spooled tar.
type entry struct {
	header *tar.Header
	offset int64
}

// readEntries lists a layer's entries, sorted by name, with hard links turned
// so that of the names of one file the first has the content.
func readEntries(spool *os.File) ([]entry, error) {
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	byName := map[string]*entry{}
	r := tar.NewReader(spool)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading its tar: %w", err)
		}
		offset, err := spool.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if err := checkEntry(h); err != nil {
			return nil, err
		}
		name := entryName(h.Name)
		if byName[name] != nil {
			return nil, fmt.Errorf("it has %s twice", h.Name)
		}
		h.Name = name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = entryName(h.Linkname)
		}
		byName[name] = &entry{h, offset}
	}
	names := slices.Sorted(maps.Keys(byName))
	first := map[*entry]string{} // name under which a file's content was listed
	entries := make([]entry, 0, len(names))
	for _, name := range names {
		file := byName[name]
		for hops := 0; file != nil && file.header.Typeflag == tar.TypeLink; hops++ {
			if hops > len(names) {
				return nil, fmt.Errorf("its hard link %s leads to itself", name)
			}
			file = byName[file.header.Linkname]
		}
		if file != byName[name] && file != nil && file.header.Typeflag == tar.TypeDir {
			return nil, fmt.Errorf("its hard link %s leads to the folder %s", name, file.header.Name)
		}
		if file == nil { // a link to a file of a lower layer
			entries = append(entries, *byName[name])
			continue
		}
		h := *file.header
		if content, listed := first[file]; listed {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, content, 0
		} else {
			first[file] = name
		}
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		entries = append(entries, entry{&h, file.offset})
	}
	return entries, nil
}

// checkEntry refuses what can't be carried over as it is: names that lead out
// of the image, and entries whose content isn't stored as one piece.
func checkEntry(h *tar.Header) error {
	names := []string{h.Name}
	if h.Typeflag == tar.TypeLink { // a symbolic link is followed in the container only
		names = append(names, h.Linkname)
	}
	for _, name := range names {
		if slices.Contains(strings.Split(name, "/"), "..") {
			return fmt.Errorf("its entry %s leads out of the image, to %s", h.Name, name)
		}
	}
	sparse := h.Typeflag == tar.TypeGNUSparse
	for k := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
	}
	if sparse {
		return fmt.Errorf("its entry %s is a sparse file, which image layers can't have", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo:
		return nil
	default:
		return fmt.Errorf("its entry %s is of type %q, which image layers can't have", h.Name, h.Typeflag)
	}
}

// writeEntries writes a tar with the entries' contents from spool.
func writeEntries(ctx context.Context, w io.Writer, spool *os.File, entries []entry, epoch time.Time) error {
	out := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: e.header.Typeflag, Name: e.header.Name, Linkname: e.header.Linkname, Size: e.header.Size,
			Mode: e.header.Mode & 0o7777, Uid: e.header.Uid, Gid: e.header.Gid, ModTime: epoch,
			Devmajor: e.header.Devmajor, Devminor: e.header.Devminor, PAXRecords: xattrs(e.header),
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		if _, err := io.Copy(out, &contextReader{ctx, io.NewSectionReader(spool, e.offset, h.Size)}); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return out.Close()
}

// xattrPrefix begins the PAX records that hold extended attributes.
const xattrPrefix = "SCHILY.xattr."

func entryName(name string) string {
	return strings.TrimPrefix(filepath.ToSlash(filepath.Clean("/"+name)), "/")
}
