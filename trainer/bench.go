package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/internal/atomic"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/report"
)

// BenchOptions are the flags of `trainer bench`.
type BenchOptions struct {
	BatchSize int
	Workers   string
	Steps     int
	Channels  int
	Device    string
	Precision string
	JSON      string
}

// A BenchRow is what one configuration took. Times are seconds.
type BenchRow struct {
	Device          string  `json:"device"`
	GPUs            int     `json:"gpus"` // 0: it is the CPU
	Kernel          string  `json:"kernel"`
	Workers         int     `json:"workers"`
	BatchSize       int     `json:"batch_size"`
	Steps           int     `json:"steps"`
	SecondsPerStep  float64 `json:"seconds_per_step"` // median
	Fastest         float64 `json:"fastest"`
	ImagesPerSecond float64 `json:"images_per_second"`
	BytesPerStep    uint64  `json:"bytes_per_step"` // allocated on the host
}

func newBenchCommand() *command {
	var o BenchOptions
	fs := newFlags("bench")
	fs.IntVar(&o.BatchSize, "batch-size", 500, "`N` images in a step")
	fs.StringVar(&o.Workers, "num-workers", defaultWorkers(), "compute with `N,N,…` goroutines, one row each")
	fs.IntVar(&o.Steps, "steps", 20, "time `N` steps, after two that warm up")
	fs.IntVar(&o.Channels, "channels", 3, "`N` channels of the images: 1 (gray) or 3 (colour)")
	fs.StringVar(&o.Device, "device", "auto", "`DEVICE`: auto, cpu, cuda, cuda:N, several GPUs as cuda:N,M, or cuda:all")
	fs.StringVar(&o.Precision, "precision", "fp32", "convolutions on a GPU multiply in `P`: fp32, or tf32 on tensor cores")
	fs.StringVar(&o.JSON, "json", "", "write the rows to `FILE`, too")
	return &command{
		name: "bench", summary: "time training steps", flags: fs,
		run: func(ctx context.Context, console *report.Console, args []string) error {
			if err := noArguments(args); err != nil {
				return err
			}
			_, err := onDevice(func() error { return runBench(ctx, console, o) })
			return err
		},
	}
}

// defaultWorkers is one worker, and one a core.
func defaultWorkers() string {
	if cores := runtime.GOMAXPROCS(0); cores > 1 {
		return fmt.Sprintf("1,%d", cores)
	}
	return "1"
}

// runBench times steps on made-up images: the time doesn't depend on what is
// in them.
func runBench(ctx context.Context, console *report.Console, o BenchOptions) error {
	spec, err := device.Parse(o.Device, o.Precision)
	if err != nil {
		return usagef("%w", err)
	}
	var workers []int
	for word := range strings.SplitSeq(o.Workers, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > 4096 {
			return usagef("--num-workers=%s: give numbers from 1 to 4096, separated by commas", o.Workers)
		}
		workers = append(workers, n)
	}
	switch {
	case o.BatchSize < 1 || o.BatchSize > 65536:
		return usagef("--batch-size=%d: give 1 to 65536", o.BatchSize)
	case o.Steps < 1 || o.Steps > 100_000:
		return usagef("--steps=%d: give 1 to 100000", o.Steps)
	case o.Channels != 1 && o.Channels != 3:
		return usagef("--channels=%d: give 1 or 3", o.Channels)
	}
	if err := checkOutput("json", o.JSON); err != nil {
		return err
	}
	rows := []BenchRow{}
	table := tabwriter.NewWriter(console, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "device\tkernel\tworkers\tbatch\tms/step\tfastest\timages/s\tbytes/step\t")
	for i, n := range workers {
		opened, err := device.Open(spec, nn.Config{Channels: o.Channels, Classes: data.Classes, Workers: n, Dropout: dropout})
		if err != nil {
			return err
		}
		if err := checkGPUs(opened.GPUs, o.BatchSize); err != nil {
			return err
		}
		if i == 0 && opened.Notice != "" {
			console.Printf(report.Warning, "%s", opened.Notice)
		}
		timing := timeSteps
		if _, ok := opened.Backend.(device.Loader); ok {
			timing = timeResident
		}
		took, allocated, err := timing(ctx, opened.Backend, o)
		if err != nil {
			return err
		}
		opened.Close()
		slices.Sort(took)
		median := took[len(took)/2]
		r := BenchRow{
			opened.Name, opened.GPUs, opened.Kernel, n, o.BatchSize, o.Steps,
			median.Seconds(), took[0].Seconds(), perSecond(o.BatchSize, median), allocated,
		}
		rows = append(rows, r)
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%.1f\t%.1f\t%.0f\t%d\t\n", r.Device, r.Kernel, r.Workers, r.BatchSize,
			1e3*r.SecondsPerStep, 1e3*r.Fastest, r.ImagesPerSecond, r.BytesPerStep)
	}
	if err := table.Flush(); err != nil || o.JSON == "" {
		return err
	}
	return atomic.WriteFile(o.JSON, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	})
}

