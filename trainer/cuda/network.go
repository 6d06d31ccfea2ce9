// Package cuda trains the network of the package nn on an NVIDIA GPU.
//
// It decides which kernels run, in which order and on what memory; a [Device] does
// that. It knows no driver: its tests run it on an interpreter of the PTX that ships.
// It has not yet run on a GPU.
//
// A network here is that of the package nn, with the same initial values, random
// numbers and state, so that a checkpoint can go on either. Their results differ by
// rounding alone: sums over pixels and images have another order here. That order is
// fixed, so the same GPU gives the same bits in every run.
package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/nn"
)

// A Device is a GPU: its memory, and the kernels that run on it. What is called later
// sees what was called before as done.
type Device interface {
	kernels.Launcher
	// Alloc reserves memory, aligned to 256 bytes. The name is for errors.
	Alloc(name string, bytes int) (kernels.Pointer, error)
	Free(kernels.Pointer) error
	Write(to kernels.Pointer, data []byte) error
	Read(data []byte, from kernels.Pointer) error
}

// A Recorder is a Device that can record launches, which then don't run, and run them again
// and again as one.
type Recorder interface {
	Device
	Record(launches func() error) (Recording, error)
}

// A Recording is launches that a [Recorder] has recorded.
type Recording interface {
	Replay() error
	// Destroy frees what the device has of it, once replays that still run have ended. It
	// can't be replayed then.
	Destroy() error
}

// Network is a network on a GPU, with its optimiser's state.
type Network struct {
	dev      Device
	set      kernels.Set
	launcher *launcher
	cfg      nn.Config
	step     int64

	params     []param           // in the order of the state
	statistics map[string]vector // running ones, by name
	list       []nn.Tensor       // names and shapes of what a state has
	blocks     []*block
	linear     linear
	w, m, v    vector // all parameters, and Adam's moments

	// Of batches of up to capacity images, and of exactly planned ones.
	capacity, planned           int
	reserved                    int                     // how often memory for batches was made anew
	plans                       map[int]kernels.Pointer // pieces, by the number of images
	owned                       []kernels.Pointer
	images, labels, state       kernels.Pointer
	sums, dx, gradients, pieces kernels.Pointer
	features, logits, df, loss  kernels.Pointer
	hits                        kernels.Pointer
	count                       int // of pieces
}

// New puts a network with the initial values of the package nn on a device.
func New(dev Device, cfg nn.Config, precision kernels.Precision) (*Network, error) {
	host, err := nn.New(cfg)
	if err != nil {
		return nil, err
	}
	l := &launcher{Launcher: dev}
	n := &Network{dev: dev, launcher: l, set: kernels.Set{Launcher: l, Precision: precision}, statistics: map[string]vector{}, plans: map[int]kernels.Pointer{}}
	initial := host.State()
	for _, t := range initial.Tensors {
		n.list = append(n.list, nn.Tensor{Name: t.Name, Shape: t.Shape})
	}
	n.cfg = initial.Config
	if err := n.place(); err != nil {
		return nil, err
	}
	return n, n.Restore(initial)
}

// Step is the number of training steps taken so far.
func (n *Network) Step() int64 { return n.step }

// NumParameters is the number of trained values.
func (n *Network) NumParameters() int {
	sum := 0
	for _, p := range n.params {
		sum += p.size
	}
	return sum
}

// TrainStep is that of [nn.Network].
func (n *Network) TrainStep(images []float32, labels []uint8) (loss float64, correct int, err error) {
	if err := n.cfg.CheckBatch(images, labels); err != nil {
		return 0, 0, err
	}
	s, err := n.run(images, labels, kernels.State{Step: uint64(n.step)}, true)
	if err != nil {
		return 0, 0, fmt.Errorf("step %d: %w", n.step+1, err)
	}
	n.step = int64(s.Step)
	return s.Loss, int(s.Correct), nil
}

// evalImages is how many images Evaluate takes at a time.
const evalImages = 256

