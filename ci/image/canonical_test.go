package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// netBind is the value of security.capability that cap_net_bind_service+ep has.
const netBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// everything is a layer with each kind of entry that one can have.
func everything() []item {
	return []item{
		folder("etc/"),
		regular("etc/passwd", "root"),
		regular("usr/tool", "#!").with(func(h *tar.Header) { h.Mode, h.Uid, h.Gid = 0o4755, 3, 70000 }),
		link(tar.TypeLink, "bin/tool", "usr/tool"),
		link(tar.TypeSymlink, "lib", "../up/usr/lib"),
		regular("etc/.wh.shadow", ""),
		regular("var/.wh..wh..opq", ""),
		regular("cap", "x").with(func(h *tar.Header) {
			h.PAXRecords = map[string]string{xattrPrefix + "security.capability": netBind, "LIBARCHIVE.creationtime": "1"}
		}),
		item{Header: tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: noon}},
		item{Header: tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 8, ModTime: noon}},
		item{Header: tar.Header{Name: "run/pipe", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: noon}},
		regular(strings.Repeat("long/", 60)+"name", "far down"),
		regular("ünï", "x"),
		link(tar.TypeLink, "lower", "a/file/of/a/lower/layer"),
	}
}

// The digest may change with Recipe only: it stands in the papers and locks of
// those who built an image.
func TestGoldenDigest(t *testing.T) {
	img := canonicalOf(t, options(t), gzipped(t, tarOf(t, everything()...)), tarOf(t, regular("b", strings.Repeat("berth ", 1000))))
	assert.Equal(t, "2", Recipe)
	assert.Equal(t, "sha256:059ffc134d25bc656babf1d493c220b9cda72b3a1e16f4c8f65ed27aeaa44eac", digestOf(t, img))
}

func TestCanonicalIsAValidImage(t *testing.T) {
	img := canonicalOf(t, options(t), gzipped(t, tarOf(t, everything()...)), tarOf(t, regular("b", "b")))
	requireWhole(t, img)
	m, err := img.Manifest()
	require.NoError(t, err)
	assert.Equal(t, types.OCIManifestSchema1, m.MediaType)
	assert.Equal(t, types.OCIConfigJSON, m.Config.MediaType)
	for _, l := range m.Layers {
		assert.Equal(t, types.OCILayer, l.MediaType)
	}
}

func TestCanonicalKeepsFiles(t *testing.T) {
	img := canonicalOf(t, options(t), tarOf(t, everything()...))
	got := map[string]item{}
	var order []string
	for _, i := range itemsOf(t, layersOf(t, img)[0]) {
		got[i.Name] = i
		order = append(order, strings.TrimSuffix(i.Name, "/"))
	}
	assert.True(t, slices.IsSorted(order), order)
	require.Len(t, got, len(everything()))
	for _, want := range everything() {
		i, ok := got[want.Name]
		require.True(t, ok, want.Name)
		assert.True(t, i.ModTime.Equal(epoch), want.Name)
		assert.Empty(t, i.Uname+i.Gname)
		if want.Name == "usr/tool" || want.Name == "bin/tool" {
			continue
		}
		assert.Equal(t, want.Typeflag, i.Typeflag, want.Name)
		assert.Equal(t, want.content, i.content, want.Name)
		assert.Equal(t, want.Linkname, i.Linkname, want.Name)
		assert.Equal(t, want.Mode, i.Mode, want.Name)
		assert.Equal(t, []int64{want.Devmajor, want.Devminor}, []int64{i.Devmajor, i.Devminor}, want.Name)
	}
	// Of the two names of one file the first has the content.
	assert.Equal(t, byte(tar.TypeReg), got["bin/tool"].Typeflag)
	assert.Equal(t, "#!", got["bin/tool"].content)
	assert.Equal(t, int64(0o4755), got["bin/tool"].Mode)
	assert.Equal(t, []int{3, 70000}, []int{got["bin/tool"].Uid, got["bin/tool"].Gid})
	assert.Equal(t, byte(tar.TypeLink), got["usr/tool"].Typeflag)
	assert.Equal(t, "bin/tool", got["usr/tool"].Linkname)
	assert.Equal(t, map[string]string{xattrPrefix + "security.capability": netBind}, xattrs(&tar.Header{PAXRecords: got["cap"].PAXRecords}))
	assert.NotContains(t, got["cap"].PAXRecords, "LIBARCHIVE.creationtime")
}

