package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
)

// A layer is a canonical layer in a file of the cache. It implements v1.Layer.
type layer struct {
	Sum   v1.Hash `json:"digest"`
	Diff  v1.Hash `json:"diffID"`
	Bytes int64   `json:"size"`
	path  string
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)            { return l.Sum, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.Diff, nil }
func (l *layer) Size() (int64, error)                { return l.Bytes, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// ErrDamaged is in the chain of the error about a layer whose file in the cache
// isn't what was written there, or is gone. The next Canonical makes it again.
var ErrDamaged = errors.New("a cached layer is damaged. Build again")

// Compressed returns the layer as it is stored. A read past the last byte
// fails if the file was damaged; it is removed then, so that the next build
// makes it again.
func (l *layer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	} else if err != nil {
		return nil, err
	}
	return &checkedFile{file: f, sum: sha256.New(), want: l.Sum}, nil
}

func (l *layer) Uncompressed() (io.ReadCloser, error) {
	f, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// Check reads the layers of an image as they are stored. Its error wraps ErrDamaged if one
// isn't what was written.
func Check(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	var errs []error // all of them, so that the next Canonical makes each again
	for _, l := range layers {
		r, err := l.Compressed()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// A checkedFile has Read and Close alone: through the file's other methods its
// content would pass the check by (net/http sends files that can seek by sendfile).
type checkedFile struct {
	file *os.File
	sum  hash.Hash
	want v1.Hash
}

func (c *checkedFile) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.sum.Write(p[:n])
	if err == io.EOF && hashOf(c.sum) != c.want {
		os.Remove(c.file.Name())
		return n, fmt.Errorf("%w: %s had another content and was removed", ErrDamaged, c.file.Name())
	}
	return n, err
}

func (c *checkedFile) Close() error { return c.file.Close() }

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// A counter counts the bytes written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// A contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
