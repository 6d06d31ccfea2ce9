package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	sample "github.com/berthdev/berth/testdata/fashion-mnist-1000"
)

func TestSample(t *testing.T) {
	set, err := Load(sample.Files, true)
	require.NoError(t, err)
	assert.Equal(t, "fashion-mnist-1000", set.Name)
	assert.True(t, set.Known())
	assert.Equal(t, []int{1, 28, 28, 800, 200}, []int{set.Channels, set.Height, set.Width, set.Train.Len(), set.Test.Len()})
	assert.Equal(t, []uint8{9, 0, 0, 3, 0}, set.Train.Labels[:5], "the first labels of Fashion-MNIST")
	assert.Len(t, set.SHA256, 64)
	require.Len(t, set.Files, 4)
	assert.Equal(t, "train-images-idx3-ubyte.gz", set.Files[0].Name)
}

// idxImages and idxLabels write the format, header first.
func idxImages(magic, n, h, w uint32, pixels []byte) []byte {
	var b []byte
	for _, v := range []uint32{magic, n, h, w} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, pixels...)
}

func idxLabels(magic, n uint32, labels ...byte) []byte {
	return append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, magic), n), labels...)
}

func zipped(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

// own is a small data set of someone's own: 3 images of 2x3 to train on, one
// to test on.
func own() map[string][]byte {
	return map[string][]byte{
		"train-images-idx3-ubyte":   idxImages(0x803, 3, 2, 3, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}),
		"train-labels-idx1-ubyte":   idxLabels(0x801, 3, 0, 9, 1),
		"t10k-images-idx3-ubyte.gz": zipped(idxImages(0x803, 1, 2, 3, []byte{255, 0, 0, 0, 0, 128})),
		"t10k-labels-idx1-ubyte.gz": zipped(idxLabels(0x801, 1, 7)),
	}
}

// cifar is a small data set in CIFAR-10's format: an image a file, filled with
// the file's number, labelled with it.
func cifar() map[string][]byte {
	files := map[string][]byte{}
	for i, name := range cifarFiles {
		files["cifar-10-batches-bin/"+name] = bytes.Repeat([]byte{byte(i)}, 3073)
	}
	return files
}

func folder(files map[string][]byte) fs.FS {
	out := fstest.MapFS{}
	for name, content := range files {
		out[name] = &fstest.MapFile{Data: content}
	}
	return out
}

func TestOwnData(t *testing.T) {
	set, err := Load(folder(own()), false)
	require.NoError(t, err)
	assert.Equal(t, "custom", set.Name)
	assert.False(t, set.Known())
	assert.Equal(t, Split{Pixels: []byte{255, 0, 0, 0, 0, 128}, Labels: []byte{7}}, set.Test)
	assert.Equal(t, []int{2, 3}, []int{set.Height, set.Width})

	_, err = Load(folder(own()), true)
	assert.ErrorContains(t, err, "--fashion asks for Fashion-MNIST, but this is unknown data")
}

func TestCIFAR(t *testing.T) {
	both := cifar()
	maps.Copy(both, own())
	set, err := Load(folder(both), false)
	require.NoError(t, err)
	assert.Equal(t, []int{3, 32, 32}, []int{set.Channels, set.Height, set.Width})
	assert.Equal(t, []uint8{0, 1, 2, 3, 4}, set.Train.Labels)
	assert.Equal(t, []uint8{5}, set.Test.Labels)
	assert.Equal(t, bytes.Repeat([]byte{3}, 3072), set.Train.Pixels[3*3072:4*3072])
	assert.Len(t, set.Files, 6)
}

