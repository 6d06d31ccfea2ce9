package image

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBase keeps an image of a registry in a file, and reads it again.
func TestBase(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	img, err := random.Image(300, 2)
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	ref, err := name.NewDigest(strings.TrimPrefix(server.URL, "http://") + "/base@" + digest.String())
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))
	pull := func(ref name.Digest) (string, error) {
		var out bytes.Buffer
		if err := PullBase(t.Context(), ref, v1.Platform{OS: "linux", Architecture: "amd64"}, &out, nil); err != nil {
			return "", err
		}
		path := filepath.Join(t.TempDir(), "base.tar")
		return path, os.WriteFile(path, out.Bytes(), 0o644)
	}
	path, err := pull(ref)
	require.NoError(t, err)
	base, err := OpenBase(path, digest)
	require.NoError(t, err)
	assert.Equal(t, digest, base.Manifest())
	want, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, base.layers(), len(want))
	for i, l := range base.layers() {
		for _, read := range []func(v1.Layer) (io.ReadCloser, error){v1.Layer.Compressed, v1.Layer.Uncompressed} {
			assert.Equal(t, readAll(t, want[i], read), readAll(t, l, read))
		}
		diffID, err := l.DiffID()
		require.NoError(t, err)
		wanted, err := want[i].DiffID()
		require.NoError(t, err)
		assert.Equal(t, wanted, diffID)
		mediaType, err := l.MediaType()
		require.NoError(t, err)
		assert.Equal(t, types.OCILayer, mediaType, "what Docker's own type is called in an OCI manifest")
	}

	other := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	_, err = OpenBase(path, other)
	assert.ErrorContains(t, err, "has no blobs/sha256/0000")
	_, err = pull(ref.Context().Digest(other.String()))
	assert.ErrorIs(t, err, ErrNoImage)
}

func readAll(t *testing.T, l v1.Layer, open func(v1.Layer) (io.ReadCloser, error)) []byte {
	t.Helper()
	r, err := open(l)
	require.NoError(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	return data
}

// TestBaseOf takes the base with which most of an image is explained.
func TestBaseOf(t *testing.T) {
	var sums []v1.Hash
	for i := range 4 {
		sums = append(sums, v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%064d", i)})
	}
	short, long, tall := &Base{diffIDs: sums[:1]}, &Base{diffIDs: sums[:2]}, &Base{diffIDs: sums}
	other := &Base{diffIDs: sums[1:2]}
	all := []*Base{other, short, long, tall}
	assert.Same(t, long, baseOf(all, sums[:3]))
	assert.Same(t, tall, baseOf(all, sums))
	assert.Nil(t, baseOf(all, nil))
	assert.Nil(t, baseOf([]*Base{other}, sums))
	assert.Empty(t, baseOf(nil, sums).layers())
}
