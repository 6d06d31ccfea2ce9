//go:build cuda && cgo && linux && amd64

package device

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// probeCUDA names the first missing link between this program and a GPU.
func probeCUDA() error { return unavailable(driver.Probe()) }

func unavailable(err error) error {
	if errors.Is(err, driver.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func listGPUs() (name string, all []GPU, err error) {
	name, infos, err := driver.Devices()
	for _, i := range infos {
		all = append(all, GPU{
			Name: i.Name, UUID: i.UUID, Memory: i.Memory, Err: i.Err,
			Capability: fmt.Sprintf("%d.%d", i.Major, i.Minor),
		})
	}
	return name, all, unavailable(err)
}

// timeoutVariable is how long a call of a GPU's driver may last.
const timeoutVariable = "BERTH_GPU_TIMEOUT"

// patience is how long to wait for a GPU.
func patience() (time.Duration, error) {
	text := cmp.Or(os.Getenv(timeoutVariable), "2m")
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s=%s is no time to wait for a GPU. Give one such as 90s or 10m", timeoutVariable, text)
	}
	return d, nil
}

func openCUDA(spec Spec, cfg nn.Config) (Opened, error) {
	limit, err := patience()
	if err != nil {
		return Opened{}, err
	}
	if spec.Indexes == nil {
		if spec.Indexes, err = usable(); err != nil {
			return Opened{}, err
		}
	}
	var gpus []*driver.Device
	var devices []cuda.Device
	for _, index := range spec.Indexes {
		d, err := driver.Open(index, limit)
		if err != nil {
			return Opened{}, unavailable(err)
		}
		gpus, devices = append(gpus, d), append(devices, d)
	}
	if err := driver.Connect(gpus); err != nil {
		return Opened{}, err
	}
	network, err := cuda.New(devices, cfg, kernels.Precision(spec.Precision))
	if err != nil {
		return Opened{}, err
	}
	return Opened{Backend: gpu{network}, Name: name(gpus), GPUs: len(gpus), Kernel: string(spec.Precision), Hung: hung(gpus)}, nil
}

// usable are all CUDA devices, which must be usable.
func usable() (indexes []int, err error) {
	_, infos, err := driver.Devices()
	if err != nil {
		return nil, unavailable(err)
	}
	var others []string
	for _, i := range infos {
		if i.Err != nil {
			err = cmp.Or(err, fmt.Errorf("%w: cuda:%d: %w", ErrUnavailable, i.Index, i.Err))
			continue
		}
		indexes, others = append(indexes, i.Index), append(others, strconv.Itoa(i.Index))
	}
	if err != nil && len(others) > 0 {
		err = fmt.Errorf("%w. Name the others: --device=cuda:%s", err, strings.Join(others, ","))
	}
	return indexes, err
}

// name names GPUs, in their order.
func name(gpus []*driver.Device) string {
	var numbers, names []string
	for _, d := range gpus {
		numbers, names = append(numbers, strconv.Itoa(d.Index)), append(names, d.Name)
	}
	if len(names) > 1 && len(slices.Compact(slices.Clone(names))) == 1 {
		names = []string{fmt.Sprintf("%d x %s", len(names), names[0])}
	}
	return fmt.Sprintf("cuda:%s (%s)", strings.Join(numbers, ","), strings.Join(names, ", "))
}

// hung receives the first of the GPUs' errors. The one that is waited for needn't be the one
// that hangs: each waits for the others.
func hung(gpus []*driver.Device) <-chan error {
	if len(gpus) == 1 {
		return gpus[0].Hung()
	}
	first := make(chan error, len(gpus))
	for _, d := range gpus {
		go func() {
			first <- fmt.Errorf("%w. It works together with others of %s: it may be one of them", <-d.Hung(), name(gpus))
		}()
	}
	return first
}

// gpu is a network on a GPU, as a [Loader].
type gpu struct{ *cuda.Network }

func (g gpu) Load(set *data.Set, batch int, seed uint64) (Resident, error) {
	return g.Network.Load(set, batch, seed)
}