// TestUndated moves the image's date: a layer whose files say that they have none stays.
func TestUndated(t *testing.T) {
	undated := func(items ...item) (all []item) {
		for _, i := range items {
			if i.Typeflag != tar.TypeDir {
				i.ModTime = Undated
			}
			all = append(all, i)
		}
		return all
	}
	first, later := options(t), options(t)
	later.Epoch = first.Epoch.AddDate(0, 1, 0)
	for name, c := range map[string]struct {
		items []item
		stays bool
	}{
		"every file":    {undated(folder("a/"), regular("a/b", "x"), link(tar.TypeSymlink, "l", "a/b"), link(tar.TypeLink, "m", "a/b")), true},
		"all but one":   {append(undated(folder("a/"), regular("a/b", "x")), regular("c", "y")), false},
		"folders alone": {[]item{folder("a/").with(func(h *tar.Header) { h.ModTime = Undated })}, false},
	} {
		data := tarOf(t, c.items...)
		a, b := layersOf(t, canonicalOf(t, first, data))[0], layersOf(t, canonicalOf(t, later, data))[0]
		was, err := a.Digest()
		require.NoError(t, err)
		is, err := b.Digest()
		require.NoError(t, err)
		assert.Equal(t, c.stays, was == is, name)
		for _, i := range itemsOf(t, b) {
			assert.Equal(t, c.stays, i.ModTime.Equal(Undated), "%s: %s", name, i.Name)
		}
	}
}

func TestCanonicalIgnoresWhatIsNotInTheFiles(t *testing.T) {
	want := digestOf(t, canonicalOf(t, options(t), tarOf(t, everything()...)))
	changed := func(change func(h *tar.Header)) []byte {
		items := everything()
		for i := range items {
			change(&items[i].Header)
		}
		return tarOf(t, items...)
	}
	reversed := everything()
	slices.Reverse(reversed)
	otherCarrier := everything()
	for i := range otherCarrier {
		switch h := &otherCarrier[i].Header; h.Name {
		case "usr/tool":
			h.Name = "bin/tool"
		case "bin/tool":
			h.Name, h.Linkname = "usr/tool", "bin/tool"
		}
	}
	for name, layer := range map[string][]byte{
		"compressed by gzip":     gzipped(t, tarOf(t, everything()...)),
		"compressed by zstd":     zstandard(t, tarOf(t, everything()...)),
		"time":                   changed(func(h *tar.Header) { h.ModTime = epoch.AddDate(3, 0, 0) }),
		"time of access, change": changed(func(h *tar.Header) { h.AccessTime, h.ChangeTime, h.Format = noon, noon, tar.FormatPAX }),
		"names of owners":        changed(func(h *tar.Header) { h.Uname, h.Gname = "root", "wheel" }),
		"names with a dot":       changed(func(h *tar.Header) { h.Name = "./" + h.Name }),
		"absolute names":         changed(func(h *tar.Header) { h.Name = "/" + h.Name }),
		"order":                  tarOf(t, reversed...),
		"carrier of a hard link": tarOf(t, otherCarrier...),
	} {
		assert.Equal(t, want, digestOf(t, canonicalOf(t, options(t), layer)), name)
	}
}

