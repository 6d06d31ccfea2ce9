package cuda

import (
	"errors"
	"fmt"

	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
)

// Resident is a data set in the memory of a network's device, from where whole epochs are
// trained and tested without a wait: the host writes the order of the images, launches
// everything, and reads what came of it at the end.
type Resident struct {
	n           *Network
	train, test kernels.Images
	sizes       [2]int // of train and test
	batch       int
	seed        uint64
}

// Load puts a set on the device, for batches of up to so many images, shuffled and flipped
// by the seed, as [data.Loader] does it.
func (n *Network) Load(set *data.Set, batch int, seed uint64) (*Resident, error) {
	if set.Channels != n.cfg.Channels {
		return nil, fmt.Errorf("images of %d channels for a network for %d", set.Channels, n.cfg.Channels)
	}
	r := &Resident{n: n, sizes: [2]int{set.Train.Len(), set.Test.Len()}, batch: batch, seed: seed}
	for i, split := range []data.Split{set.Train, set.Test} {
		images := kernels.Images{Channels: set.Channels, Height: set.Height, Width: set.Width, Seed: seed, Augment: i == 0}
		for _, c := range []struct {
			at   *kernels.Pointer
			name string
			data []byte
			size int
		}{
			{&images.Pixels, "pixels", split.Pixels, len(split.Pixels)},
			{&images.Labels, "labels of images", split.Labels, len(split.Labels)},
			{&images.Order, "order of images", nil, split.Len() * 4},
		} {
			p, err := n.dev.Alloc(c.name, c.size)
			if err == nil && c.data != nil {
				err = n.dev.Write(p, c.data)
			}
			if err != nil {
				return nil, fmt.Errorf("data set of %d and %d images: %w", r.sizes[0], r.sizes[1], err)
			}
			*c.at = p
		}
		if i == 0 {
			r.train = images
		} else {
			r.test = images
		}
	}
	order := make([]int32, r.sizes[1])
	for i := range order {
		order[i] = int32(i)
	}
	return r, n.write(r.test.Order, order)
}

// Sums are what came of some images.
type Sums struct {
	Loss    float64 // the sum of the images' losses
	Correct int
	Images  int
	// NotFinite says that a loss was not finite: the steps after the last good one changed
	// nothing but running statistics.
	NotFinite bool
}

// TrainEpoch takes the steps of an epoch from its batch skip on.
func (r *Resident) TrainEpoch(epoch, skip int) (Sums, error) {
	order := make([]int32, r.sizes[0])
	data.Shuffle(order, r.seed, epoch)
	if err := r.n.write(r.train.Order, order); err != nil {
		return Sums{}, err
	}
	s, err := r.run(r.train, r.sizes[0], kernels.State{Step: uint64(r.n.step), Epoch: uint64(epoch), First: int32(skip * r.batch)}, true)
	if err != nil {
		return Sums{}, fmt.Errorf("epoch %d: %w", epoch+1, err)
	}
	r.n.step = int64(s.Step)
	return sums(s), nil
}

// Test evaluates all test images.
func (r *Resident) Test() (Sums, error) {
	s, err := r.run(r.test, r.sizes[1], kernels.State{}, false)
	if err != nil {
		return Sums{}, fmt.Errorf("test after step %d: %w", r.n.step, err)
	}
	return sums(s), nil
}

func sums(s kernels.State) Sums {
	return Sums{Loss: s.Sum, Correct: int(s.Correct), Images: int(s.Images), NotFinite: s.Stopped != 0}
}

// run launches everything that a split needs from the state's first image on.
func (r *Resident) run(from kernels.Images, size int, s kernels.State, train bool) (kernels.State, error) {
	n := r.n
	if err := n.write(n.state, s); err != nil {
		return s, err
	}
	n.launcher.failed = false
	for first := int(s.First); first < size; first += r.batch {
		images := min(r.batch, size-first)
		// The last batch may be a smaller one, with fewer parts of gradients.
		if err := n.reserve(images); err != nil {
			return s, err
		}
		err := errors.Join(n.set.Gather(n.blocks[0].x, n.labels, from, n.state, images), n.pass(images, train))
		if err != nil {
			return s, fmt.Errorf("images %d to %d: %w", first, first+images-1, err)
		}
	}
	return s, n.read(&s, n.state)
}
