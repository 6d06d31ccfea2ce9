//go:build cuda && cgo && linux && amd64

package device

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/berthdev/berth/trainer/cuda"
	"github.com/berthdev/berth/trainer/cuda/driver"
	"github.com/berthdev/berth/trainer/cuda/kernels"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

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

func hungCUDA() <-chan error { return driver.Hung() }

func openCUDA(spec Spec, cfg nn.Config) (_ Opened, err error) {
	if spec.Indexes == nil {
		if spec.Indexes, err = usable(); err != nil {
			return Opened{}, err
		}
	}
	var gpus []*driver.Device
	var devices []cuda.Device
	closeAll := func() {
		for _, d := range gpus {
			d.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for _, index := range spec.Indexes {
		d, err := driver.Open(index)
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
	return Opened{Backend: gpu{network}, Name: driver.Names(gpus), GPUs: len(gpus), Kernel: string(spec.Precision), close: closeAll}, nil
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

// gpu is a network on a GPU, as a [Loader].
type gpu struct{ *cuda.Network }

func (g gpu) Load(set *data.Set, batch int, seed uint64) (Resident, error) {
	return g.Network.Load(set, batch, seed)
}