func TestCanonicalConfiguration(t *testing.T) {
	source := imageOf(t, tarOf(t, regular("a", "a")), tarOf(t, regular("b", "b")))
	config, err := source.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.Author, config.Container, config.OSVersion = "me", "0123", "20.10"
	config.Config.Hostname = "0123"
	config.Config.Cmd, config.Config.Entrypoint, config.Config.User = []string{"c"}, []string{"e"}, "1:2"
	config.History = append(config.History, v1.History{CreatedBy: "ENV x", EmptyLayer: true, Created: v1.Time{Time: noon}})
	source, err = mutate.ConfigFile(source, config)
	require.NoError(t, err)

	o := options(t)
	o.Labels = map[string]string{"dev.berth.inputs": "0", "dev.berth.role": "other"}
	img, err := Canonical(t.Context(), store(t, source), o)
	require.NoError(t, err)
	got, err := img.ConfigFile()
	require.NoError(t, err)
	at := v1.Time{Time: epoch}
	assert.Equal(t, v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Created: at,
		History: []v1.History{{Created: at, CreatedBy: "step 0"}, {Created: at, CreatedBy: "step 1"}},
		RootFS:  got.RootFS,
		Config: v1.Config{
			Env: []string{"PATH=/bin"}, WorkingDir: "/", Cmd: []string{"c"}, Entrypoint: []string{"e"}, User: "1:2",
			Labels: map[string]string{"dev.berth.inputs": "0", "dev.berth.role": "other"},
		},
	}, *got)
}

func TestCanonicalDoesNotDependOnCores(t *testing.T) {
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	layers := [][]byte{tarOf(t, regular("big", string(big))), tarOf(t, everything()...), tarOf(t, regular("c", "c"))}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := digestOf(t, canonicalOf(t, options(t), layers...))
	runtime.GOMAXPROCS(8)
	assert.Equal(t, one, digestOf(t, canonicalOf(t, options(t), layers...)))
}

func TestEpochIsInTheDigest(t *testing.T) {
	o := options(t)
	layer := tarOf(t, regular("a", "a"))
	before := canonicalOf(t, o, layer)
	o.Epoch = epoch.AddDate(0, 0, 1) // same cache
	after := canonicalOf(t, o, layer)
	assert.NotEqual(t, digestOf(t, before), digestOf(t, after))
	assert.True(t, itemsOf(t, layersOf(t, before)[0])[0].ModTime.Equal(epoch))
	assert.True(t, itemsOf(t, layersOf(t, after)[0])[0].ModTime.Equal(o.Epoch))
}

func TestCachedLayersAreNotRead(t *testing.T) {
	o := options(t)
	layer := gzipped(t, tarOf(t, everything()...))
	path := store(t, imageOf(t, layer))
	first, err := Canonical(t.Context(), path, o)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(data, layer)
	require.Positive(t, at)
	clear(data[at : at+len(layer)])
	require.NoError(t, os.WriteFile(path, data, 0o644))

	again, err := Canonical(t.Context(), path, o)
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, first), digestOf(t, again))

	o.Cache = t.TempDir()
	_, err = Canonical(t.Context(), path, o)
	assert.ErrorContains(t, err, "its content isn't what its name promises")
}

func TestDamagedCacheHeals(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 20) },
		"gone":    os.Remove,
		"changed": flip,
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			path := store(t, imageOf(t, tarOf(t, everything()...)))
			img, err := Canonical(t.Context(), path, o)
			require.NoError(t, err)
			digest, err := layersOf(t, img)[0].Digest()
			require.NoError(t, err)
			require.NoError(t, damage(filepath.Join(o.Cache, digest.Hex)))

			// Who has the image in hand is told, and no half archive is left.
			dir := t.TempDir()
			require.ErrorIs(t, WriteArchive(filepath.Join(dir, "out.tar"), img, "x"), ErrDamaged)
			requireEmpty(t, dir)

			img, err = Canonical(t.Context(), path, o)
			require.NoError(t, err)
			requireWhole(t, img)
		})
	}
}

// flip changes the byte in a file's middle.
func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o644)
}

func TestDamagedRecordHeals(t *testing.T) {
	o := options(t)
	layer := tarOf(t, regular("a", "a"))
	want := digestOf(t, canonicalOf(t, o, layer))
	records, err := filepath.Glob(filepath.Join(o.Cache, "*.json"))
	require.NoError(t, err)
	require.Len(t, records, 1)
	for _, text := range []string{"", "{}", "null", `{"digest":"sha256:../../x"}`} {
		require.NoError(t, os.WriteFile(records[0], []byte(text), 0o644))
		assert.Equal(t, want, digestOf(t, canonicalOf(t, o, layer)), text)
	}
}

