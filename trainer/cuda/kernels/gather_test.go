package kernels

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/gemm"
)

// haar is the CPU's transform of images, in the order of rows and channels.
func haar(images []float32, channels int) []float32 {
	x := make([]float32, len(images))
	for i := range len(images) / (channels * 1024) {
		for k := range channels {
			p := images[(i*channels+k)*1024:][:1024]
			for r := range 256 {
				at := r/16*64 + r%16*2
				out := x[(i*256+r)*4*channels:][:4*channels]
				out[k], out[channels+k], out[2*channels+k], out[3*channels+k] = gemm.Haar1(p[at], p[at+1], p[at+32], p[at+33])
			}
		}
	}
	return x
}

// checkGather compares with the CPU's loader, to the bit.
func checkGather(t testing.TB) {
	for _, c := range []struct{ channels, height, width int }{{1, 28, 28}, {3, 32, 32}, {1, 5, 8}, {1, 30, 26}, {1, 1, 1}} {
		rng := rand.New(rand.NewPCG(16, uint64(c.height)))
		const images, batch, seed, epoch = 11, 4, 77, 5
		split := data.Split{Pixels: make([]byte, images*c.channels*c.height*c.width), Labels: make([]byte, images)}
		for i := range split.Pixels {
			split.Pixels[i] = byte(rng.Uint32())
		}
		for i := range split.Labels {
			split.Labels[i] = byte(i % 10)
		}
		set := &data.Set{Channels: c.channels, Height: c.height, Width: c.width, Train: split, Test: split}
		for _, augment := range []bool{true, false} {
			order := make([]int32, images)
			for i := range order {
				order[i] = int32(i)
			}
			if augment {
				data.Shuffle(order, seed, epoch)
			}
			first := 0
			for want, labels := range data.NewLoader(set, batch, augment, seed).Epoch(epoch, 0) {
				g := newGPU(t)
				n := len(labels)
				x, l := g.room("x", n*1024*c.channels), g.room("labels", n)
				from := Images{
					Pixels: g.value("pixels", split.Pixels), Labels: g.value("classes", split.Labels), Order: g.value("order", order),
					Channels: c.channels, Height: c.height, Width: c.width, Seed: seed, Augment: augment,
				}
				state := g.value("state", State{Epoch: epoch, First: int32(first)})
				require.NoError(t, Set{g, FP32}.Gather(x, l, from, state, n))
				require.Equal(t, haar(want, c.channels), g.get(t, x))
				got := make([]int32, n)
				g.read(t, l, got)
				for i := range labels {
					require.EqualValues(t, labels[i], got[i])
				}
				first += n
			}
			assert.Equal(t, images, first)
		}
	}
}

func checkHaar(t testing.TB) {
	for _, channels := range []int{1, 3} {
		images := random(rand.New(rand.NewPCG(17, 0)), 3*channels*1024)
		g := newGPU(t)
		x := g.room("x", len(images))
		require.NoError(t, Set{g, FP32}.Haar(x, g.floats("images", images), 3, channels))
		assert.Equal(t, haar(images, channels), g.get(t, x))
	}
}
