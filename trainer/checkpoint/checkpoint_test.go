package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/nn"
)

func small() *Checkpoint {
	return &Checkpoint{
		Run: Run{Data: "fashion-mnist", DataSHA256: "7b06", BatchSize: 500},
		Progress: Progress{
			Epochs:  []Epoch{{TrainLoss: 1.1, TrainAccuracy: 1.0 / 3, TestLoss: 5e-324, TestAccuracy: 0.5}},
			LossSum: 0.1 + 0.2, Correct: 3, Images: 7,
		},
		State: nn.State{
			Step: 240, Seed: 1<<64 - 1,
			Config: nn.Config{Seed: 1<<64 - 1, Channels: 1, Classes: 10, LR: 1e-3, Dropout: 0.5},
			Tensors: []nn.Tensor{
				{Name: "a", Shape: []int{2, 3}, Data: []float32{1, -0.1, 3e-45, 4, 5, 6}},
				{Name: "b", Shape: []int{1}, Data: []float32{7}},
			},
		},
	}
}

func encode(t testing.TB, c *Checkpoint) []byte {
	var b bytes.Buffer
	require.NoError(t, c.Encode(&b))
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	raw := encode(t, small())
	got, err := Decode(raw)
	require.NoError(t, err)
	assert.Equal(t, small(), got)
	assert.Equal(t, raw, encode(t, got))
}

// TestNetwork: what a network gives goes through a file and fits it again;
// the number of workers leaves no trace.
func TestNetwork(t *testing.T) {
	var files [][]byte
	for _, workers := range []int{1, 3} {
		n, err := nn.New(nn.Config{Channels: 1, Classes: 10, Seed: 4, Workers: workers, Dropout: 0.5})
		require.NoError(t, err)
		_, _, err = n.TrainStep(make([]float32, 8*1024), make([]uint8, 8))
		require.NoError(t, err)
		raw := encode(t, &Checkpoint{State: n.State()})
		c, err := Decode(raw)
		require.NoError(t, err)
		require.NoError(t, n.Restore(c.State))
		assert.Equal(t, raw, encode(t, &Checkpoint{State: n.State()}))
		assert.Less(t, len(raw), maxFile/8)
		files = append(files, raw)
	}
	assert.True(t, bytes.Equal(files[0], files[1]))
}

// sealed gives what a checkpoint's body needs at its end.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

// with builds a file around a header and values.
func with(head string, values ...byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(magic), version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	return sealed(append(append(b, head...), values...))
}

func TestDamage(t *testing.T) {
	good := encode(t, small())
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		_, err := Decode(bad)
		require.Error(t, err, "byte %d", i)
		_, err = Decode(good[:i])
		require.Error(t, err, "cut to %d bytes", i)
	}
	newer := bytes.Clone(good[:len(good)-32])
	newer[8] = 2
	long := bytes.Clone(good[:len(good)-32])
	binary.LittleEndian.PutUint32(long[12:], 1<<31)
	for _, c := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"empty", nil, "it isn't a checkpoint of this trainer"},
		{"another file", []byte("\x89PNG\r\n and much more than that, so that it is long enough"), "it isn't a checkpoint of this trainer"},
		{"header only", good[:16], "it is cut short, after 16 bytes"},
		{"cut short", good[:len(good)-1], "it is cut short or damaged: its SHA-256 isn't the one at its end"},
		{"newer", sealed(newer), "it has format version 2, this trainer reads version 1"},
		{"header too long", sealed(long), "its header claims 2147483648 bytes"},
		{"no JSON", with("{"), "its header: unexpected EOF"},
		{"unknown field", with(`{"workers":3}`), `unknown field "workers"`},
		{"large tensor", with(`{"tensors":[{"name":"a","shape":[3,3]}]}`, make([]byte, 32)...),
			`tensor "a" of shape [3 3] is larger than what is there`},
		{"overflow", with(`{"tensors":[{"name":"a","shape":[4294967296,4294967296]}]}`, make([]byte, 32)...), "is larger than what is there"},
		{"one value too many", with(`{"tensors":[{"name":"a","shape":[]}]}`), `tensor "a" of shape [] is larger than what is there`},
		{"negative", with(`{"tensors":[{"name":"a","shape":[-1]}]}`, make([]byte, 32)...), "is larger than what is there"},
		{"too many values", with(`{"tensors":[{"name":"a","shape":[1]}]}`, make([]byte, 8)...), "4 bytes are left after its last tensor"},
		{"bad counts", with(`{"progress":{"correct":5,"images":4}}`), "it counts 5 of 4 images as right"},
	} {
		_, err := Decode(c.raw)
		assert.ErrorContains(t, err, c.want, c.name)
	}
}