func TestInterruptedCanonicalLeavesNothing(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Canonical(ctx, store(t, imageOf(t, tarOf(t, everything()...))), o)
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, o.Temp)
	requireEmpty(t, o.Cache)
}

func TestBadLayers(t *testing.T) {
	whole := gzipped(t, tarOf(t, regular("a", strings.Repeat("a", 5000))))
	for name, c := range map[string]struct {
		layer []byte
		want  string
	}{
		"name leads out":         {tarOf(t, regular("../a", "")), "leads out of the image"},
		"name leads out, inside": {tarOf(t, regular("a/../../b", "")), "leads out of the image"},
		"hard link leads out":    {tarOf(t, link(tar.TypeLink, "a", "../../etc/shadow")), "leads out of the image"},
		"name twice":             {tarOf(t, regular("a", "1"), regular("./a", "2")), "twice"},
		"hard link to itself":    {tarOf(t, link(tar.TypeLink, "a", "b"), link(tar.TypeLink, "b", "a")), "leads to itself"},
		"hard link to a folder":  {tarOf(t, folder("d/"), link(tar.TypeLink, "a", "d")), "leads to the folder"},
		"global header": {tarOf(t,
			item{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "x"}}}),
			"image layers can't have"},
		"sparse":            {sparse(), "sparse"},
		"not a tar":         {bytes.Repeat([]byte("no tar "), 200), "reading its tar"},
		"tar cut short":     {tarOf(t, regular("a", strings.Repeat("a", 5000)))[:2000], "reading its tar"},
		"gzip cut short":    {whole[:len(whole)-10], "decompressing"},
		"zstd of something": {[]byte{0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5, 6, 7, 8}, "decompressing"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			_, err := Canonical(t.Context(), store(t, imageOf(t, c.layer)), o)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, "layer sha256:")
			requireEmpty(t, o.Temp)
			requireEmpty(t, o.Cache)
		})
	}
}

// sparse returns a tar with a sparse file (GNU's old format), which Go's tar
// package reads but doesn't write.
func sparse() []byte {
	b := make([]byte, 4*512)
	copy(b, "hole")
	copy(b[100:], "0000644\x000000000\x000000000\x0000000001000\x0000000000000\x00        S")
	copy(b[257:], "ustar  \x00")
	copy(b[386:], "00000000000\x0000000001000\x00") // one piece: offset 0, 512 bytes
	copy(b[483:], "00000010000\x00")                // of a file of 4096 bytes
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7), '0' + byte(sum>>3&7),
		'0' + byte(sum&7), 0, ' '})
	return b
}

