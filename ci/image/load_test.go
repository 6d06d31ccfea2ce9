package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// These tests need a Docker Engine. They never start a container.

// A loader is what a test needs to load images that no other test has.
type loader struct {
	*daemon.Client
	tag     string
	options Options
	ids     map[string]bool // of all images that were loaded
	dir     cache.Dir       // with the records of them
}

func newLoader(t testing.TB) *loader {
	t.Helper()
	l := &loader{dockertest.Connect(t), dockertest.Name(t) + ":latest", options(t), map[string]bool{}, dockertest.Cache(t)}
	l.options.Labels = map[string]string{daemon.LabelRole: "test", daemon.LabelInputs: rand.Text()}
	t.Cleanup(func() {
		l.remove(t, l.tag)
		for id := range l.ids {
			l.remove(t, id)
		}
	})
	return l
}

func (l *loader) remove(t testing.TB, ref string) {
	if err := l.RemoveImage(context.Background(), ref); err != nil {
		assert.ErrorIs(t, err, daemon.ErrNotFound)
	}
}

// build makes an image of layers whose files nobody else has.
func (l *loader) build(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	return canonicalOf(t, l.options, layers...)
}

func (l *loader) load(t testing.TB, img v1.Image) daemon.Image {
	t.Helper()
	id, err := Load(t.Context(), l.Client, l.dir, img, l.tag, "")
	require.NoError(t, err)
	l.ids[id] = true
	require.NoError(t, owned.RemoveUntaggedImages(t.Context(), l.dir, l.Client))
	have, err := l.Image(t.Context(), l.tag)
	require.NoError(t, err)
	assert.Equal(t, id, have.ID)
	return have
}

func (l *loader) gone(t testing.TB, ref string) {
	t.Helper()
	_, err := l.Image(t.Context(), ref)
	assert.ErrorIs(t, err, daemon.ErrNotFound)
}

// files is a layer that no daemon has yet.
func files(t testing.TB, items ...item) []byte {
	return tarOf(t, append(items, regular("unique", rand.Text()))...)
}

// classic skips a test where the daemon's image store isn't the classic one.
func classic(t *testing.T, have daemon.Image, img v1.Image) {
	t.Helper()
	config, err := img.ConfigName()
	require.NoError(t, err)
	if have.ID != config.String() {
		testenv.Skip(t, testenv.ClassicStore, "this daemon keeps images in containerd's, which wants every layer each time")
	}
}

func TestLoad(t *testing.T) {
	l := newLoader(t)
	img := l.build(t, files(t, append(everything()[:len(everything())-1], folder("./"))...), files(t))
	have := l.load(t, img)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	var layers []string
	for _, d := range config.RootFS.DiffIDs {
		layers = append(layers, d.String())
	}
	assert.Equal(t, layers, have.Layers)
	assert.Equal(t, []string{l.tag}, have.Tags)
	assert.Equal(t, l.options.Labels[daemon.LabelInputs], have.Labels[daemon.LabelInputs])
	assert.Equal(t, have, l.load(t, img), "to load it again changes nothing")
	classic(t, have, img)
}

func TestLoadSendsChangedLayersOnly(t *testing.T) {
	l := newLoader(t)
	base, last := files(t, regular("big", rand.Text())), files(t)
	first := l.build(t, base, last)
	have := l.load(t, first)
	classic(t, have, first)

	second := l.build(t, base, files(t))
	// The lower layer can't be sent any more: its file is gone.
	digest, err := layersOf(t, second)[0].Digest()
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(l.options.Cache, digest.Hex)))
	now := l.load(t, second)
	assert.Equal(t, have.Layers[0], now.Layers[0])
	assert.NotEqual(t, have.Layers[1], now.Layers[1])
	l.gone(t, have.ID)
}