// FuzzDecode gives Decode bodies with the right checksum, so that it sees what is
// behind it.
func FuzzDecode(f *testing.F) {
	good := encode(f, small())
	f.Add(good[:len(good)-32])
	f.Add([]byte(magic))
	for _, shape := range []string{"[0,9]", "[]"} {
		raw := with(`{"tensors":[{"name":"a","shape":` + shape + `}]}`)
		f.Add(raw[:len(raw)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := Decode(sealed(body))
		if err != nil {
			return
		}
		again, err := Decode(encode(t, c))
		require.NoError(t, err)
		assert.Equal(t, encode(t, c), encode(t, again))
	})
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	f, err := Open(dir)
	require.NoError(t, err)
	_, err = f.Load()
	assert.ErrorIs(t, err, os.ErrNotExist)

	first := small()
	kept, err := f.SaveNew(first)
	require.NoError(t, err)
	assert.Empty(t, kept, "there was none")
	second := small()
	second.State.Step++
	require.NoError(t, f.Save(second))
	got, err := f.Load()
	require.NoError(t, err)
	assert.Equal(t, second, got)

	_, err = Open(dir)
	assert.ErrorContains(t, err, "another trainer writes its checkpoints to "+dir)
	require.NoError(t, f.Close())
	f, err = Open(dir)
	require.NoError(t, err)
	defer f.Close()

	_, err = Open(f.Path())
	assert.ErrorContains(t, err, "not a directory")
}

// numbered is a checkpoint that differs from others by its step.
func numbered(step int64) *Checkpoint {
	c := small()
	c.State.Step = step
	return c
}

func load(t *testing.T, name string) *Checkpoint {
	t.Helper()
	raw, err := os.ReadFile(name)
	require.NoError(t, err)
	c, err := Decode(raw)
	require.NoError(t, err)
	return c
}

// contents lists the names in a folder.
func contents(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestStartAnew: however often runs start anew, nothing is lost.
func TestStartAnew(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(dir)
	require.NoError(t, err)
	defer f.Close()
	const runs = 12
	for run := range int64(runs) {
		kept, err := f.SaveNew(numbered(100 * run))
		require.NoError(t, err)
		if run > 0 {
			assert.Equal(t, fmt.Sprintf("%s.%d", f.Path(), run), kept)
		}
		require.NoError(t, f.Save(numbered(100*run+1)))
	}
	assert.Equal(t, numbered(100*(runs-1)+1), load(t, f.Path()))
	kept, err := f.Kept()
	require.NoError(t, err)
	require.Len(t, kept, runs-1)
	for i, name := range kept {
		assert.Equal(t, numbered(int64(100*i+1)), load(t, name), "in the order of their numbers")
	}

	// A number that was removed is not given again while there are higher ones,
	// and what isn't a number is none of ours.
	require.NoError(t, os.Remove(f.Path()+".3"))
	others := []string{".99999999999999999999", ".x", ".previous", ".-40", "."}
	for _, end := range others {
		require.NoError(t, os.WriteFile(f.Path()+end, []byte("mine"), 0o666))
	}
	name, err := f.SaveNew(numbered(5))
	require.NoError(t, err)
	assert.Equal(t, f.Path()+".12", name)
	for _, end := range others {
		raw, err := os.ReadFile(f.Path() + end)
		require.NoError(t, err)
		assert.Equal(t, "mine", string(raw))
	}
}

// TestStartAnewAtLink: where a link led to a checkpoint, that stays.
func TestStartAnewAtLink(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "checkpoint of last year")
	require.NoError(t, os.WriteFile(elsewhere, encode(t, numbered(1)), 0o666))
	dir := t.TempDir()
	f, err := Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Symlink(elsewhere, f.Path()))
	kept, err := f.SaveNew(numbered(2))
	require.NoError(t, err)
	require.NoError(t, f.Save(numbered(3)))
	assert.Equal(t, numbered(1), load(t, elsewhere))
	assert.Equal(t, numbered(1), load(t, kept))
	assert.Equal(t, numbered(3), load(t, f.Path()))
}

// TestTooLarge: what can't be a checkpoint is refused before it is read.
func TestTooLarge(t *testing.T) {
	f, err := Open(t.TempDir())
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Save(small()))
	require.NoError(t, os.Truncate(f.Path(), 200<<30)) // sparse
	_, err = f.Load()
	assert.ErrorContains(t, err, f.Path()+" has 214748364800 bytes, but no checkpoint of this trainer has more than 268435456")

	require.NoError(t, os.Remove(f.Path()))
	require.NoError(t, syscall.Mkfifo(f.Path(), 0o666))
	_, err = f.Load()
	assert.ErrorContains(t, err, f.Path()+" is no regular file", "to read it would wait for a writer")
}

// TestNoSpace fills a real file system. Where none can be mounted, the trainer's
// scripts still show the same with a limited file size.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		testenv.Skip(t, testenv.Root, "a small file system can't be mounted here: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	f, err := Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Save(small()))

	large := small()
	large.State.Tensors[1] = nn.Tensor{Name: "b", Shape: []int{1 << 15}, Data: make([]float32, 1<<15)}
	saveNew := func(c *Checkpoint) error {
		_, err := f.SaveNew(c)
		return err
	}
	for name, save := range map[string]func(*Checkpoint) error{"Save": f.Save, "SaveNew": saveNew} {
		err = save(large)
		require.ErrorIs(t, err, syscall.ENOSPC, name)
		assert.ErrorContains(t, err, "no space left on device")
		got, err := f.Load()
		require.NoError(t, err, name)
		assert.Equal(t, small(), got, "the old one stays")
		assert.Equal(t, []string{Name}, contents(t, dir), "nothing else stays")
	}
}

func BenchmarkEncode(b *testing.B) {
	n, err := nn.New(nn.Config{Channels: 3, Classes: 10})
	require.NoError(b, err)
	c := &Checkpoint{State: n.State()}
	b.SetBytes(int64(len(encode(b, c))))
	for b.Loop() {
		if err := c.Encode(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
