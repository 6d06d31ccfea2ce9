// Package image treats OCI images as values: it makes them canonical, so that
// their digest depends on their files and configuration alone, compares them,
// hands them to Docker, a file or a registry, and takes them from registries. It builds
// nothing and knows neither Dagger nor packages.
package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
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
const Recipe = "2"

// Options says how an image is made canonical.
type Options struct {
	Epoch  time.Time         // of every file (but see Undated), of the configuration and its history
	Labels map[string]string // added to the configuration
	Seal   bool              // add the labels that Sealed looks at
	Cache  string            // folder of canonical layers, made if missing
	Temp   string            // folder for temporary files, on Cache's file system; the caller removes it
	Bases  []*Base           // images that this one may begin with: their layers stay as their registries have them
}

// Canonical returns the image in an archive (an OCI image layout in a tar, as
// Dagger exports it), rewritten so that its bytes depend on its files and
// configuration only: all times are the epoch (or Undated), owners are numbers, entries
// are sorted, of hard links the first by name has the content, layers are
// compressed by a compressor that go.mod pins. Layers whose source is in the
// cache already are not read. The layers of the base that the image begins with
// aren't rewritten: they are taken from the base, byte for byte.
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
	layers := make([]v1.Layer, len(source.manifest.Layers))
	below := copy(layers, baseOf(o.Bases, source.config.RootFS.DiffIDs).layers())
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i, d := range source.manifest.Layers {
		if i < below {
			continue
		}
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

func assemble(source *archive, layers []v1.Layer, o Options) (v1.Image, error) {
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
		mediaType, err := l.MediaType()
		if err != nil {
			return nil, err
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: h, MediaType: mediaType}); err != nil {
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
	if err := writeEntries(ctx, io.MultiWriter(zip, diff), spool, entries, timeOf(entries, o.Epoch)); err != nil {
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