// Evaluate is that of [nn.Network].
func (n *Network) Evaluate(images []float32, labels []uint8) (loss float64, correct int, err error) {
	if len(labels) == 0 && len(images) == 0 {
		return 0, 0, nil
	}
	if err := n.cfg.CheckBatch(images, labels); err != nil {
		return 0, 0, err
	}
	size := len(images) / len(labels)
	for len(labels) > 0 {
		k := min(evalImages, len(labels))
		s, err := n.run(images[:k*size], labels[:k], kernels.State{}, false)
		if err != nil {
			return 0, 0, fmt.Errorf("evaluation after step %d: %w", n.step, err)
		}
		loss += s.Loss * float64(k) // the sum, also where it isn't finite
		correct += int(s.Correct)
		images, labels = images[k*size:], labels[k:]
	}
	return loss, correct, nil
}

// run takes a batch through the network, and in training back, and returns the state then.
func (n *Network) run(images []float32, labels []uint8, s kernels.State, train bool) (kernels.State, error) {
	numbers := make([]int32, len(labels))
	for i, l := range labels {
		numbers[i] = int32(l)
	}
	if err := n.reserve(len(labels)); err != nil {
		return s, err
	}
	err := errors.Join(n.write(n.images, images), n.write(n.labels, numbers), n.write(n.state, s))
	if err != nil {
		return s, err
	}
	n.launcher.failed = false
	err = errors.Join(n.set.Haar(n.blocks[0].x, n.images, len(labels), n.cfg.Channels), n.pass(len(labels), train))
	if err != nil {
		return s, err
	}
	return s, n.read(&s, n.state)
}

// pass takes the input of the first block through the network, and in training back.
func (n *Network) pass(images int, train bool) error {
	err := n.forward(images, train)
	if train {
		err = errors.Join(err, n.backward(images), n.set.Adam(n.w.at, n.m.at, n.v.at, n.gradients, n.pieces, n.state, n.count, n.cfg.LR))
	}
	return err
}

// State returns a copy of the network's state.
func (n *Network) State() (nn.State, error) {
	s := nn.State{Step: n.step, Seed: n.cfg.Seed, Config: n.cfg}
	for _, t := range n.list {
		v, index := n.stored(t)
		stored := make([]float32, v.size)
		if err := n.read(stored, v.at); err != nil {
			return nn.State{}, fmt.Errorf("%s: %w", t.Name, err)
		}
		t.Shape = slices.Clone(t.Shape)
		t.Data = make([]float32, v.size)
		for i := range t.Data {
			t.Data[i] = stored[index(i)]
		}
		s.Tensors = append(s.Tensors, t)
	}
	return s, nil
}

// Restore is that of [nn.Network].
func (n *Network) Restore(s nn.State) error {
	host, err := nn.New(n.cfg)
	if err != nil {
		return err
	}
	if err := host.Restore(s); err != nil {
		return err
	}
	s = host.State()
	for _, t := range s.Tensors {
		v, index := n.stored(t)
		stored := make([]float32, v.size)
		for i, x := range t.Data {
			stored[index(i)] = x
		}
		if err := n.write(v.at, stored); err != nil {
			return fmt.Errorf("restore %s: %w", t.Name, err)
		}
	}
	n.cfg, n.step = s.Config, s.Step
	return nil
}

// write copies a value of fixed size, or a slice, to the device.
func (n *Network) write(to kernels.Pointer, v any) error {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return err
	}
	return n.dev.Write(to, b)
}

func (n *Network) read(v any, from kernels.Pointer) error {
	b := make([]byte, binary.Size(v))
	if err := n.dev.Read(b, from); err != nil {
		return err
	}
	return binary.Read(bytes.NewReader(b), binary.LittleEndian, v)
}

// launcher launches nothing more once a launch has failed.
type launcher struct {
	kernels.Launcher
	failed bool
}

func (l *launcher) Launch(kernel string, grid, block [3]int, args ...any) error {
	if l.failed {
		return nil
	}
	err := l.Launcher.Launch(kernel, grid, block, args...)
	if l.failed = err != nil; l.failed {
		return fmt.Errorf("kernel %s: %w", kernel, err)
	}
	return nil
}
