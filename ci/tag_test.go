package ci

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/usage"
)

func TestCheckTag(t *testing.T) {
	for typed, want := range map[string]string{
		"35":                         "35:latest",
		"demo":                       "demo:latest",
		"demo:1.0":                   "demo:1.0",
		"team/demo:x":                "team/demo:x",
		"localhost:5000/demo":        "localhost:5000/demo:latest",
		"docker.io/library/demo:1":   "demo:1",
		"example.com/a/b__c/d-e.f:X": "example.com/a/b__c/d-e.f:X",
	} {
		have, err := checkTag(typed)
		require.NoError(t, err, typed)
		assert.Equal(t, want, have)
	}
	for _, typed := range []string{
		"a b", "Upper", "a:b:c", "a:", ":a", "a//b", "../a", "-a", "a:-b", "-",
		"1234567890123456789012345678901234567890123456789012345678901234",
		"demo@sha256:1234567890123456789012345678901234567890123456789012345678901234",
		"demo:1@sha256:1234567890123456789012345678901234567890123456789012345678901234",
	} {
		_, err := checkTag(typed)
		require.ErrorIs(t, err, usage.Err, typed)
		assert.Equal(t, ExitUsage, ExitCode(err))
		assert.Contains(t, err.Error(), "-t: usage: ")
	}
}

// TestTagLikeAnID gives an image that is there already a tag that is the beginning
// of its own ID. Docker takes such a word for the image.
func TestTagLikeAnID(t *testing.T) {
	docker := dockertest.Connect(t)
	dockertest.Cache(t)
	t.Setenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "unix:///nowhere") // nothing is to be built
	p := checkout(t, 0o022)
	appendTo(t, p, p.Dockerfile, "# "+dockertest.Name(t)+"\n") // inputs that no other image has
	in, err := ReadInputs(p)
	require.NoError(t, err)

	dir := t.TempDir()
	layer := static.NewLayer([]byte(strings.Repeat("\x00", 1024)), types.OCIUncompressedLayer) // a tar without files
	diffID, err := layer.DiffID()
	require.NoError(t, err)
	made, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	require.NoError(t, err)
	made, err = mutate.ConfigFile(made, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
	})
	require.NoError(t, err)
	require.NoError(t, image.WriteArchive(filepath.Join(dir, "export.tar"), made, "export"))
	o := image.Options{Epoch: in.Epoch, Labels: in.labels(), Seal: true, Cache: filepath.Join(dir, "layers"), Temp: dir}
	sealed, err := image.Canonical(t.Context(), filepath.Join(dir, "export.tar"), o)
	require.NoError(t, err)
	id, err := image.Load(t.Context(), docker, dockertest.Cache(t), sealed, newTag(t, docker), "")
	require.NoError(t, err)

	_, digits, _ := strings.Cut(id, ":")
	tag := digits[:6]
	t.Cleanup(func() { docker.RemoveImage(context.Background(), tag+":latest") })
	result, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.NoError(t, err)
	assert.True(t, result.Cached)
	assert.Equal(t, tag+":latest", result.Image)
	have, err := docker.Image(t.Context(), id)
	require.NoError(t, err)
	assert.Contains(t, have.Tags, tag+":latest")
}

// What checkTag returns it takes again, and so does the library that writes images.
func FuzzCheckTag(f *testing.F) {
	for _, typed := range []string{
		"35", "a:1", "localhost:5000/a", "[::1]:5000/a", "A/b", "docker.io/a", "index.docker.io/library/a", "a@sha256:00", "a b",
	} {
		f.Add(typed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		tag, err := checkTag(typed)
		if err != nil {
			assert.ErrorIs(t, err, usage.Err)
			return
		}
		again, err := checkTag(tag)
		require.NoError(t, err)
		assert.Equal(t, tag, again)
		ref, err := name.NewTag(tag)
		require.NoError(t, err)
		assert.NotEmpty(t, ref.TagStr())
	})
}
