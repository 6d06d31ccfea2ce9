// Package cuda trains the network of the package nn on NVIDIA GPUs.
//
// It decides which kernels run, in which order and on what memory; a [Device] does
// that. It knows no driver: its tests run it on an interpreter of the PTX that ships.
// It has not yet run on a GPU.
//
// A network here is that of the package nn, with the same initial values, random
// numbers and state, so that a checkpoint can go on either. Their results differ by
// rounding alone: sums over pixels and images have another order here. That order is
// fixed, so the same GPU gives the same bits in every run.
//
// On several GPUs each has a replica of the network, and takes its part of each batch. What
// that changes is said at [New].
package cuda

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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

// Network is a network on one GPU or several, with its optimiser's state.
type Network struct {
	replicas []*replica
	cfg      nn.Config
	step     int64
	list     []nn.Tensor // names and shapes of what a state has
	capacity int         // images of a batch that there is memory for
	reserved int         // how often memory for batches was made anew
}

// A replica is a network on a GPU, which takes its part of each batch.
type replica struct {
	dev      Device
	index    int // of so many
	replicas int
	set      kernels.Set
	launcher *launcher
	cfg      *nn.Config // the network's

	params     []param           // in the order of the state
	statistics map[string]vector // running ones, by name
	blocks     []*block
	linear     linear
	w, m, v    vector // all parameters, and Adam's moments
	running    vector // all running statistics
	state      kernels.Pointer

	// The replicas' gradients, one after the other, each as the parameters lie. There are none
	// of a single one, whose gradients Adam takes from their parts.
	sums kernels.Pointer

	// For batches of up to the network's capacity, and of exactly planned ones.
	owned                []kernels.Pointer
	plans                map[int]plan // by the number of a batch's images
	planned              part
	current              plan
	images, labels       kernels.Pointer
	moments, dx          kernels.Pointer
	gradients            vector
	features, logits, df kernels.Pointer
	losses, hits         kernels.Pointer // of the whole batch
}

// New puts a network with the initial values of the package nn on devices; several must be
// a [Peer] each.
//
// Of several, each has a replica of the network, and takes a part of each batch: neighbouring
// images, in the order of the devices. They exchange their gradients, and each adds them in
// the order of the devices and takes the same step, so that all replicas stay the same to the
// bit. Against one device, two things change beside the order of sums: each part is normalised
// by its own mean and variance, as PyTorch's DistributedDataParallel does it, and the running
// statistics are those of the first device's parts. Images, order, flips and dropout are those
// of one device, and the loss is the mean over the whole batch.
func New(devices []Device, cfg nn.Config, precision kernels.Precision) (*Network, error) {
	host, err := nn.New(cfg)
	if err != nil {
		return nil, err
	}
	initial := host.State()
	n := &Network{cfg: initial.Config}
	for _, t := range initial.Tensors {
		n.list = append(n.list, nn.Tensor{Name: t.Name, Shape: t.Shape})
	}
	for i, dev := range devices {
		if _, ok := dev.(Peer); len(devices) > 1 && !ok {
			return nil, fmt.Errorf("a %T can't work together with others", dev)
		}
		l := &launcher{Launcher: dev}
		r := &replica{
			dev: dev, index: i, replicas: len(devices), set: kernels.Set{Launcher: l, Precision: precision}, launcher: l, cfg: &n.cfg,
			statistics: map[string]vector{}, plans: map[int]plan{},
		}
		if err := r.place(n.list); err != nil {
			return nil, err
		}
		n.replicas = append(n.replicas, r)
	}
	return n, n.Restore(initial)
}

// Step is the number of training steps taken so far.
func (n *Network) Step() int64 { return n.step }

