package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDiffNamesLayerFileAndKind(t *testing.T) {
	file := func() item { return regular("etc/stamp", "one") }
	for kind, c := range map[string]struct {
		a, b item
		want Difference
	}{
		"content": {file(), regular("etc/stamp", "two"),
			Difference{A: "3 bytes sha256:7692c3ad3540", B: "3 bytes sha256:3fc4ccfe7458"}},
		"mode":  {file(), file().with(func(h *tar.Header) { h.Mode = 0o4755 }), Difference{A: "0644", B: "04755"}},
		"owner": {file(), file().with(func(h *tar.Header) { h.Uid, h.Gid = 1, 2 }), Difference{A: "0:0", B: "1:2"}},
		"time": {file(), file().with(func(h *tar.Header) { h.ModTime = epoch }),
			Difference{A: "2031-02-03 12:00:00 +0000 UTC", B: "2023-11-14 22:13:20 +0000 UTC"}},
		"link": {link(tar.TypeSymlink, "etc/stamp", "a"), link(tar.TypeSymlink, "etc/stamp", "b"), Difference{A: "a", B: "b"}},
		"device": {item{Header: tar.Header{Name: "etc/stamp", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
			item{Header: tar.Header{Name: "etc/stamp", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}, Difference{A: "1,3", B: "1,5"}},
		"attributes": {file(), file().with(func(h *tar.Header) { h.PAXRecords = map[string]string{xattrPrefix + "user.a": "b"} }),
			Difference{A: "map[]", B: "map[SCHILY.xattr.user.a:b]"}},
		"type": {regular("etc/stamp", "").with(func(h *tar.Header) { h.Mode = 0o644 }),
			item{Header: tar.Header{Name: "etc/stamp", Typeflag: tar.TypeFifo, Mode: 0o644, ModTime: noon}}, Difference{A: "0", B: "6"}},
		"missing": {file(), regular("etc/other", ""), Difference{A: "there", B: "not there"}},
	} {
		t.Run(kind, func(t *testing.T) {
			same := tarOf(t, regular("same", "same"))
			a := imageOf(t, same, tarOf(t, folder("etc/"), c.a))
			b := imageOf(t, same, tarOf(t, folder("etc/"), c.b))
			got, err := Diff(t.Context(), a, b)
			require.NoError(t, err)
			c.want.Layer, c.want.Path, c.want.Kind = 1, "etc/stamp", kind
			want := []Difference{c.want}
			if kind == "missing" {
				want = []Difference{{1, "etc/other", kind, "not there", "there"}, c.want}
			}
			assert.Equal(t, want, got)
			assert.Contains(t, got[len(got)-1].String(), "layer 1: /etc/stamp: "+kind+" differs: ")
		})
	}
}

func TestDiffOfEqualImages(t *testing.T) {
	layer := tarOf(t, everything()...)
	got, err := Diff(t.Context(), imageOf(t, layer), imageOf(t, layer))
	require.NoError(t, err)
	assert.Empty(t, got)
	// Canonical images of different sources too, each in a cache of its own.
	got, err = Diff(t.Context(), canonicalOf(t, options(t), layer), canonicalOf(t, options(t), gzipped(t, layer)))
	require.NoError(t, err)
	assert.Empty(t, got)
}

func TestDiffIsNeverEmptyForOtherBytes(t *testing.T) {
	a, b := regular("a", "a"), regular("b", "b")
	plain := tarOf(t, a, b)
	for name, other := range map[string][]byte{
		"order":      tarOf(t, b, a),
		"tar format": tarOf(t, a.with(func(h *tar.Header) { h.Format = tar.FormatGNU }), b),
	} {
		got, err := Diff(t.Context(), imageOf(t, plain), imageOf(t, other))
		require.NoError(t, err)
		require.Len(t, got, 1, name)
		assert.Equal(t, "encoding", got[0].Kind, name)
		assert.Contains(t, got[0].String(), "layer 0: encoding differs: sha256:")
	}
	// The same tar, compressed differently.
	o := options(t)
	img := canonicalOf(t, o, plain)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	other, err := mutate.ConfigFile(imageOf(t, uncompressed(t, layersOf(t, img)[0])), config)
	require.NoError(t, err)
	got, err := Diff(t.Context(), img, other)
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, "encoding", got[0].Kind)
}

func uncompressed(t *testing.T, l v1.Layer) []byte {
	t.Helper()
	var items []item
	for _, i := range itemsOf(t, l) {
		items = append(items, item{i.Header, i.content})
	}
	return tarOf(t, items...)
}

func TestDiffOfConfigurations(t *testing.T) {
	layer := tarOf(t, regular("a", "a"))
	a := imageOf(t, layer)
	config, err := a.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.Created = v1.Time{Time: epoch}
	config.Config.User = "1"
	b, err := mutate.ConfigFile(a, config)
	require.NoError(t, err)
	got, err := Diff(t.Context(), a, b)
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, "configuration: config: value differs: ", got[0].String()[:len("configuration: config: value differs: ")])
	assert.Contains(t, got[0].B, `"User":"1"`)
	assert.NotContains(t, got[0].A, `"User"`)
	assert.Equal(t, Difference{-1, "created", "value", `"2031-02-03T12:00:00.123456789Z"`, `"2023-11-14T22:13:20Z"`}, got[1])
}

func TestDiffOfLayerCounts(t *testing.T) {
	layer := tarOf(t, regular("a", "a"))
	got, err := Diff(t.Context(), imageOf(t, layer), imageOf(t, layer, layer))
	require.NoError(t, err)
	assert.Contains(t, got, Difference{-1, "rootfs", "layers", "1", "2"})
}

// claiming returns an image of the layers of one, with a configuration that is of another.
func claiming(t *testing.T, img v1.Image, config *v1.ConfigFile) v1.Image {
	t.Helper()
	text, err := json.Marshal(config)
	require.NoError(t, err)
	manifest, err := img.Manifest()
	require.NoError(t, err)
	manifest = manifest.DeepCopy()
	manifest.Config.Digest, manifest.Config.Size, err = v1.SHA256(bytes.NewReader(text))
	require.NoError(t, err)
	return asPushed{img, text, manifest}
}

// asPushed is an image as somebody's own client pushes it.
type asPushed struct {
	v1.Image
	config   []byte
	manifest *v1.Manifest
}

func (i asPushed) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(i) }
func (i asPushed) RawConfigFile() ([]byte, error)      { return i.config, nil }
func (i asPushed) ConfigName() (v1.Hash, error)        { return i.manifest.Config.Digest, nil }
func (i asPushed) Manifest() (*v1.Manifest, error)     { return i.manifest, nil }
func (i asPushed) RawManifest() ([]byte, error)        { return json.Marshal(i.manifest) }
func (i asPushed) Digest() (v1.Hash, error)            { return partial.Digest(i) }
func (i asPushed) Size() (int64, error)                { return partial.Size(i) }