func TestLoadKeepsImagesInUse(t *testing.T) {
	base := func(t *testing.T) []byte { return files(t) }
	t.Run("by another tag", func(t *testing.T) {
		l := newLoader(t)
		old := l.load(t, l.build(t, base(t)))
		other := dockertest.Name(t) + ":other"
		require.NoError(t, l.Tag(t.Context(), old.ID, other))
		t.Cleanup(func() { l.remove(t, other) })
		l.load(t, l.build(t, base(t)))
		have, err := l.Image(t.Context(), other)
		require.NoError(t, err)
		assert.Equal(t, old.ID, have.ID)
	})
	t.Run("by a container", func(t *testing.T) {
		l := newLoader(t)
		old := l.load(t, l.build(t, base(t)))
		container, err := l.Create(t.Context(), daemon.Container{
			Name: dockertest.Name(t), Image: old.ID, Command: []string{"never"}, Labels: map[string]string{daemon.LabelRole: "test"},
		})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, l.Remove(context.Background(), container)) })
		l.load(t, l.build(t, base(t)))
		_, err = l.Image(t.Context(), old.ID)
		assert.NoError(t, err)
	})
	t.Run("of another user", func(t *testing.T) {
		l := newLoader(t)
		old := l.load(t, l.build(t, base(t)))
		l.load(t, l.build(t, base(t)))
		l.gone(t, old.ID)
		old = l.load(t, l.build(t, base(t)))
		l.dir = cache.Dir(t.TempDir()) // without records
		l.load(t, l.build(t, base(t)))
		_, err := l.Image(t.Context(), old.ID)
		assert.NoError(t, err)
	})
	t.Run("untagged, derived from ours", func(t *testing.T) {
		l := newLoader(t)
		ours := l.load(t, l.build(t, base(t)))
		container, err := l.Create(t.Context(), daemon.Container{
			Name: dockertest.Name(t), Image: ours.ID, Command: []string{"never"}, Labels: map[string]string{daemon.LabelRole: "test"},
		})
		require.NoError(t, err)
		out, err := exec.Command("docker", "commit", container).Output()
		require.NoError(t, err)
		require.NoError(t, l.Remove(t.Context(), container))
		derived := strings.TrimSpace(string(out))
		t.Cleanup(func() { l.remove(t, derived) }) // before what it is derived from
		have, err := l.Image(t.Context(), derived)
		require.NoError(t, err)
		require.Empty(t, have.Tags)
		require.Equal(t, ours.Labels, have.Labels)
		l.load(t, l.build(t, base(t)))
		_, err = l.Image(t.Context(), derived)
		assert.NoError(t, err, "an image that somebody committed was removed")
	})
}

// A daemon that doesn't have what it seemed to have gets every layer.
func TestThinArchiveIsRefusedWhereLayersAreMissing(t *testing.T) {
	l := newLoader(t)
	img := l.build(t, files(t), files(t))
	require.Error(t, load(t.Context(), l.Client, img, l.tag, 1))
	l.gone(t, l.tag)
	l.load(t, img)
}

func TestInterruptedLoadKeepsTheOldImage(t *testing.T) {
	l := newLoader(t)
	img := l.build(t, files(t))
	old := l.load(t, img)

	noise := make([]byte, 8<<20)
	rand.Read(noise)
	next := l.build(t, files(t, regular("noise", string(noise))))
	config, err := next.ConfigName()
	require.NoError(t, err)
	l.ids[config.String()] = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stopping, err := mutate.AppendLayers(img, &stopAt{Layer: layersOf(t, next)[0], left: 4 << 20, stop: cancel})
	require.NoError(t, err)
	_, err = Load(ctx, l.Client, l.dir, stopping, l.tag, "")
	require.ErrorIs(t, err, context.Canceled)

	have, err := l.Image(t.Context(), l.tag)
	require.NoError(t, err)
	assert.Equal(t, old, have)
	l.load(t, next) // and the next one works
}

// stopAt calls stop in the middle of being read.
type stopAt struct {
	v1.Layer
	left int64
	stop func()
}

func (s *stopAt) Compressed() (io.ReadCloser, error) {
	r, err := s.Layer.Compressed()
	if err != nil {
		return nil, err
	}
	return &stoppingReader{r, s}, nil
}

type stoppingReader struct {
	io.ReadCloser
	at *stopAt
}

func (r *stoppingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if atomic.AddInt64(&r.at.left, -int64(n)) <= 0 {
		r.at.stop()
	}
	return n, err
}

func TestDamagedLayerIsNotLoaded(t *testing.T) {
	l := newLoader(t)
	base, layer := files(t), files(t)
	old := l.load(t, l.build(t, base))
	img := l.build(t, base, layer)
	digest, err := layersOf(t, img)[1].Digest()
	require.NoError(t, err)
	require.NoError(t, flip(filepath.Join(l.options.Cache, digest.Hex)))
	_, err = Load(t.Context(), l.Client, l.dir, img, l.tag, "")
	require.ErrorIs(t, err, ErrDamaged)
	assert.ErrorContains(t, err, "had another content", "not tried a second time, when the file is gone")
	have, err := l.Image(t.Context(), l.tag)
	require.NoError(t, err)
	assert.Equal(t, old, have)
	l.load(t, l.build(t, base, layer))
}

