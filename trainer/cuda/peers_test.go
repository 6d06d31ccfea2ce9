package cuda

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// peer is one of several devices. It does nothing before somebody waits for it, and no more
// than that one needs: each device is as far behind the others, and before them, as it may be.
type peer struct {
	*interpreter
	name          string
	queue         []func() error
	asked, marked int   // marks that were asked for, and those that were reached
	leader        *peer // which does what it can whenever somebody waits

	ignores func(follow int) bool // which of the marks of others it doesn't follow; nil: none
	follows int
	confuse func(to kernels.Pointer) kernels.Pointer // where what it fetches arrives
}

// newPeers returns so many devices, of which one goes ahead.
func newPeers(t testing.TB, n, leader int) (all []*peer, devices []Device) {
	first := newInterpreter(t)
	for i := range n {
		d := first
		if i > 0 {
			d = newInterpreter(t)
			d.modules = first.modules
		}
		p := &peer{interpreter: d, name: fmt.Sprint("GPU ", i)}
		all, devices = append(all, p), append(devices, p)
	}
	for _, p := range all {
		p.leader = all[leader]
	}
	return all, devices
}

func (p *peer) String() string { return p.name }

// wait does what was asked for until a mark, or all of it.
func (p *peer) wait(mark int) error {
	for len(p.queue) > 0 && (mark < 0 || p.marked < mark) {
		next := p.queue[0]
		p.queue = p.queue[1:]
		if err := next(); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) later(f func() error) error {
	p.queue = append(p.queue, f)
	return nil
}

func (p *peer) Launch(kernel string, grid, block [3]int, args ...any) error {
	args = slices.Clone(args)
	return p.later(func() error { return p.interpreter.Launch(kernel, grid, block, args...) })
}

func (p *peer) Free(at kernels.Pointer) error {
	return errors.Join(p.wait(-1), p.interpreter.Free(at))
}

func (p *peer) Write(to kernels.Pointer, data []byte) error {
	return errors.Join(p.wait(-1), p.interpreter.Write(to, data))
}

func (p *peer) Read(data []byte, from kernels.Pointer) error {
	return errors.Join(p.leader.wait(-1), p.wait(-1), p.interpreter.Read(data, from))
}

func (p *peer) Mark() error {
	p.asked++
	n := p.asked
	return p.later(func() error { p.marked = n; return nil })
}

func (p *peer) Follow(other Peer) error {
	o := other.(*peer)
	mark := o.asked
	if p.follows++; p.ignores != nil && p.ignores(p.follows) {
		return nil
	}
	return p.later(func() error { return o.wait(mark) })
}

func (p *peer) Fetch(to kernels.Pointer, from Peer, at kernels.Pointer, bytes int) error {
	o := from.(*peer)
	if p.confuse != nil {
		to = p.confuse(to)
	}
	return p.later(func() error {
		b := make([]byte, bytes)
		return errors.Join(o.interpreter.Read(b, at), p.interpreter.Write(to, b))
	})
}

// TestPeersAgainstCPU takes a step on three devices. That is what the CPU makes of each part
// of the batch alone: gradients are the parts' mean, weighted by their images, and running
// statistics those of the first part.
func TestPeersAgainstCPU(t *testing.T) {
	whole(t)
	const images = 4
	cfg := nn.Config{Channels: 1, Classes: 10, Seed: 11}
	_, devices := newPeers(t, 3, 1)
	n, err := New(devices, cfg, kernels.FP32)
	require.NoError(t, err)
	x, y := batch(12, images, 1)
	loss, correct, err := n.TrainStep(x, y)
	require.NoError(t, err)
	got := state(t, n)

	var wantLoss float64
	var wantCorrect int
	want := map[string][]float32{}
	size := len(x) / images
	for i, part := range [][2]int{{0, 2}, {2, 3}, {3, 4}} {
		assert.Equal(t, part, [2]int{n.replicas[i].planned.first, n.replicas[i].planned.first + n.replicas[i].planned.images})
		cpu, err := nn.New(cfg)
		require.NoError(t, err)
		l, c, err := cpu.TrainStep(x[part[0]*size:part[1]*size], y[part[0]:part[1]])
		require.NoError(t, err)
		share := float64(part[1]-part[0]) / images
		wantLoss += l * share
		wantCorrect += c
		for name, v := range tensors(cpu.State()) {
			switch {
			case i == 0 && strings.Contains(name, ".running_"):
				want[name] = v
			case strings.HasPrefix(name, "adam.m."):
				if i == 0 {
					want[name] = make([]float32, len(v))
				}
				for k := range v {
					want[name][k] += float32(share * float64(v[k]))
				}
			}
		}
	}
	assert.InEpsilon(t, wantLoss, loss, 1e-6)
	assert.Equal(t, wantCorrect, correct)
	assert.Len(t, want, 38+24)
	for name, v := range want {
		assert.Less(t, apart(got[name], v), 1e-4, name)
	}

	// Of one image two devices have none: what they came to before doesn't count.
	from, err := n.State()
	require.NoError(t, err)
	cpu, err := nn.New(cfg)
	require.NoError(t, err)
	require.NoError(t, cpu.Restore(from))
	wantLoss, _, err = cpu.TrainStep(x[:size], y[:1])
	require.NoError(t, err)
	loss, _, err = n.TrainStep(x[:size], y[:1])
	require.NoError(t, err)
	assert.InEpsilon(t, wantLoss, loss, 1e-5)
	got, want = state(t, n), tensors(cpu.State())
	for name := range want {
		if strings.HasPrefix(name, "adam.m.") || strings.Contains(name, ".running_") {
			assert.Less(t, apart(got[name], want[name]), 1e-4, name)
		}
	}
}

// TestPeersTakeTheEpochOfOne: images, order, flips and dropout are those of one device; the
// replicas stay the same, whichever device is ahead; and what they have is that of batches
// from the host.
func TestPeersTakeTheEpochOfOne(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	whole(t)
	const batch, seed, epoch = 2, 5, 3
	s := set(3, 1) // the second batch is one image, of which a device has none
	cfg := nn.Config{Channels: 1, Classes: 10, Seed: seed, Dropout: 0.5}
	_, devices := newPeers(t, 2, 0)
	n, err := New(devices, cfg, kernels.FP32)
	require.NoError(t, err)
	r, err := n.Load(s, batch, seed)
	require.NoError(t, err)
	sums, err := r.Train(epoch, 0, 1, nn.Sums{})
	require.NoError(t, err)

	one, err := New([]Device{newInterpreter(t)}, cfg, kernels.FP32)
	require.NoError(t, err)
	single, err := one.Load(s, batch, seed)
	require.NoError(t, err)
	require.NoError(t, one.begin(kernels.State{Epoch: epoch}))
	require.NoError(t, single.order(&single.train, order(s, seed, epoch)))
	require.NoError(t, single.step(&single.train, batch, false)) // no way back
	whole := one.replicas[0]
	require.NoError(t, whole.forward(whole.planned, true))
	for _, p := range n.replicas {
		at := p.planned
		want, got := floats(t, whole, whole.blocks[0].x, at.first, at.images, 16*16*4), floats(t, p, p.blocks[0].x, 0, at.images, 16*16*4)
		assert.Equal(t, want, got, "input")
		assert.Equal(t, dropped(t, whole, at.first, at.images), dropped(t, p, 0, at.images), "dropout")
	}

	sums, err = r.Train(epoch, 1, 9, sums)
	require.NoError(t, err)
	assert.EqualValues(t, 2, n.Step())
	after := state(t, n)
	tested, err := r.Test()
	require.NoError(t, err)
	assert.Equal(t, 1, tested.Images)

	_, devices = newPeers(t, 2, 1)
	hosted, err := New(devices, cfg, kernels.FP32)
	require.NoError(t, err)
	var got nn.Sums
	for images, labels := range data.NewLoader(s, batch, true, seed).Epoch(epoch, 0) {
		loss, correct, err := hosted.TrainStep(images, labels)
		require.NoError(t, err)
		got = nn.Sums{Loss: got.Loss + loss*float64(len(labels)), Correct: got.Correct + correct, Images: got.Images + len(labels)}
	}
	assert.InEpsilon(t, sums.Loss, got.Loss, 1e-14)
	got.Loss = sums.Loss
	assert.Equal(t, sums, got)
	assert.Equal(t, after, state(t, hosted))
}

// order is that of a set's images in an epoch.
func order(s *data.Set, seed uint64, epoch int) []int32 {
	all := make([]int32, s.Train.Len())
	data.Shuffle(all, seed, epoch)
	return all
}

// floats reads values of some images.
func floats(t *testing.T, r *replica, at kernels.Pointer, first, images, each int) []float32 {
	v := make([]float32, images*each)
	require.NoError(t, r.read(v, plus(at, first*each)))
	return v
}

// dropped are the channels of the first block that are zero everywhere: a ReLU alone does
// that to hardly any.
func dropped(t *testing.T, r *replica, first, images int) (all []bool) {
	v := floats(t, r, r.blocks[0].a1, first, images, 16*16*16)
	for n := range images {
		for c := range 16 {
			zero := true
			for i := range 16 * 16 {
				zero = zero && v[(n*16*16+i)*16+c] == 0
			}
			all = append(all, zero)
		}
	}
	assert.Contains(t, all, true)
	assert.Contains(t, all, false)
	return all
}

// TestFaultsOfPeersAreFound plants some. Two devices take two batches without a wait, three
// one step.
func TestFaultsOfPeersAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	whole(t)
	cfg := nn.Config{Channels: 1, Classes: 10, Seed: 14}
	train := func(ignores func(follow int) bool) error {
		all, devices := newPeers(t, 2, 1)
		n, err := New(devices, cfg, kernels.FP32)
		require.NoError(t, err)
		r, err := n.Load(set(4, 1), 2, 0)
		require.NoError(t, err)
		all[1].ignores = ignores
		_, err = r.Train(0, 0, 2, nn.Sums{})
		return err
	}
	err := train(func(follow int) bool { return follow%2 == 1 })
	assert.ErrorContains(t, err, "was never written", "fetched before it is there")
	err = train(func(follow int) bool { return follow%2 == 0 })
	assert.ErrorContains(t, err, "GPU 1 has other losses than GPU 0, which must be the same to the bit", "changed before the others have it")

	all, devices := newPeers(t, 3, 1)
	n, err := New(devices, cfg, kernels.FP32)
	require.NoError(t, err)
	r := n.replicas[1]
	all[1].confuse = func(to kernels.Pointer) kernels.Pointer { // the third one's gradients come first
		switch to {
		case r.sumsOf(0):
			return r.sumsOf(2)
		case r.sumsOf(2):
			return r.sumsOf(0)
		}
		return to
	}
	x, y := batch(13, 3, 1)
	_, _, err = n.TrainStep(x, y)
	require.NoError(t, err)
	_, err = n.State()
	assert.ErrorContains(t, err, "GPU 1 has other values of block1.conv1.weight than GPU 0")
}

// TestSeveralDevicesMustBePeers names which one isn't.
func TestSeveralDevicesMustBePeers(t *testing.T) {
	d := newInterpreter(t)
	_, err := New([]Device{d, d}, nn.Config{Channels: 1, Classes: 10}, kernels.FP32)
	assert.EqualError(t, err, "a *cuda.interpreter can't work together with others")
}