// TestDiffOfContradictions is with images of a registry, which anybody may have made.
func TestDiffOfContradictions(t *testing.T) {
	one, two := tarOf(t, regular("a", "a")), tarOf(t, regular("b", "b"))
	ours := imageOf(t, one, two)
	config, err := ours.ConfigFile()
	require.NoError(t, err)
	ids := config.RootFS.DiffIDs
	short := config.DeepCopy()
	short.RootFS.DiffIDs = ids[:1]
	for name, c := range map[string]struct {
		theirs v1.Image
		want   Difference
	}{
		"fewer layers than diff IDs": {claiming(t, imageOf(t, one), config), Difference{-1, "rootfs", "layers", "2", "1"}},
		"more layers than diff IDs":  {claiming(t, imageOf(t, one, two, two), config), Difference{-1, "rootfs", "layers", "2", "3"}},
		"fewer diff IDs than layers": {claiming(t, ours, short),
			Difference{-1, "rootfs", "value", fmt.Sprintf("[%s %s]", ids[0], ids[1]), fmt.Sprintf("[%s]", ids[0])}},
		"diff IDs of another layer": {claiming(t, imageOf(t, one, tarOf(t, regular("b", "c"))), config),
			Difference{1, "b", "content", "1 bytes sha256:3e23e8160039", "1 bytes sha256:2e7d2c03a950"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, repository := inProcess(t, true)
			require.NoError(t, Push(t.Context(), repository, c.theirs, []string{"theirs"}, nil, nil))
			theirs, err := Pull(t.Context(), repository.Tag("theirs"))
			require.NoError(t, err)
			got, err := Diff(t.Context(), ours, theirs)
			require.NoError(t, err)
			assert.Equal(t, []Difference{c.want}, got)
		})
	}
}

// Names of a stranger's files can't rub out lines of a terminal.
func TestDiffIsShownOnOneLine(t *testing.T) {
	name := "etc/\x1b[2K\r\n\u202e\x9bx"
	got, err := Diff(t.Context(), imageOf(t, tarOf(t)), imageOf(t, tarOf(t, regular(name, ""))))
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.Equal(t, `layer 0: /"etc/\x1b[2K\r\n\u202e\x9bx": missing differs: not there, there`, got[0].String())
	assert.Equal(t, `layer 0: /a: link differs: grüße, "\x1b]0;"`, Difference{0, "a", "link", "grüße", "\x1b]0;"}.String())
}