func TestThinArchive(t *testing.T) {
	img := canonicalOf(t, options(t), tarOf(t, regular("a", "a")), tarOf(t, regular("b", "b")))
	var names [3][]string
	for known := range names {
		var b bytes.Buffer
		require.NoError(t, writeDockerArchive(&b, img, "x:y", known))
		in := tar.NewReader(&b)
		for {
			h, err := in.Next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			names[known] = append(names[known], h.Name)
		}
	}
	require.Len(t, names[0], 4) // two layers, the configuration and the manifest
	assert.Equal(t, names[0][1:], names[1])
	assert.Equal(t, names[0][2:], names[2])
}

// BenchmarkLoad replaces the last, small layer of an image whose lower one has
// 64 MiB, as a build does after a change of the last step.
func BenchmarkLoad(b *testing.B) {
	noise := make([]byte, 64<<20)
	rand.Read(noise)
	for _, c := range []struct {
		name string
		base func() []byte
	}{
		{"last layer changed", func() func() []byte {
			base := files(b, regular("noise", string(noise)))
			return func() []byte { return base }
		}()},
		{"every layer changed", func() []byte { return files(b, regular("noise", string(noise))) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := newLoader(b)
			l.load(b, l.build(b, c.base(), files(b)))
			for b.Loop() {
				b.StopTimer()
				img := l.build(b, c.base(), files(b))
				b.StartTimer()
				l.load(b, img)
			}
		})
	}
}

// TestSeal derives images from a sealed one in every way that changes no file, and
// some: all of them inherit its labels, and none passes for it.
func TestSeal(t *testing.T) {
	l := newLoader(t)
	l.options.Seal = true
	img := l.build(t, files(t))
	have := l.load(t, img)
	require.True(t, Sealed(have))
	digest, err := img.Digest()
	require.NoError(t, err)
	classic(t, have, img)
	assert.Equal(t, digest.String(), SealedDigest(have))

	for name, change := range map[string][]string{
		"nothing":     nil,
		"environment": {"--change=ENV A=b"},
		"command":     {"--change=CMD [\"x\"]"},
		"user":        {"--change=USER 7"},
		"folder":      {"--change=WORKDIR /x"},
		"label":       {"--change=LABEL a=b"},
		"its own":     {"--change=LABEL " + labelManifest + "=00000001"},
	} {
		container, err := l.Create(t.Context(), daemon.Container{Name: dockertest.Name(t), Image: have.ID, Command: []string{"never"}})
		require.NoError(t, err)
		out, err := exec.Command("docker", slices.Concat([]string{"commit"}, change, []string{container})...).Output()
		require.NoError(t, l.Remove(t.Context(), container))
		require.NoError(t, err)
		derived := strings.TrimSpace(string(out))
		t.Cleanup(func() { l.remove(t, derived) })
		i, err := l.Image(t.Context(), derived)
		require.NoError(t, err)
		assert.NotEmpty(t, i.Labels[labelSeal], name)
		assert.False(t, Sealed(i), name)
	}
}

// TestRemoveImages removes what belongs to one thing, but for the image to keep, and no
// name that somebody else gave.
func TestRemoveImages(t *testing.T) {
	l := newLoader(t)
	repository := dockertest.Name(t)
	tag := func(version string) string { return repository + ":" + version }
	for version, to := range map[string]string{"1": "thing", "2": "thing", "3": "other"} {
		id, err := Load(t.Context(), l.Client, l.dir, l.build(t, files(t)), tag(version), to)
		require.NoError(t, err)
		l.ids[id] = true
		t.Cleanup(func() { l.remove(t, tag(version)) })
	}
	require.Len(t, l.ids, 3)
	foreign := dockertest.Name(t) + ":latest"
	require.NoError(t, l.Tag(t.Context(), tag("1"), foreign))
	t.Cleanup(func() { l.remove(t, foreign) })
	stays := func(ref string) {
		_, err := l.Image(t.Context(), ref)
		assert.NoError(t, err)
	}

	require.NoError(t, owned.RemoveImages(t.Context(), l.dir, l.Client, "thing", repository, tag("2")))
	l.gone(t, tag("1"))
	stays(foreign)
	stays(tag("2"))
	stays(tag("3"))
	require.NoError(t, owned.RemoveImages(t.Context(), l.dir, l.Client, "thing", repository, ""))
	l.gone(t, tag("2"))
	stays(tag("3"))
}