// TestBadData damages good data, one thing at a time.
func TestBadData(t *testing.T) {
	const images, labels, testImages = "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte.gz"
	for name, c := range map[string]struct {
		base func() map[string][]byte
		file string
		make func(good []byte) []byte // nil: the file is missing
		want string
	}{
		"no images":  {own, images, nil, images + " is missing"},
		"no labels":  {own, labels, nil, labels + " is missing"},
		"empty file": {own, images, func([]byte) []byte { return nil }, "ends after 0 bytes, within its header"},
		"magic of labels": {own, images, func(g []byte) []byte { return idxImages(0x801, 3, 2, 3, g[16:]) },
			"begins with 00000801, but IDX files of images begin with 00000803"},
		"magic of images": {own, labels, func(g []byte) []byte { return idxLabels(0x803, 3, g[8:]...) }, "begins with 00000803"},
		"cut short": {own, images, func(g []byte) []byte { return g[:len(g)-1] },
			images + ": 17 bytes of pixels, but its header says 3 images of 3x2, which are 18: it is damaged or cut short"},
		"too long": {own, images, func(g []byte) []byte { return append(g, 0) },
			"more than 18 bytes of pixels, but its header says 3 images of 3x2: it is damaged"},
		"labels cut short": {own, labels, func(g []byte) []byte { return g[:len(g)-1] }, "2 bytes of labels, but its header says 3 labels"},
		"label out of range": {own, labels, func([]byte) []byte { return idxLabels(0x801, 3, 0, 10, 1) },
			labels + ": label 10 of image 1 is out of range: 0 to 9 are possible"},
		"fewer labels":    {own, labels, func([]byte) []byte { return idxLabels(0x801, 2, 0, 1) }, "2 labels for 3 images"},
		"no images in it": {own, images, func([]byte) []byte { return idxImages(0x803, 0, 2, 3, nil) }, "has no images"},
		"no pixels":       {own, images, func([]byte) []byte { return idxImages(0x803, 3, 0, 3, nil) }, "images of 3x0 pixels"},
		"large images": {own, images, func([]byte) []byte { return idxImages(0x803, 1, 33, 33, make([]byte, 33*33)) },
			"images of 33x33 pixels: 1x1 to 32x32 are possible"},
		"lying header": {own, images, func(g []byte) []byte { return idxImages(0x803, 1<<32-1, 32, 32, g[16:]) },
			"its header says 4294967295 images of 32x32, which are 4398046510080 bytes: more than 1073741824 are too large"},
		"other test size": {own, testImages, func([]byte) []byte { return zipped(idxImages(0x803, 1, 3, 2, make([]byte, 6))) },
			"its images are 2x3, those to train on 3x2"},
		"no gzip": {own, testImages, func([]byte) []byte { return []byte("<html>not found</html>") },
			testImages + ": gzip: invalid header"},
		"gzip cut short": {own, testImages, func(g []byte) []byte { return g[:len(g)-5] },
			testImages + ": it is damaged or cut short: unexpected EOF"},
		"gzip damaged":      {own, testImages, func(g []byte) []byte { g[len(g)-6] ^= 1; return g }, "gzip: invalid checksum"},
		"CIFAR without one": {cifar, "cifar-10-batches-bin/data_batch_4.bin", nil, "data_batch_4.bin is missing"},
		"CIFAR cut short": {cifar, "cifar-10-batches-bin/test_batch.bin", func(g []byte) []byte { return g[:3000] },
			"test_batch.bin: 3000 bytes are not a whole number of records of 3073"},
		"CIFAR empty": {cifar, "cifar-10-batches-bin/test_batch.bin", func([]byte) []byte { return nil },
			"0 bytes are not a whole number"},
		"CIFAR label too big": {cifar, "cifar-10-batches-bin/data_batch_2.bin", func(g []byte) []byte { g[0] = 11; return g },
			"data_batch_2.bin: label 11 of image 0 is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			files := c.base()
			good, ok := files[c.file]
			require.True(t, ok)
			delete(files, c.file)
			if c.make != nil {
				files[c.file] = c.make(good)
			}
			_, err := Load(folder(files), false)
			require.ErrorContains(t, err, c.want)
			assert.NotErrorIs(t, err, ErrNotFound)
		})
	}
}

// zeros compresses n MiB of zeros to a thousandth, a member of gzip for each.
func zeros(n int) []byte {
	return bytes.Repeat(zipped(make([]byte, 1<<20)), n)
}

// allocated returns the bytes that f allocates, freed ones included.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBomb: what was made to fill the memory takes no more than its header, or a
// known limit, says.
func TestBomb(t *testing.T) {
	const images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
	for name, c := range map[string]struct {
		file string
		raw  []byte
		want string
	}{
		"no header":     {images, zeros(1100), "begins with 00000000"},
		"small header":  {images, append(zipped(idxImages(0x803, 3, 2, 3, nil)), zeros(1100)...), "more than 18 bytes of pixels"},
		"many labels":   {labels, append(zipped(idxLabels(0x801, 3)), zeros(1100)...), "more than 3 bytes of labels"},
		"empty promise": {images, zipped(idxImages(0x803, 1<<20, 32, 32, nil)), "0 bytes of pixels, but its header says 1048576 images"},
	} {
		t.Run(name, func(t *testing.T) {
			files := own()
			delete(files, c.file)
			files[c.file+".gz"] = c.raw
			took := allocated(func() {
				_, err := Load(folder(files), false)
				assert.ErrorContains(t, err, c.want)
			})
			assert.Less(t, took, uint64(8<<20))
		})
	}
}

// TestReadUpTo: without a header that says how much there is, the limit holds.
func TestReadUpTo(t *testing.T) {
	const limit = 16 << 20
	in, err := gzip.NewReader(bytes.NewReader(zeros(20)))
	require.NoError(t, err)
	took := allocated(func() {
		raw, err := readUpTo(in, limit+1)
		assert.NoError(t, err)
		assert.Len(t, raw, limit+1)
	})
	assert.Less(t, took, uint64(limit+limit/2), "what was outgrown is included")
}

