package data

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	sample "github.com/berthdev/berth/testdata/fashion-mnist-1000"
)

func sampleSet(t testing.TB) *Set {
	set, err := Load(sample.Files, true)
	require.NoError(t, err)
	return set
}

// all collects an epoch.
func all(l *Loader, epoch, skip int) (images []float32, labels []uint8) {
	for i, y := range l.Epoch(epoch, skip) {
		images, labels = append(images, i...), append(labels, y...)
	}
	return images, labels
}

// TestPixels compares a batch with the definition, pixel by pixel, without
// the shortcuts of the loader.
func TestPixels(t *testing.T) {
	set := &Set{Channels: 3, Height: 31, Width: 28}
	n := 50
	for i := range n * 3 * 31 * 28 {
		set.Train.Pixels = append(set.Train.Pixels, uint8(i*i/7))
	}
	for i := range n {
		set.Train.Labels = append(set.Train.Labels, uint8(i%10))
	}
	const seed, epoch = 5, 3
	l := NewLoader(set, n, true, seed)
	images, labels := all(l, epoch, 0)
	flips := 0
	for i, number := range l.order {
		require.Equal(t, set.Train.Labels[number], labels[i])
		flip := flipped(seed, epoch, int(number))
		if flip {
			flips++
		}
		for c := range 3 {
			for y := range 32 {
				for x := range 32 {
					want := float32(-1)
					sx, sy := x-2, y-0 // 31 lines: the odd one of padding is below
					if flip {
						sx = 27 - sx
					}
					if sx >= 0 && sx < 28 && sy < 31 {
						v := set.Train.Pixels[((int(number)*3+c)*31+sy)*28+sx]
						want = (float32(v)/255 - 0.5) / 0.5
					}
					require.Equal(t, want, images[((i*3+c)*32+y)*32+x], "image %d channel %d line %d column %d", i, c, y, x)
				}
			}
		}
	}
	assert.Greater(t, flips, 10)
	assert.Less(t, flips, 40)
}

func TestNormalised(t *testing.T) {
	assert.Equal(t, float32(-1), normalised[0])
	assert.Equal(t, float32(1), normalised[255])
	assert.InDelta(t, 0.003922, normalised[128], 1e-6)
}

func TestOrder(t *testing.T) {
	set := sampleSet(t)
	l := NewLoader(set, 64, true, 1)
	l.arrange(0)
	first := slices.Clone(l.order)
	sorted := slices.Clone(first)
	slices.Sort(sorted)
	for i, v := range sorted {
		require.Equal(t, int32(i), v, "every image once")
	}
	// Fixed permanently: another order would be another training.
	assert.Equal(t, []int32{782, 259, 423, 117, 562, 428}, first[:6])
	l.arrange(1)
	assert.NotEqual(t, first, l.order)
	l.arrange(0)
	assert.Equal(t, first, l.order)
	other := NewLoader(set, 64, true, 2)
	other.arrange(0)
	assert.NotEqual(t, first, other.order)
}

// TestShuffleIsFair counts where each of six images ends up.
func TestShuffleIsFair(t *testing.T) {
	set := &Set{Channels: 1, Height: 1, Width: 1, Train: Split{make([]uint8, 6), make([]uint8, 6)}}
	l := NewLoader(set, 6, true, 9)
	var counts [6][6]int
	for epoch := range 6000 {
		l.arrange(epoch)
		for place, image := range l.order {
			counts[place][image]++
		}
	}
	for place := range counts {
		for image, n := range counts[place] {
			// 1000 expected; the standard deviation is 29.
			assert.InDelta(t, 1000, n, 150, "image %d at place %d", image, place)
		}
	}
}

func TestFlipsAreFair(t *testing.T) {
	byEpoch, bySeed, byImage := 0, 0, 0
	for i := range 10000 {
		for _, c := range []struct {
			n       *int
			flipped bool
		}{{&byEpoch, flipped(0, i, 0)}, {&bySeed, flipped(uint64(i), 0, 0)}, {&byImage, flipped(0, 0, i)}} {
			if c.flipped {
				*c.n++
			}
		}
	}
	for _, n := range []int{byEpoch, bySeed, byImage} {
		assert.InDelta(t, 5000, n, 250) // five standard deviations
	}
}

func TestTestSplitIsPlain(t *testing.T) {
	set := sampleSet(t)
	images, labels := all(NewLoader(set, 64, false, 0), 0, 0)
	assert.Equal(t, set.Test.Labels, labels)
	at := func(image, y, x int) float32 { return images[(image*32+y)*32+x] }
	for i := range set.Test.Len() {
		for y := range 28 {
			for x := range 28 {
				require.Equal(t, normalised[set.Test.Pixels[(i*28+y)*28+x]], at(i, y+2, x+2))
			}
		}
	}
}

// TestSkip: the batches after some are the same, whether those came or not.
func TestSkip(t *testing.T) {
	set := sampleSet(t)
	for _, skip := range []int{0, 1, 6, 7} {
		images, labels := all(NewLoader(set, 120, true, 1), 4, 0)
		gotImages, gotLabels := all(NewLoader(set, 120, true, 1), 4, skip)
		assert.Equal(t, images[min(skip*120, 800)*1024:], append([]float32{}, gotImages...))
		assert.Equal(t, labels[min(skip*120, 800):], append([]uint8{}, gotLabels...))
	}
}

func TestBatches(t *testing.T) {
	set := sampleSet(t)
	for batch, want := range map[int][]int{
		800: {800}, 1000: {800}, 400: {400, 400}, 300: {300, 300, 200}, 799: {799, 1},
	} {
		l := NewLoader(set, batch, true, 0)
		var got []int
		for images, labels := range l.Epoch(0, 0) {
			got = append(got, len(labels))
			assert.Len(t, images, len(labels)*1024)
		}
		assert.Equal(t, want, got)
		assert.Equal(t, len(want), l.Batches())
	}
}

// TestStopEarly: an epoch that was left leaves nothing behind that disturbs the
// next, which the race detector would see.
func TestStopEarly(t *testing.T) {
	set := sampleSet(t)
	want, _ := all(NewLoader(set, 50, true, 1), 0, 0)
	l := NewLoader(set, 50, true, 1)
	for range 20 {
		for range l.Epoch(7, 0) {
			break
		}
	}
	got, _ := all(l, 0, 0)
	assert.Equal(t, want, got)
}

func TestNoAllocationForABatch(t *testing.T) {
	set := sampleSet(t)
	epoch := func(batch int) float64 {
		l := NewLoader(set, batch, true, 1)
		return testing.AllocsPerRun(5, func() {
			for range l.Epoch(0, 0) {
			}
		})
	}
	assert.InDelta(t, epoch(400), epoch(4), 2, "2 and 200 batches")
}

func BenchmarkLoader(b *testing.B) {
	set := sampleSet(b)
	l := NewLoader(set, 400, true, 1)
	b.ReportAllocs()
	for b.Loop() {
		for range l.Epoch(0, 0) {
		}
	}
	b.ReportMetric(800*float64(b.N)/b.Elapsed().Seconds(), "images/s")
}