func TestBadArchives(t *testing.T) {
	good := imageOf(t, gzipped(t, tarOf(t, regular("a", "a"))))
	m, err := good.Manifest()
	require.NoError(t, err)
	digest, err := good.Digest()
	require.NoError(t, err)
	layer := m.Layers[0].Digest

	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"no index": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/index.json")) }, "the archive has no index.json"},
		"no manifest": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/"+blobName(digest))) },
			"the archive has no " + blobName(digest)},
		"no config": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/"+blobName(m.Config.Digest))) },
			"the archive has no " + blobName(m.Config.Digest)},
		"no layer": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/"+blobName(layer))) },
			"the archive has no " + blobName(layer)},
		"other manifest": {func(t *testing.T, dir string) { require.NoError(t, flip(dir+"/"+blobName(digest))) }, "doesn't have the content"},
		"other config": {func(t *testing.T, dir string) { require.NoError(t, flip(dir+"/"+blobName(m.Config.Digest))) },
			"doesn't have the content"},
		"other layer":     {func(t *testing.T, dir string) { require.NoError(t, flip(dir+"/"+blobName(layer))) }, "layer " + layer.String()},
		"index of no use": {func(t *testing.T, dir string) { write(t, dir+"/index.json", "[]") }, "reading index.json"},
		"no image":        {func(t *testing.T, dir string) { write(t, dir+"/index.json", `{"manifests":[]}`) }, "names 0 images"},
		"digest that climbs": {func(t *testing.T, dir string) {
			write(t, dir+"/index.json", `{"manifests":[{"digest":"sha256:../../../etc/passwd"}]}`)
		}, "reading index.json"},
		"index too large": {func(t *testing.T, dir string) { write(t, dir+"/index.json", strings.Repeat(" ", maxMetadata+1)) }, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, err := layout.Write(dir, empty.Index)
			require.NoError(t, err)
			require.NoError(t, p.AppendImage(good))
			c.change(t, dir)
			o := options(t)
			path := pack(t, dir)
			_, err = Canonical(t.Context(), path, o)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, path)
			requireEmpty(t, o.Temp)
		})
	}

	t.Run("layers don't match", func(t *testing.T) {
		config, err := good.ConfigFile()
		require.NoError(t, err)
		config = config.DeepCopy()
		config.RootFS.DiffIDs = nil
		img, err := mutate.ConfigFile(good, config)
		require.NoError(t, err)
		_, err = Canonical(t.Context(), store(t, img), options(t))
		assert.ErrorContains(t, err, "the configuration lists 0 layers, the manifest 1")
	})
	t.Run("cut anywhere", func(t *testing.T) {
		data, err := os.ReadFile(store(t, good))
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "cut.tar")
		require.NoError(t, os.WriteFile(path, data, 0o644))
		whole, err := Canonical(t.Context(), path, options(t))
		require.NoError(t, err)
		refused := 0
		for n := 0; n < len(data); n += 300 {
			require.NoError(t, os.WriteFile(path, data[:n], 0o644))
			img, err := Canonical(t.Context(), path, options(t))
			if err != nil {
				refused++
				continue
			}
			// What was cut off is nothing that the image is made of.
			require.Equal(t, digestOf(t, whole), digestOf(t, img), n)
		}
		assert.Greater(t, refused, len(data)/300/2)
	})
	t.Run("missing", func(t *testing.T) {
		_, err := Canonical(t.Context(), filepath.Join(t.TempDir(), "none.tar"), options(t))
		assert.ErrorIs(t, err, os.ErrNotExist)
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

func TestWriteArchive(t *testing.T) {
	layer := tarOf(t, everything()...)
	img := canonicalOf(t, options(t), layer, tarOf(t, regular("b", "b")), layer) // one layer twice
	dir := t.TempDir()
	path := filepath.Join(dir, "out.tar")
	write(t, path, "an older one")
	require.NoError(t, WriteArchive(path, img, "demo-cnn:latest"))
	first, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, WriteArchive(path, img, "demo-cnn:latest"))
	second, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(first, second))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, names, 1)

	// go-containerregistry reads it, each digest checked.
	out := t.TempDir()
	in := tar.NewReader(bytes.NewReader(first))
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(in)
		require.NoError(t, err)
		file := filepath.Join(out, h.Name)
		require.NoFileExists(t, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, data, 0o644))
	}
	index, err := layout.ImageIndexFromPath(out)
	require.NoError(t, err)
	top, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, top.Manifests, 1)
	assert.Equal(t, digestOf(t, img), top.Manifests[0].Digest.String())
	read, err := index.Image(top.Manifests[0].Digest)
	require.NoError(t, err)
	requireWhole(t, read)
	assert.Equal(t, "demo-cnn:latest", top.Manifests[0].Annotations["org.opencontainers.image.ref.name"])

	// It is canonical already.
	again, err := Canonical(t.Context(), path, options(t))
	require.NoError(t, err)
	assert.Equal(t, digestOf(t, img), digestOf(t, again))
}

// Registry clients read layers in ways of their own.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/demo-cnn:latest")
	require.NoError(t, err)
	img := canonicalOf(t, options(t), tarOf(t, everything()...), tarOf(t, regular("b", strings.Repeat("b", 1<<20))))
	require.NoError(t, remote.Write(tag, img, remote.WithContext(t.Context())))
	pushed, err := remote.Image(tag, remote.WithContext(t.Context()))
	require.NoError(t, err)
	requireWhole(t, pushed)
	assert.Equal(t, digestOf(t, img), digestOf(t, pushed))
	requireWhole(t, img) // nothing was taken for damaged
}