func TestDamagedKnownData(t *testing.T) {
	files := map[string][]byte{}
	for _, name := range idxFiles {
		raw, err := sample.Files.ReadFile(name + ".gz")
		require.NoError(t, err)
		files[name+".gz"] = raw
	}
	good, err := Load(sample.Files, true)
	require.NoError(t, err)
	labels := good.Test.Labels
	labels[100] = (labels[100] + 1) % 10
	delete(files, "t10k-labels-idx1-ubyte.gz")
	files["t10k-labels-idx1-ubyte"] = idxLabels(0x801, uint32(len(labels)), labels...)
	_, err = Load(folder(files), false)
	assert.ErrorContains(t, err, "the others are not (t10k-labels-idx1-ubyte): they don't belong together, or some are damaged")
}

func TestFind(t *testing.T) {
	empty := t.TempDir()
	_, err := Find(empty, false)
	assert.ErrorIs(t, err, ErrNotFound)
	assert.ErrorContains(t, err, "there is no train-images-idx3-ubyte.gz (Fashion-MNIST) or data_batch_1.bin (CIFAR-10) in "+empty)
	assert.ErrorContains(t, err, "--data-dir")
	_, err = Find(filepath.Join(empty, "nowhere"), true)
	assert.ErrorIs(t, err, ErrNotFound)

	t.Chdir(empty)
	raw := filepath.Join("data", "FashionMNIST", "raw")
	require.NoError(t, os.MkdirAll(raw, 0o777))
	require.NoError(t, os.CopyFS(raw, sample.Files))
	set, err := Find("", true)
	require.NoError(t, err)
	assert.Equal(t, "data", set.Folder)
	assert.Equal(t, "fashion-mnist-1000", set.Name)
}

// TestUnreadable: a folder that can't be looked into isn't passed over for the next one.
// (Root may look into all but circles.)
func TestUnreadable(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Symlink("data", "data"))
	_, err := Find("", true)
	require.ErrorIs(t, err, syscall.ELOOP)
	assert.NotErrorIs(t, err, ErrNotFound)
	assert.ErrorContains(t, err, "data in data: it can't be looked into: stat train-images-idx3-ubyte: ")
	assert.ErrorContains(t, err, "name another folder with --data-dir")

	require.NoError(t, os.Mkdir("two", 0o777))
	require.NoError(t, os.CopyFS("two", sample.Files))
	require.NoError(t, os.Symlink("cifar-10-batches-bin", "two/cifar-10-batches-bin"))
	_, err = Find("two", false)
	assert.ErrorContains(t, err, "data in two: it can't be looked into: stat cifar-10-batches-bin/data_batch_1.bin: ")
	_, err = Find("two", true)
	assert.NoError(t, err, "CIFAR-10 wasn't asked for")

	require.NoError(t, os.WriteFile("file", nil, 0o666))
	_, err = Find("file", false)
	assert.ErrorIs(t, err, ErrNotFound, "it is no folder")
}

// FuzzIDX: whatever the files hold, Load gives sound values or an error.
func FuzzIDX(f *testing.F) {
	good := own()
	f.Add(good["train-images-idx3-ubyte"], good["train-labels-idx1-ubyte"])
	f.Add(idxImages(0x803, 1<<31, 1<<31, 4, nil), idxLabels(0x801, 1<<31))
	f.Add(idxImages(0x803, 1, 1, 1, []byte{9}), idxLabels(0x801, 1, 10))
	f.Add([]byte{0, 0, 8, 3}, []byte{})
	f.Fuzz(func(t *testing.T, images, labels []byte) {
		files := own()
		files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"] = images, labels
		set, err := Load(folder(files), false)
		if err == nil {
			checkSplit(t, set, set.Train)
		}
	})
}

// FuzzGzip: the same for what is compressed.
func FuzzGzip(f *testing.F) {
	f.Add(own()["t10k-labels-idx1-ubyte.gz"])
	f.Add(zipped(nil))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, labels []byte) {
		files := own()
		files["t10k-labels-idx1-ubyte.gz"] = labels
		set, err := Load(folder(files), false)
		if err == nil {
			checkSplit(t, set, set.Test)
		}
	})
}

// FuzzCIFAR: the same for CIFAR-10's format.
func FuzzCIFAR(f *testing.F) {
	f.Add(make([]byte, 3073))
	f.Add(bytes.Repeat([]byte{9}, 2*3073))
	f.Add([]byte{10})
	f.Fuzz(func(t *testing.T, raw []byte) {
		files := cifar()
		files["cifar-10-batches-bin/test_batch.bin"] = raw
		set, err := Load(folder(files), false)
		if err == nil {
			checkSplit(t, set, set.Test)
		}
	})
}

func checkSplit(t *testing.T, set *Set, s Split) {
	t.Helper()
	require.NotZero(t, s.Len())
	require.Len(t, s.Pixels, s.Len()*set.Channels*set.Height*set.Width)
	require.NoError(t, checkLabels(s.Labels))
	for images, labels := range NewLoader(set, 7, true, 1).Epoch(0, 0) {
		require.Len(t, images, len(labels)*set.Channels*Size*Size)
	}
}

func ExampleLoad() {
	set, err := Load(sample.Files, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Name, set.Train.Len(), set.Test.Len())
	// Output: fashion-mnist-1000 800 200
}