// heldBatches is how many batches the data set has that times steps on a device: one for each
// step, unless that is more than 256 MiB.
func heldBatches(o BenchOptions) int {
	return min(o.Steps, max(1, 256<<20/(o.BatchSize*o.Channels*data.Size*data.Size)))
}

// timeResident times steps on a data set that the device holds: some runs of them, without a
// wait within one or, of a very long one, within each pass through the set.
func timeResident(ctx context.Context, network device.Backend, o BenchOptions) ([]time.Duration, uint64, error) {
	const runs = 5
	images, labels := noise(o.BatchSize, o.Channels)
	pixels := make([]byte, len(images))
	for i, x := range images {
		pixels[i] = byte(127 * (x + 1))
	}
	held := heldBatches(o)
	split := data.Split{Pixels: bytes.Repeat(pixels, held), Labels: bytes.Repeat(labels, held)}
	set := &data.Set{Channels: o.Channels, Height: data.Size, Width: data.Size, Train: split, Test: split}
	resident, err := network.(device.Loader).Load(set, o.BatchSize, 0)
	if err != nil {
		return nil, 0, err
	}
	if _, err := resident.Train(0, 0, 2, nn.Sums{}); err != nil {
		return nil, 0, err
	}
	var took []time.Duration
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range runs {
		start := time.Now()
		for left := o.Steps; left > 0; left -= held {
			if ctx.Err() != nil {
				return nil, 0, context.Cause(ctx)
			}
			if _, err := resident.Train(i, 0, min(held, left), nn.Sums{}); err != nil {
				return nil, 0, err
			}
		}
		took = append(took, time.Since(start)/time.Duration(o.Steps))
	}
	runtime.ReadMemStats(&after)
	return took, (after.TotalAlloc - before.TotalAlloc) / uint64(runs*o.Steps), nil
}

// timeSteps takes two steps and then times some, and counts the bytes that each
// of those allocated.
func timeSteps(ctx context.Context, network device.Backend, o BenchOptions) ([]time.Duration, uint64, error) {
	const warm = 2
	images, labels := noise(o.BatchSize, o.Channels)
	steps := o.Steps
	took := make([]time.Duration, 0, steps)
	var before, after runtime.MemStats
	for i := range warm + steps {
		if i == warm {
			runtime.ReadMemStats(&before)
		}
		start := time.Now()
		if _, _, err := network.TrainStep(images, labels); err != nil {
			return nil, 0, err
		}
		if i >= warm {
			took = append(took, time.Since(start))
		}
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
	}
	runtime.ReadMemStats(&after)
	return took, (after.TotalAlloc - before.TotalAlloc) / uint64(steps), nil
}

// noise is a batch of images that are nothing but noise.
func noise(n, channels int) ([]float32, []uint8) {
	images, labels := make([]float32, n*channels*data.Size*data.Size), make([]uint8, n)
	x := uint32(1)
	for i := range images {
		x ^= x << 13 // xorshift32 (Marsaglia, 2003)
		x ^= x >> 17
		x ^= x << 5
		images[i] = float32(x>>8)/(1<<23) - 1
	}
	for i := range labels {
		labels[i] = uint8(i % data.Classes)
	}
	return images, labels
}
