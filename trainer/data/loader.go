package data

import (
	"iter"
	"math/bits"
	"math/rand/v2"
)

// Loader hands out one split of a set in batches, of which it prepares one while
// another is in use. It allocates for each epoch, not for each batch.
type Loader struct {
	set     *Set
	split   Split
	batch   int
	augment bool
	seed    uint64
	order   []int32 // of the images in the epoch
	buffers [2]batch
}

type batch struct {
	images []float32
	labels []uint8
}

// NewLoader returns a loader of the training split, shuffled and flipped by
// the seed and the epoch, if augment is true, else of the test split in order.
// The last batch of an epoch has the images that are left.
func NewLoader(set *Set, batchSize int, augment bool, seed uint64) *Loader {
	l := &Loader{set: set, split: set.Test, augment: augment, seed: seed}
	if augment {
		l.split = set.Train
	}
	l.batch = min(batchSize, l.split.Len())
	l.order = make([]int32, l.split.Len())
	for i := range l.buffers {
		l.buffers[i] = batch{
			images: make([]float32, l.batch*set.Channels*Size*Size),
			labels: make([]uint8, l.batch),
		}
	}
	return l
}

// Batches is the number of batches in an epoch.
func (l *Loader) Batches() int { return (len(l.order) + l.batch - 1) / l.batch }

// Epoch yields the batches of an epoch from batch skip on: images as image,
// channel, line, column, 32x32, from -1 to 1, and their labels. They are valid
// until the next batch. Only one epoch may be in work at a time.
func (l *Loader) Epoch(epoch, skip int) iter.Seq2[[]float32, []uint8] {
	return func(yield func([]float32, []uint8) bool) {
		l.arrange(epoch)
		empty, full := make(chan batch, 2), make(chan batch, 2)
		empty <- l.buffers[0]
		empty <- l.buffers[1]
		go func() {
			defer close(full)
			for b := range l.Batches() - skip {
				into, ok := <-empty
				if !ok {
					return
				}
				first := (skip + b) * l.batch
				full <- l.fill(into, epoch, l.order[first:min(first+l.batch, len(l.order))])
			}
		}()
		for b := range full {
			if !yield(b.images, b.labels) {
				break
			}
			empty <- batch{b.images[:cap(b.images)], b.labels[:cap(b.labels)]}
		}
		// The goroutine must be gone before anything uses the buffers again.
		close(empty)
		for range full {
		}
	}
}

// arrange puts the images in the order of the epoch.
func (l *Loader) arrange(epoch int) {
	if l.augment {
		Shuffle(l.order, l.seed, epoch)
		return
	}
	for i := range l.order {
		l.order[i] = int32(i)
	}
}

// Shuffle sets order to the numbers of the images in the order of an epoch: a
// Fisher-Yates shuffle by PCG-DXSM, seeded with (seed, epoch).
func Shuffle(order []int32, seed uint64, epoch int) {
	for i := range order {
		order[i] = int32(i)
	}
	random := rand.NewPCG(seed, uint64(epoch))
	for i := len(order) - 1; i > 0; i-- {
		j, _ := bits.Mul64(random.Uint64(), uint64(i+1)) // 0 <= j <= i
		order[i], order[j] = order[j], order[i]
	}
}

// normalised are the values of pixels: (x/255 - 0.5) / 0.5, each operation
// rounded, as torchvision's ToTensor and Normalize(0.5, 0.5) do it. Padding is
// black, and thus -1.
var normalised = func() (t [256]float32) {
	for i := range t {
		t[i] = (float32(i)/255 - 0.5) / 0.5
	}
	return t
}()

// fill writes the images with the given numbers into a batch.
func (l *Loader) fill(into batch, epoch int, numbers []int32) batch {
	s := l.set
	const plane = Size * Size
	top, left := (Size-s.Height)/2, (Size-s.Width)/2
	into.images, into.labels = into.images[:len(numbers)*s.Channels*plane], into.labels[:len(numbers)]
	if s.Height < Size || s.Width < Size {
		for i := range into.images {
			into.images[i] = normalised[0]
		}
	}
	dst, pixels := into.images, s.Height*s.Width
	for i, number := range numbers {
		into.labels[i] = l.split.Labels[number]
		flip := l.augment && flipped(l.seed, epoch, int(number))
		src := l.split.Pixels[int(number)*s.Channels*pixels:]
		for range s.Channels {
			for y := range s.Height {
				out, in := dst[(top+y)*Size+left:][:s.Width], src[y*s.Width:][:s.Width]
				if flip {
					for x, v := range in {
						out[len(out)-1-x] = normalised[v]
					}
				} else {
					for x, v := range in {
						out[x] = normalised[v]
					}
				}
			}
			dst, src = dst[plane:], src[pixels:]
		}
	}
	return into
}

// flipped tosses a coin for an image in an epoch: whether left and right are
// swapped. It depends on nothing else, and so not on who prepares the image.
func flipped(seed uint64, epoch, image int) bool {
	return mix(mix(mix(seed)+uint64(epoch))+uint64(image))>>63 == 1
}

// mix is the output function of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