// NumParameters is the number of trained values.
func (n *Network) NumParameters() int {
	sum := 0
	for _, p := range n.replicas[0].params {
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
		loss += float64(s.Loss * float64(k)) // the sum, also where it isn't finite, rounded before it is added
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
	size := len(images) / len(labels)
	for _, r := range n.replicas {
		p := r.planned
		err := errors.Join(r.write(r.images, images[p.first*size:][:p.images*size]), r.write(r.labels, numbers[p.first:][:p.images]))
		if err != nil {
			return s, err
		}
	}
	if err := n.begin(s); err != nil {
		return s, err
	}
	err := n.pass(train, func(r *replica) error {
		return r.set.Haar(r.blocks[0].x, r.images, r.planned.images, n.cfg.Channels)
	}, func(_ *replica, _ half, launches func() error) error { return launches() })
	if err != nil {
		return s, err
	}
	return n.end()
}

// begin has all replicas begin with a state.
func (n *Network) begin(s kernels.State) error {
	for _, r := range n.replicas {
		if err := r.write(r.state, s); err != nil {
			return err
		}
	}
	return nil
}

// end waits for all replicas, and returns the state that they came to.
func (n *Network) end() (s kernels.State, err error) {
	first := make([]byte, binary.Size(s))
	for i, r := range n.replicas {
		b := make([]byte, len(first))
		if err := r.dev.Read(b, r.state); err != nil {
			return s, err
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			return s, n.apart(r, "losses")
		}
	}
	return s, binary.Read(bytes.NewReader(first), binary.LittleEndian, &s)
}

// A half of what a replica does with a batch: before replicas exchange their results, and
// after that.
type half int

const (
	beforeExchange half = iota
	afterExchange
)

// pass takes the batch that is planned through the network, and in training back. input makes
// the input of a replica's first block. run runs launches, or records and replays them: those
// of a replica's half of a batch are always the same.
func (n *Network) pass(train bool, input func(*replica) error, run func(r *replica, h half, launches func() error) error) error {
	if len(n.replicas) == 1 {
		r := n.replicas[0]
		return run(r, beforeExchange, r.launches(func() error { return errors.Join(r.compute(train, input), r.update(train)) }))
	}
	for _, r := range n.replicas {
		if r.planned.images > 0 {
			if err := run(r, beforeExchange, r.launches(func() error { return r.compute(train, input) })); err != nil {
				return err
			}
		}
	}
	if err := n.exchange(train); err != nil {
		return err
	}
	for _, r := range n.replicas {
		if err := run(r, afterExchange, r.launches(func() error { return r.update(train) })); err != nil {
			return err
		}
	}
	// What a replica gave to the others it may change when they have it.
	return n.meet()
}

// launches begins anew after a launch has failed.
func (r *replica) launches(f func() error) func() error {
	return func() error {
		r.launcher.failed = false
		return f()
	}
}

// compute takes a replica's part of a batch through the network, and in training back.
func (r *replica) compute(train bool, input func(*replica) error) error {
	err := errors.Join(input(r), r.forward(r.planned, train))
	if train {
		err = errors.Join(err, r.backward(r.planned))
	}
	if train && r.replicas > 1 {
		err = errors.Join(err, r.set.SumParts(r.sumsOf(r.index), r.gradients.at, r.current.pieces, r.current.count))
	}
	return err
}

// sumsOf is where the gradients of a replica are.
func (r *replica) sumsOf(index int) kernels.Pointer { return plus(r.sums, index*r.w.size) }

// update adds the losses and hits of a batch to the state, and in training takes the step.
func (r *replica) update(train bool) error {
	err := r.set.Loss(r.state, r.losses, r.hits, r.planned.batch, train)
	if train {
		gradients := r.gradients.at
		if r.replicas > 1 {
			gradients = r.sums
		}
		err = errors.Join(err, r.set.Adam(r.w.at, r.m.at, r.v.at, gradients, r.current.sums, r.state, r.current.count, r.cfg.LR))
	}
	return err
}

// State returns a copy of the network's state. Of several replicas it sees that they are the
// same; for Adam's moments that shows in the parameters, a step later.
func (n *Network) State() (nn.State, error) {
	s := nn.State{Step: n.step, Seed: n.cfg.Seed, Config: n.cfg}
	for _, t := range n.list {
		r := n.replicas[0]
		v, index := r.stored(t)
		stored := make([]byte, v.size*floatSize)
		if err := r.dev.Read(stored, v.at); err != nil {
			return nn.State{}, fmt.Errorf("%s: %w", t.Name, err)
		}
		if !strings.HasPrefix(t.Name, "adam.") {
			for _, other := range n.replicas[1:] {
				v, _ := other.stored(t)
				b := make([]byte, len(stored))
				if err := other.dev.Read(b, v.at); err != nil {
					return nn.State{}, fmt.Errorf("%s: %w", t.Name, err)
				}
				if !bytes.Equal(b, stored) {
					return nn.State{}, n.apart(other, "values of "+t.Name)
				}
			}
		}
		t.Shape = slices.Clone(t.Shape)
		t.Data = make([]float32, v.size)
		for i := range t.Data {
			t.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(stored[index(i)*floatSize:]))
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
		for _, r := range n.replicas {
			v, index := r.stored(t)
			stored := make([]float32, v.size)
			for i, x := range t.Data {
				stored[index(i)] = x
			}
			if err := r.write(v.at, stored); err != nil {
				return fmt.Errorf("restore %s: %w", t.Name, err)
			}
		}
	}
	n.cfg, n.step = s.Config, s.Step
	return nil
}

// write copies a value of fixed size, or a slice, to the device.
func (r *replica) write(to kernels.Pointer, v any) error {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return err
	}
	return r.dev.Write(to, b)
}

func (r *replica) read(v any, from kernels.Pointer) error {
	b := make([]byte, binary.Size(v))
	if err := r.dev.Read(b, from); err != nil {
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
