//go:build cuda && cgo && linux && amd64

package kernels_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/nn"
)

var batch = flag.Int("batch", 500, "images in a step whose kernels BenchmarkOnGPU times")

// BenchmarkOnGPU times each launch of a training step on gray images, recorded ten times in a
// row, and says how much of the GPU's memory bandwidth and of its peak that is, by the costs that
// the kernels' files give. trainer/bench/check.sh runs it.
func BenchmarkOnGPU(b *testing.B) {
	for _, precision := range []kernels.Precision{kernels.FP32, kernels.TF32} {
		gpu, err := driver.Open(0)
		require.NoError(b, err)
		bandwidth, cycles := rates(b, gpu)
		noted := &noting{Device: gpu, written: map[kernels.Pointer][]byte{}}
		network, err := cuda.New([]cuda.Device{noted}, nn.Config{Channels: 1, Classes: 10, Dropout: 0.5}, precision)
		require.NoError(b, err)
		images, labels := make([]float32, *batch*nn.Size*nn.Size), make([]uint8, *batch)
		for i := range images {
			images[i] = 2*rand.Float32() - 1
		}
		_, _, err = network.TrainStep(images, labels)
		require.NoError(b, err)
		noted.pause = true
		seen := map[string]bool{}
		for _, l := range noted.launches {
			moved, computed := l.cost(noted.written)
			name := l.name()
			if seen[name] {
				continue
			}
			seen[name] = true
			b.Run(string(precision)+"/"+name, func(b *testing.B) {
				const times = 10
				recording, err := gpu.Record(func() error {
					for range times {
						if err := gpu.Launch(l.kernel, l.grid, l.block, l.args...); err != nil {
							return err
						}
					}
					return nil
				})
				require.NoError(b, err)
				wait := func() { require.NoError(b, gpu.Read(make([]byte, 4), l.args[0].(kernels.Pointer))) }
				require.NoError(b, recording.Replay())
				wait()
				for b.Loop() {
					require.NoError(b, recording.Replay())
					wait()
				}
				seconds := b.Elapsed().Seconds() / float64(b.N) / times
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(1e6*seconds, "µs/launch")
				b.ReportMetric(moved/seconds/1e9, "GB/s")
				b.ReportMetric(computed/seconds/1e9, "GFLOP/s")
				if bandwidth > 0 {
					b.ReportMetric(100*moved/seconds/bandwidth, "%bandwidth")
				}
				if peak := cycles * perCycle(gpu.Name, fmt.Sprintf("%d.%d", gpu.Major, gpu.Minor), l.kernel); peak > 0 {
					b.ReportMetric(100*computed/seconds/peak, "%peak")
				}
				require.NoError(b, recording.Destroy())
			})
		}
		gpu.Close()
	}
}

// rates are the memory bandwidth of a GPU in bytes/s, and the cycles that all of its
// multiprocessors have in a second, by its clocks; 0 if it doesn't tell.
func rates(b *testing.B, gpu *driver.Device) (bandwidth, cycles float64) {
	var values [4]float64
	for i, a := range []cu.DeviceAttribute{cu.MemoryClockRate, cu.GlobalMemoryBusWidth, cu.ClockRate, cu.MultiprocessorCount} {
		v, err := cu.Device(gpu.Index).Attribute(a)
		require.NoError(b, err)
		values[i] = float64(v)
	}
	return 2 * 1e3 * values[0] * values[1] / 8, 1e3 * values[2] * values[3]
}

// noting is a GPU that notes what is launched and written until it pauses.
type noting struct {
	*driver.Device
	launches []launch
	written  map[kernels.Pointer][]byte
	pause    bool
}

type launch struct {
	kernel      string
	grid, block [3]int
	args        []any
}

func (n *noting) Launch(kernel string, grid, block [3]int, args ...any) error {
	if !n.pause {
		n.launches = append(n.launches, launch{kernel, grid, block, args})
	}
	return n.Device.Launch(kernel, grid, block, args...)
}

func (n *noting) Write(to kernels.Pointer, data []byte) error {
	if !n.pause {
		n.written[to] = bytes.Clone(data)
	}
	return n.Device.Write(to, data)
}

// ints are the arguments that are numbers.
func (l launch) ints() (all []float64) {
	for _, a := range l.args {
		if v, ok := a.(int32); ok {
			all = append(all, float64(v))
		}
	}
	return all
}

func (l launch) name() string {
	words := []string{l.kernel}
	for _, v := range l.ints() {
		words = append(words, fmt.Sprint(v))
	}
	return strings.Join(words, ",")
}

// cost is how many bytes a launch moves from and to memory, and how many FLOP it computes. What
// the first comment of each kernel's file says is said here in Go.
func (l launch) cost(written map[kernels.Pointer][]byte) (bytes, flop float64) {
	n := l.ints()
	tiles := func(rows float64) float64 { return float64(kernels.Tiles(int(rows))) }
	switch strings.TrimSuffix(strings.TrimSuffix(l.kernel, "_fp32"), "_tf32") {
	case "conv_forward", "conv_backward", "conv_weight":
		rows, k, out, taps := n[0], n[1], n[2], n[3]*n[3]
		return 4*(k+out)*rows + 4*taps*k*out*float64(l.grid[2]), 2 * taps * k * out * rows
	case "norm_batch":
		return 12 * tiles(n[0]) * n[1], 20 * tiles(n[0]) * n[1]
	case "norm_grad":
		return 8 * tiles(n[0]) * n[1], 2 * tiles(n[0]) * n[1]
	case "activate":
		return 8 * n[2] * n[3], 4 * n[2] * n[3]
	case "activate_grad":
		return 16 * n[0] * n[1], 5 * n[0] * n[1]
	case "norm_apply":
		return 12 * n[0] * n[1], 4 * n[0] * n[1]
	case "join_haar":
		return 12 * 4 * n[0] * n[1], 10 * 4 * n[0] * n[1]
	case "join_grad":
		return 16 * n[0] * n[1], 14 * n[0] * n[1]
	case "haar":
		values := 4 * 256 * float64(l.grid[0]) // four of a thread
		return 8 * values, 2 * values
	case "head":
		return 12e3 * float64(l.grid[0]), 4 * kernels.Features * n[1] * float64(l.grid[0])
	case "linear_grad":
		return 4 * kernels.Features * n[0], 2 * (kernels.Features + 1) * n[1] * n[0]
	case "loss":
		return 12 * n[0], 2 * n[0]
	case "adam":
		pieces := make([]kernels.Piece, l.grid[0])
		if _, err := binary.Decode(written[l.args[4].(kernels.Pointer)], binary.LittleEndian, pieces); err != nil {
			panic(err)
		}
		for _, p := range pieces {
			bytes += float64(p.Count) * (24 + 4*float64(p.Parts))
			flop += 12 * float64(p.Count)
		}
		return bytes, flop
	default:
		panic("what does " + l.kernel + " cost?")
	}
}
