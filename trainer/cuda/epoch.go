package cuda

import (
	"errors"
	"fmt"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// Resident is a data set in the memory of each of a network's devices, from where whole epochs are
// trained and tested without a wait: the host writes the order of the images, launches
// everything, and reads what came of it at the end.
type Resident struct {
	n           *Network
	train, test split
	batch       int
	seed        uint64
	shuffled    int // epoch whose order is on the device; -1: none

	// What recordings are of.
	recorded nn.Config
	reserved int
}

type split struct {
	images []kernels.Images // by replica
	size   int
	replay map[recording]Recording
}

// A recording is of a replica's half of batches of a size.
type recording struct {
	replica, batch int
	half           half
}

// Load puts a set on each device, for batches of up to so many images, shuffled and flipped
// by the seed, as [data.Loader] does it.
func (n *Network) Load(set *data.Set, batch int, seed uint64) (*Resident, error) {
	if set.Channels != n.cfg.Channels {
		return nil, fmt.Errorf("images of %d channels for a network for %d", set.Channels, n.cfg.Channels)
	}
	r := &Resident{n: n, batch: batch, seed: seed, shuffled: -1}
	for i, images := range []data.Split{set.Train, set.Test} {
		to := []*split{&r.train, &r.test}[i]
		to.size, to.replay = images.Len(), map[recording]Recording{}
		for _, replica := range n.replicas {
			on := kernels.Images{Channels: set.Channels, Height: set.Height, Width: set.Width, Seed: seed, Augment: i == 0}
			for _, c := range []struct {
				at   *kernels.Pointer
				name string
				data []byte
				size int
			}{
				{&on.Pixels, "pixels", images.Pixels, len(images.Pixels)},
				{&on.Labels, "labels of images", images.Labels, len(images.Labels)},
				{&on.Order, "order of images", nil, images.Len() * 4},
			} {
				p, err := replica.dev.Alloc(c.name, c.size)
				if err == nil && c.data != nil {
					err = replica.dev.Write(p, c.data)
				}
				if err != nil {
					return nil, fmt.Errorf("data set of %d and %d images: %w", set.Train.Len(), set.Test.Len(), err)
				}
				*c.at = p
			}
			to.images = append(to.images, on)
		}
	}
	order := make([]int32, r.test.size)
	for i := range order {
		order[i] = int32(i)
	}
	return r, r.order(&r.test, order)
}

// order writes in which order the images of a split are taken.
func (r *Resident) order(of *split, order []int32) error {
	for _, replica := range r.n.replicas {
		if err := replica.write(of.images[replica.index].Order, order); err != nil {
			return err
		}
	}
	return nil
}

// Train takes steps of an epoch, from its batch first on, as many as are asked for and left.
// It adds to the sums of the images until then, so that it doesn't matter for the sums in how
// many calls an epoch is taken.
func (r *Resident) Train(epoch, first, batches int, before nn.Sums) (nn.Sums, error) {
	if r.shuffled != epoch {
		order := make([]int32, r.train.size)
		data.Shuffle(order, r.seed, epoch)
		if err := r.order(&r.train, order); err != nil {
			return nn.Sums{}, err
		}
		r.shuffled = epoch
	}
	from := kernels.State{
		Step: uint64(r.n.step), Epoch: uint64(epoch), First: int32(first * r.batch),
		Sum: before.Loss, Correct: int32(before.Correct), Images: int32(before.Images),
	}
	s, err := r.run(&r.train, min(r.train.size, (first+batches)*r.batch), from, true)
	if err != nil {
		return nn.Sums{}, fmt.Errorf("epoch %d: %w", epoch+1, err)
	}
	r.n.step = int64(s.Step)
	return sums(s), nil
}

// Test evaluates all test images.
func (r *Resident) Test() (nn.Sums, error) {
	s, err := r.run(&r.test, r.test.size, kernels.State{}, false)
	if err != nil {
		return nn.Sums{}, fmt.Errorf("test after step %d: %w", r.n.step, err)
	}
	return sums(s), nil
}

func sums(s kernels.State) nn.Sums {
	return nn.Sums{Loss: s.Sum, Correct: int(s.Correct), Images: int(s.Images), NotFinite: s.Stopped != 0}
}

// run launches everything that a split needs from the state's first image to before the last
// one: a recording for each size of a batch, again and again, where the devices can record.
func (r *Resident) run(from *split, last int, s kernels.State, train bool) (kernels.State, error) {
	if err := r.n.begin(s); err != nil {
		return s, err
	}
	for first := int(s.First); first < last; first += r.batch {
		images := min(r.batch, last-first)
		if err := r.step(from, images, train); err != nil {
			return s, fmt.Errorf("images %d to %d: %w", first, first+images-1, err)
		}
	}
	return r.n.end()
}

// step launches a batch, whose place is in the state on the devices.
func (r *Resident) step(from *split, images int, train bool) error {
	n := r.n
	// The last batch may be a smaller one, with fewer parts of gradients.
	if err := n.reserve(images); err != nil {
		return err
	}
	if r.recorded != n.cfg || r.reserved != n.reserved { // arguments are recorded, too
		if err := errors.Join(r.train.drop(), r.test.drop()); err != nil {
			return fmt.Errorf("dropping recordings: %w", err)
		}
		r.recorded, r.reserved = n.cfg, n.reserved
	}
	return n.pass(train, func(p *replica) error {
		images := from.images[p.index]
		images.Order = plus(images.Order, p.planned.first) // as large as a float32
		return p.set.Gather(p.blocks[0].x, p.labels, images, p.state, p.planned.images)
	}, func(p *replica, h half, launches func() error) error {
		recorder, ok := p.dev.(Recorder)
		if !ok {
			return launches()
		}
		key := recording{p.index, images, h}
		replay := from.replay[key]
		if replay == nil {
			var err error
			if replay, err = recorder.Record(launches); err != nil {
				return fmt.Errorf("recording: %w", err)
			}
			from.replay[key] = replay
		}
		return replay.Replay()
	})
}

// drop destroys what was recorded.
func (s *split) drop() (err error) {
	for _, recording := range s.replay {
		err = errors.Join(err, recording.Destroy())
	}
	clear(s.replay)
	return err
}
