// Package checkpoint keeps the state of a training run in a file, from which the
// run continues to the same bits. It knows the file's format and how to replace
// it without ever losing the last good one; not how to train.
//
// # Format, version 1
//
//	8 bytes   "BERTHCKP"
//	4 bytes   version, little-endian like all that follows
//	4 bytes   length of the header
//	          header: JSON, see the struct header
//	          the tensors' values, float32, in the header's order, row-major
//	32 bytes  SHA-256 of everything before
//
// The same state gives the same bytes: nothing in it tells the time, the
// machine or the number of workers.
package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/berthdev/berth/trainer/internal/atomic"
	"github.com/berthdev/berth/trainer/nn"
)

// A Checkpoint is a training run between two steps.
type Checkpoint struct {
	Run      Run
	Progress Progress
	State    nn.State
}

// Run is what must stay the same for a run to continue to the same bits, beside
// the network's own state.
type Run struct {
	Data       string `json:"data"` // name of the set
	DataSHA256 string `json:"data_sha256"`
	BatchSize  int    `json:"batch_size"`
}

// Progress is how far a run has come.
type Progress struct {
	Epochs []Epoch `json:"epochs"` // finished ones

	// Sums over the training steps of the epoch in work.
	LossSum float64 `json:"loss_sum"` // of each image's loss
	Correct int     `json:"correct"`
	Images  int     `json:"images"`
}

// Epoch is what one epoch gave. Losses are means over the images; while
// training, dropout is on and the network changes between batches.
type Epoch struct {
	TrainLoss     float64 `json:"train_loss"`
	TrainAccuracy float64 `json:"train_accuracy"`
	TestLoss      float64 `json:"test_loss"`
	TestAccuracy  float64 `json:"test_accuracy"`
}

const (
	magic   = "BERTHCKP"
	version = 1
	// maxHeader bounds the header: 100,000 epochs are below it.
	maxHeader = 16 << 20
	// maxFile bounds what is read of a file: checkpoints have 8 MB and the header.
	maxFile = 256 << 20
)

// header is what comes before the values. Of the network's configuration it
// lacks the number of workers, which may change.
type header struct {
	Run      Run      `json:"run"`
	Progress Progress `json:"progress"`
	Step     int64    `json:"step"`
	Seed     uint64   `json:"seed"`
	Channels int      `json:"channels"`
	Classes  int      `json:"classes"`
	LR       float32  `json:"lr"`
	Dropout  float32  `json:"dropout"`
	Tensors  []tensor `json:"tensors"`
}

type tensor struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

