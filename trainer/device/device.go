// Package device opens what a network is trained on. The training loop knows a
// [Backend] only; which one it gets is decided here, from what the user asked
// for and from what this build and this machine have.
package device

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// Backend is a network on a device. [nn.Network] documents the methods; every
// backend keeps its guarantees, but those about bits hold within one kind of
// device.
type Backend interface {
	TrainStep(images []float32, labels []uint8) (loss float64, correct int, err error)
	Evaluate(images []float32, labels []uint8) (loss float64, correct int, err error)
	Step() int64
	NumParameters() int
	State() (nn.State, error)
	Restore(nn.State) error
}

// A Loader is a backend that can hold a data set, and train on that without waiting for the
// host between steps.
type Loader interface {
	Backend
	// Load takes a set, for batches of so many images, shuffled and flipped by the seed as
	// [data.Loader] does it.
	Load(set *data.Set, batch int, seed uint64) (Resident, error)
}

// Resident is a data set that a device holds.
type Resident interface {
	// Train takes steps of an epoch, from its batch first on, as many as are asked for and left.
	// It adds to the sums of the images until then.
	Train(epoch, first, batches int, before nn.Sums) (nn.Sums, error)
	// Test evaluates all test images.
	Test() (nn.Sums, error)
}

// CPU makes a network of the package nn a backend.
func CPU(n *nn.Network) Backend { return cpu{n} }

type cpu struct{ *nn.Network }

func (c cpu) State() (nn.State, error) { return c.Network.State(), nil }

// ErrUnavailable is in the chain of errors about a device that is asked for
// but can't be had.
var ErrUnavailable = errors.New("device unavailable")

// ErrSpec is in the chain of errors about what isn't the name of a device.
var ErrSpec = errors.New("no such kind of device")

// Spec is a device as asked for.
type Spec struct {
	Kind      string    // "auto", "cpu" or "cuda"
	Indexes   []int     // of the CUDA devices, in the order of their parts of a batch; nil: all that there are
	Precision Precision // of CUDA devices
}

// Precision says how convolutions multiply.
type Precision string

// The precisions. TF32 rounds factors to 10 bits of fraction, for a GPU's tensor cores; the
// CPU has FP32 alone.
const (
	FP32 Precision = "fp32"
	TF32 Precision = "tf32"
)

var cudaSpec = regexp.MustCompile(`^cuda:([0-9]{1,4}(?:,[0-9]{1,4})*)$`)

// Parse reads auto, cpu, cuda, cuda:N, cuda:N,M,… or cuda:all, and fp32 or tf32. cuda is
// cuda:0, and so is the device of auto, if it is one of CUDA's. The numbers are the driver's:
// those of the devices that CUDA_VISIBLE_DEVICES leaves.
func Parse(s, precision string) (Spec, error) {
	p := Precision(precision)
	switch {
	case p != FP32 && p != TF32:
		return Spec{}, fmt.Errorf("%w: precision %q. Give fp32 or tf32", ErrSpec, precision)
	case p != FP32 && s == "cpu":
		return Spec{}, fmt.Errorf("%w: the CPU computes in fp32 alone, not in %s", ErrSpec, p)
	case s == "cpu":
		return Spec{Kind: s, Precision: p}, nil
	case s == "auto" || s == "cuda":
		return Spec{Kind: s, Indexes: []int{0}, Precision: p}, nil
	case s == "cuda:all":
		return Spec{Kind: "cuda", Precision: p}, nil
	}
	m := cudaSpec.FindStringSubmatch(s)
	if m == nil {
		return Spec{}, fmt.Errorf("%w: %q. Give auto, cpu, cuda, cuda:N, several as cuda:N,M, or cuda:all", ErrSpec, s)
	}
	spec := Spec{Kind: "cuda", Precision: p}
	for word := range strings.SplitSeq(m[1], ",") {
		index, err := strconv.Atoi(word)
		if err != nil {
			return Spec{}, err
		}
		if slices.Contains(spec.Indexes, index) {
			return Spec{}, fmt.Errorf("%w: %s names cuda:%d twice. Name each once", ErrSpec, s, index)
		}
		spec.Indexes = append(spec.Indexes, index)
	}
	return spec, nil
}

// Opened is a network on a device, and what to tell about it.
type Opened struct {
	Backend
	Name   string // "cpu", or "cuda:N" and the GPU's name, or "cuda:N,M" and those of all
	GPUs   int    // how many it is on; 0: it is on the CPU
	Kernel string // of the matrix products
	Notice string // what the user must hear, such as why it is not a GPU; often empty

	close func() // nil: there is nothing to give back
}

// Close gives back what the network holds of its device. None of its methods may be called
// any more.
func (o Opened) Close() {
	if o.close != nil {
		o.close()
	}
}

// Hung receives an error when a device doesn't come back from a call, of this package or of
// what it has opened. Nor does whoever made that call: all that can be done then is to end the
// process.
func Hung() <-chan error { return hungCUDA() }

// Open puts a new network on a device. With auto that is the first CUDA device,
// and the CPU where there is none: [Opened.Notice] then says why. On several CUDA
// devices each has a part of each batch: New of the package cuda documents what that
// changes. The error for a CUDA device that can't be had wraps [ErrUnavailable].
func Open(spec Spec, cfg nn.Config) (Opened, error) {
	var notice string
	if spec.Kind != "cpu" {
		opened, err := openCUDA(spec, cfg)
		if err == nil {
			return opened, nil
		}
		if spec.Kind == "cuda" || !errors.Is(err, ErrUnavailable) {
			return Opened{}, fmt.Errorf("%w. Use --device=cpu to train on the CPU", err)
		}
		notice = fmt.Sprintf("No GPU is used, training on the CPU: %v", err)
		if spec.Precision == TF32 {
			notice += ". It computes in fp32, not in tf32"
		}
	}
	network, err := nn.New(cfg)
	if err != nil {
		return Opened{}, err
	}
	return Opened{Backend: CPU(network), Name: "cpu", Kernel: nn.Kernel(), Notice: notice}, nil
}

// A GPU is a CUDA device that the driver knows.
type GPU struct {
	Name       string
	UUID       string // as nvidia-smi writes it
	Memory     int64  // bytes
	Capability string // compute capability, such as 9.0
	Err        error  // why it can't be used, or nil
}

// GPUs lists the CUDA devices, cuda:0 first, and names the driver's version. The error says
// why there are none, and wraps [ErrUnavailable].
func GPUs() (driver string, all []GPU, err error) { return listGPUs() }