func TestCheck(t *testing.T) {
	img := canonicalOf(t, options(t), tarOf(t, everything()...))
	require.NoError(t, Check(img))
	layers, err := img.Layers()
	require.NoError(t, err)
	path := layers[0].(*layer).path
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o644))
	require.ErrorIs(t, Check(img), ErrDamaged)
	assert.NoFileExists(t, path)
	assert.ErrorIs(t, Check(img), ErrDamaged)
}

func TestFailedWriteKeepsTheOldArchive(t *testing.T) {
	o := options(t)
	img := canonicalOf(t, o, tarOf(t, everything()...))
	require.NoError(t, os.RemoveAll(o.Cache))
	path := filepath.Join(t.TempDir(), "out.tar")
	write(t, path, "an older one")
	require.ErrorIs(t, WriteArchive(path, img, "x"), ErrDamaged)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "an older one", string(data))
	names, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, names, 1)
	assert.Error(t, WriteArchive(filepath.Join(path, "below-a-file"), img, "x"))
}

// FuzzLayer checks that a layer is refused, or becomes one that a second pass
// leaves as it is.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, everything()...))
	f.Add(gzipped(f, tarOf(f, everything()...)))
	f.Add(zstandard(f, tarOf(f, regular("a", "a"))))
	f.Add(sparse())
	f.Add(tarOf(f, folder("./"), regular("../a", ""), link(tar.TypeLink, "a", "a")))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := options(t)
		first, err := rewriteBytes(t, data, o)
		if err != nil {
			requireEmpty(t, o.Temp)
			return
		}
		r, err := first.Compressed()
		require.NoError(t, err)
		stored, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		second, err := rewriteBytes(t, stored, o)
		require.NoError(t, err)
		require.Equal(t, first.Sum, second.Sum)
		require.Equal(t, first.Diff, second.Diff)
	})
}

func rewriteBytes(t *testing.T, data []byte, o Options) (*layer, error) {
	require.NoError(t, os.MkdirAll(o.Cache, 0o755))
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	require.NoError(t, err)
	return rewrite(t.Context(), io.NewSectionReader(bytes.NewReader(data), 0, size), digest, o)
}

func FuzzArchive(f *testing.F) {
	data, err := os.ReadFile(store(f, imageOf(f, tarOf(f, regular("a", "a")))))
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "a.tar")
		require.NoError(t, os.WriteFile(path, data, 0o644))
		o := options(t)
		img, err := Canonical(t.Context(), path, o)
		if err == nil {
			requireWhole(t, img)
		}
		requireEmpty(t, o.Temp)
	})
}

// BenchmarkCanonical compares with go-containerregistry's own way, which leaves
// order and hard links as they are. Layers are half random, half text.
func BenchmarkCanonical(b *testing.B) {
	noise, err := random.Layer(32<<20, types.OCILayer)
	require.NoError(b, err)
	r, err := noise.Uncompressed()
	require.NoError(b, err)
	bytesOfNoise, err := io.ReadAll(r)
	require.NoError(b, err)
	half := regular("noise", string(bytesOfNoise[1024:][:32<<20]))
	text := regular("text", strings.Repeat("It is the same line each time, as in a log.\n", 32<<20/44))
	plain := tarOf(b, half, text)
	path := store(b, imageOf(b, zstandard(b, plain)))
	// The peer reads no Zstandard, so it gets the layer as it is: less work.
	peer := imageOf(b, plain)

	b.Run("berth", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			o := options(b)
			_, err := Canonical(b.Context(), path, o)
			require.NoError(b, err)
		}
	})
	b.Run("berth, cached", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		o := options(b)
		_, err := Canonical(b.Context(), path, o)
		require.NoError(b, err)
		for b.Loop() {
			_, err := Canonical(b.Context(), path, o)
			require.NoError(b, err)
		}
	})
	b.Run("go-containerregistry", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			img, err := mutate.Time(peer, epoch)
			require.NoError(b, err)
			_, err = img.Digest()
			require.NoError(b, err)
		}
	})
}