// Encode writes the checkpoint in its format.
func (c *Checkpoint) Encode(w io.Writer) error {
	h := header{
		Run: c.Run, Progress: c.Progress, Step: c.State.Step, Seed: c.State.Seed,
		Channels: c.State.Config.Channels, Classes: c.State.Config.Classes,
		LR: c.State.Config.LR, Dropout: c.State.Config.Dropout,
	}
	for _, t := range c.State.Tensors {
		h.Tensors = append(h.Tensors, tensor{t.Name, t.Shape})
	}
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	sum := sha256.New()
	out := io.MultiWriter(w, sum)
	start := binary.LittleEndian.AppendUint32([]byte(magic), version)
	start = binary.LittleEndian.AppendUint32(start, uint32(len(head)))
	if _, err := out.Write(append(start, head...)); err != nil {
		return err
	}
	for _, t := range c.State.Tensors {
		if err := binary.Write(out, binary.LittleEndian, t.Data); err != nil {
			return err
		}
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// Decode reads a checkpoint, or gives an error that says what is wrong with it.
// Whether it fits a network is for [nn.Network.Restore] to say.
func Decode(raw []byte) (*Checkpoint, error) {
	const start = len(magic) + 8
	switch {
	case len(raw) < len(magic) || string(raw[:len(magic)]) != magic:
		return nil, errors.New("it isn't a checkpoint of this trainer: its first bytes are not " + magic)
	case len(raw) < start+sha256.Size:
		return nil, fmt.Errorf("it is cut short, after %d bytes", len(raw))
	}
	if v := binary.LittleEndian.Uint32(raw[len(magic):]); v != version {
		return nil, fmt.Errorf("it has format version %d, this trainer reads version %d", v, version)
	}
	body, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errors.New("it is cut short or damaged: its SHA-256 isn't the one at its end")
	}
	length := binary.LittleEndian.Uint32(raw[len(magic)+4:])
	if length > maxHeader || int64(length) > int64(len(body)-start) {
		return nil, fmt.Errorf("its header claims %d bytes", length)
	}
	var h header
	decoder := json.NewDecoder(bytes.NewReader(body[start : start+int(length)]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&h); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	c := &Checkpoint{Run: h.Run, Progress: h.Progress, State: nn.State{
		Step: h.Step, Seed: h.Seed,
		Config: nn.Config{Seed: h.Seed, Channels: h.Channels, Classes: h.Classes, LR: h.LR, Dropout: h.Dropout},
	}}
	values := body[start+int(length):]
	for _, t := range h.Tensors {
		n, most := 1, len(values)/4
		for _, d := range t.Shape {
			if d < 0 || d > most || n > most {
				n = most + 1 // a product could overflow
				break
			}
			n *= d
		}
		if n > most { // also where the shape is empty: that is one value
			return nil, fmt.Errorf("tensor %q of shape %v is larger than what is there", t.Name, t.Shape)
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
		}
		values = values[4*n:]
		c.State.Tensors = append(c.State.Tensors, nn.Tensor{Name: t.Name, Shape: t.Shape, Data: data})
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("%d bytes are left after its last tensor", len(values))
	}
	if err := h.Progress.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (p Progress) check() error {
	if p.Images < 0 || p.Correct < 0 || p.Correct > p.Images {
		return fmt.Errorf("it counts %d of %d images as right", p.Correct, p.Images)
	}
	return nil
}

// Folder is where a run keeps its checkpoint.
type Folder struct {
	lock *os.File
	path string
}

// Name is the checkpoint's file in its folder. A run that starts anew keeps the
// one of an earlier run as Name + ".1", or the first number above all that are
// there: the oldest has the lowest.
const Name = "trainer.checkpoint"

// Open makes the folder if need be and takes it for this process, until
// [Folder.Close] or the end of the process: two runs with one folder would
// overwrite each other's checkpoint.
func Open(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another trainer writes its checkpoints to %s. Wait for it, or give this one its own --checkpoint-dir", dir)
	} else if err != nil && !errors.Is(err, syscall.ENOTSUP) && !errors.Is(err, syscall.ENOSYS) && !errors.Is(err, syscall.ENOLCK) {
		err = fmt.Errorf("checkpoints: lock %s: %w", dir, err)
	} else {
		err = nil // Some network file systems have no locks, but room for checkpoints.
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Folder{lock: f, path: filepath.Join(dir, Name)}, nil
}

// Close gives the folder back.
func (f *Folder) Close() error { return f.lock.Close() }

// Path is the checkpoint's file.
func (f *Folder) Path() string { return f.path }

// Load reads the checkpoint. The error wraps [os.ErrNotExist] if there is none.
func (f *Folder) Load() (*Checkpoint, error) {
	raw, err := readFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	c, err := Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", f.path, err)
	}
	return c, nil
}

// Save replaces the checkpoint, durably. If it can't, the old one stays.
func (f *Folder) Save(c *Checkpoint) error {
	if err := atomic.Rewrite(f.path, c.Encode); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// SaveNew is Save for a run that starts anew: the checkpoint of an earlier run, if
// there is one, is kept under the name that is returned. It gets that name only
// when the new one is complete on the disk.
func (f *Folder) SaveNew(c *Checkpoint) (kept string, err error) {
	err = atomic.Replace(f.path, c.Encode, func() error {
		kept, err = f.keep()
		return err
	})
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	return kept, nil
}

// keep gives the checkpoint another name that nothing has, if there is a
// checkpoint.
func (f *Folder) keep() (string, error) {
	kept, err := f.Kept()
	if err != nil {
		return "", err
	}
	number := 1
	if len(kept) > 0 {
		last, _ := f.number(kept[len(kept)-1])
		number += last
	}
	name := fmt.Sprintf("%s.%d", f.path, number)
	info, err := os.Lstat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	// With two names for a moment, there is a checkpoint whenever the power fails.
	// A symbolic link must go away itself, or the new one would go where it leads.
	if info.Mode().IsRegular() && os.Link(f.path, name) == nil {
		return name, nil
	}
	return name, os.Rename(f.path, name) // Not every file system has hard links.
}

// Kept lists the checkpoints of earlier runs that later ones have kept, the oldest
// first.
func (f *Folder) Kept() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return nil, err
	}
	var kept []string
	for _, e := range entries {
		name := filepath.Join(filepath.Dir(f.path), e.Name())
		if _, ok := f.number(name); ok {
			kept = append(kept, name)
		}
	}
	slices.SortFunc(kept, func(a, b string) int {
		x, _ := f.number(a)
		y, _ := f.number(b)
		return x - y
	})
	return kept, nil
}

// number reads the number at the end of a kept checkpoint's name.
func (f *Folder) number(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, f.path+".")
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), ok && err == nil
}

// readFile reads a file, unless it can't be a checkpoint: what is read takes
// memory.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", name)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%s has %d bytes, but no checkpoint of this trainer has more than %d: it is damaged, or something else",
			name, info.Size(), maxFile)
	}
	return os.ReadFile(name)
}
