// Package nn trains one network on the CPU: a small residual CNN for 32x32
// images, with Haar wavelet transforms for down-sampling.
//
//	input C x 32x32
//	Haar -> block (4C -> 16)  at 16x16
//	Haar -> block (64 -> 32)  at  8x8
//	Haar -> block (128 -> 64) at  4x4
//	Haar -> block (256 -> 128) at 2x2
//	flatten -> linear (512 -> classes) -> softmax cross-entropy, mean
//
// A block is conv3x3, batch norm, ReLU, 2-D dropout, conv3x3, batch norm;
// plus a shortcut of conv1x1 and batch norm; and a ReLU after their sum.
// Convolutions pad circularly and have no bias. With three channels and ten
// classes there are 634,410 parameters. Layers, initial values and the
// optimiser (Adam) follow PyTorch's definitions and defaults.
//
// # What is promised about bits
//
// The same configuration, seed and sequence of batches give the same losses,
// parameters and running statistics to the last bit,
//   - whatever the number of workers, and whichever finishes first: a batch
//     is cut into parts by its size alone, and sums over parts run in order;
//   - whichever kernel package gemm uses, and so on every amd64 processor;
//   - after [Network.State], [Network.Restore], also on another machine.
//
// Each float32 operation is either correctly rounded by itself or an explicit
// fused multiply-add, and exponential and logarithm are computed here, so
// other architectures are built to give these bits too; the tests show it for
// amd64 only. Values that became NaN are NaN everywhere, with any payload.
//
// A [Network] is not safe for use by several goroutines at once; it spreads
// its work over [Config.Workers] itself. After the first step of a batch size
// a step allocates nothing.
package nn

import (
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/berthdev/berth/trainer/gemm"
)

// Size is the height and width of the images in pixels.
const Size = 32

// Config describes a network and how it is trained.
type Config struct {
	Channels int     // of the images: 1 or 3
	Classes  int     // 2 to 256
	Seed     uint64  // of the initial values and the dropout
	Workers  int     // goroutines that compute; 0 means runtime.GOMAXPROCS(0)
	LR       float32 // learning rate of Adam; 0 means 1e-3
	Dropout  float32 // probability that a channel is dropped, 0 <= p < 1
}

func (c Config) check() error {
	switch {
	case c.Channels != 1 && c.Channels != 3:
		return fmt.Errorf("network for images of %d channels: only 1 (gray) or 3 (colour) are possible", c.Channels)
	case c.Classes < 2 || c.Classes > 256:
		return fmt.Errorf("network for %d classes: give 2 to 256", c.Classes)
	case !(c.LR >= 0) || math.IsInf(float64(c.LR), 0):
		return fmt.Errorf("learning rate %v: give a positive number, for instance 0.001", c.LR)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("dropout probability %v: give 0 to below 1", c.Dropout)
	case c.Workers < 0:
		return fmt.Errorf("%d workers: give a positive number, or 0 for one a core", c.Workers)
	}
	return nil
}

// Network is a network with its optimiser's state.
type Network struct {
	cfg    Config
	step   int64
	params params
	blocks []*block
	head   *head
	pool   *pool

	// Of the batch in work.
	images   []float32
	labels   []uint8
	training bool
	capacity int // images that the buffers hold
	scratch  []scratch
	outer    []outerUnit
	outerN   int // images that outer was planned for
	adam     gemm.AdamArgs

	// Method values, made once.
	transpose, outerRun, adamRun func(worker, part int)
}

// scratch is what one worker overwrites in every part of a phase.
type scratch struct {
	line  []float32   // one plane of one image
	grad  gemm.Planes // a gradient for one part of a batch
	scale gemm.Vec
	shift gemm.Vec
	relu  gemm.ReLUGradArgs
	mul   gemm.Product
}

// New returns a network with PyTorch's default initial values: convolutions
// and the linear layer uniform in ±1/sqrt(fan-in), batch norms one and zero.
func New(cfg Config) (*Network, error) {
	if cfg.LR == 0 {
		cfg.LR = 1e-3
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	workers := cfg.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	n := &Network{cfg: cfg, pool: newPool(workers), scratch: make([]scratch, workers)}
	in, side := 4*cfg.Channels, Size/2
	var prev *block
	for i, out := range []int{16, 32, 64, 128} {
		b := newBlock(n, i, prev, in, out, side)
		n.blocks = append(n.blocks, b)
		prev, in, side = b, 4*out, side/2
	}
	runtime.AddCleanup(n, (*pool).stop, n.pool)
	n.head = newHead(n, prev)
	n.transpose, n.outerRun, n.adamRun = n.params.transpose, n.runOuter, n.runAdam
	n.params.allocate()
	n.params.initialise(cfg.Seed)
	return n, nil
}

// Sums are what came of some images, in one batch or several.
type Sums struct {
	Loss    float64 // the sum of the images' losses
	Correct int
	Images  int
	// NotFinite reports that a loss was not finite: the steps from that batch on changed
	// nothing but running statistics.
	NotFinite bool
}

// Kernel names the matrix kernel in use: "avx512", "avx2" or "go".
func Kernel() string { return gemm.Kernel() }

// Step is the number of training steps taken so far.
func (n *Network) Step() int64 { return n.step }

// NumParameters is the number of trained values.
func (n *Network) NumParameters() int {
	sum := 0
	for _, p := range n.params.list {
		sum += p.size()
	}
	return sum
}

// errNoImages is returned for an empty batch.
var errNoImages = errors.New("the batch is empty: give at least one image")

// CheckBatch says what is wrong with the arguments of [Network.TrainStep], or nothing.
func (c Config) CheckBatch(images []float32, labels []uint8) error {
	if len(labels) == 0 {
		return errNoImages
	}
	if want := len(labels) * c.Channels * Size * Size; len(images) != want {
		return fmt.Errorf("%d labels need %d values (%d x %d x %d x %d), got %d",
			len(labels), want, len(labels), c.Channels, Size, Size, len(images))
	}
	for i, l := range labels {
		if int(l) >= c.Classes {
			return fmt.Errorf("label %d of image %d is out of range: the network has %d classes", l, i, c.Classes)
		}
	}
	return nil
}

// begin checks a batch and makes it the one in work.
func (n *Network) begin(images []float32, labels []uint8, training bool) error {
	if err := n.cfg.CheckBatch(images, labels); err != nil {
		return err
	}
	n.images, n.labels, n.training = images, labels, training
	n.reserve(len(labels))
	return nil
}

// reserve makes room for batches of the given number of images.
func (n *Network) reserve(images int) {
	if images <= n.capacity {
		return
	}
	n.capacity = images
	n.outerN = 0 // the plan names buffers
	line, grad := 0, 0
	for _, b := range n.blocks {
		b.reserve(images)
		line = max(line, b.pixels)
		grad = max(grad, b.partImages()*b.pixels*max(b.conv1.in, b.conv1.out))
	}
	n.head.reserve(images)
	for i := range n.scratch {
		n.scratch[i].line = gemm.Aligned(line * gemm.Lanes)
		n.scratch[i].grad.Data = gemm.Aligned(grad * gemm.Lanes)
	}
}

// TrainStep takes one step of Adam on the mean cross-entropy of a batch.
//
// images holds len(labels) images in the order image, channel, line, column,
// normalised, 32x32. It returns the loss before the step and how many images
// were classified correctly (with dropout). A loss that is not finite is
// returned as it is, and the parameters stay as they were; the caller should
// stop. An error means that the arguments were bad, and changes nothing.
func (n *Network) TrainStep(images []float32, labels []uint8) (loss float64, correct int, err error) {
	if err := n.begin(images, labels, true); err != nil {
		return 0, 0, err
	}
	n.forward()
	loss, correct = n.head.result()
	loss /= float64(len(labels))
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return loss, correct, nil
	}
	n.backward()
	n.step++
	n.update()
	return loss, correct, nil
}

// evalImages is how many images Evaluate takes at a time. Each image's result
// depends on no other; the number fixes the order in which losses are summed.
const evalImages = 256

// Evaluate returns the summed cross-entropy of the images, with running
// statistics and without dropout, and how many are classified correctly.
// Arguments and errors are those of [Network.TrainStep].
func (n *Network) Evaluate(images []float32, labels []uint8) (loss float64, correct int, err error) {
	size := n.cfg.Channels * Size * Size
	if len(labels) > 0 && len(images) != len(labels)*size {
		return 0, 0, n.begin(images, labels, false)
	}
	for len(labels) > 0 {
		k := min(evalImages, len(labels))
		if err := n.begin(images[:k*size], labels[:k], false); err != nil {
			return 0, 0, err
		}
		n.forward()
		l, c := n.head.result()
		loss += l
		correct += c
		images, labels = images[k*size:], labels[k:]
	}
	return loss, correct, nil
}

func (n *Network) forward() {
	if n.training {
		n.outerPlan(len(n.labels))
		n.pool.run(len(n.params.tiles), n.transpose)
	}
	for _, b := range n.blocks {
		if !n.training {
			b.bn1.useRunning()
			b.bn2.useRunning()
			b.bnS.useRunning()
		}
		n.pool.run(b.parts(), b.forward1)
		if n.training {
			b.bn1.finish(b.parts(), b.rows())
			b.bnS.finish(b.parts(), b.rows())
		}
		n.pool.run(b.parts(), b.forward2)
		if n.training {
			b.bn2.finish(b.parts(), b.rows())
		}
		b.sumShift()
	}
	n.pool.run(n.blocks[len(n.blocks)-1].parts(), n.head.run)
}

func (n *Network) backward() {
	last := len(n.blocks) - 1
	n.blocks[last].sumGrads(n.blocks[last].parts())
	n.head.biasGrad(n.blocks[last].parts())
	for i := last; i >= 0; i-- {
		b := n.blocks[i]
		n.pool.run(b.parts(), b.backward2)
		b.bn1.finishGrad(b.parts(), b.rows())
		n.pool.run(b.parts(), b.backward1)
		if i > 0 {
			n.blocks[i-1].sumGrads(b.parts())
		}
	}
	n.pool.run(len(n.outer), n.outerRun)
}

// Adam's constants, PyTorch's defaults.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-8
)

func (n *Network) update() {
	n.adam = gemm.AdamArgs{
		Beta1: beta1, OneMinusBeta1: 1 - beta1,
		Beta2: beta2, OneMinusBeta2: 1 - beta2,
		StepSize:   float32(float64(n.cfg.LR) / (1 - pow(beta1, n.step))),
		Correction: float32(math.Sqrt(1 - pow(beta2, n.step))),
		Epsilon:    epsilon,
	}
	n.pool.run(len(n.params.list), n.adamRun)
}

// runAdam sums the parts of one parameter's gradient and updates it.
func (n *Network) runAdam(_, i int) {
	p := n.params.list[i]
	for _, g := range p.parts {
		gemm.Add(p.grad, g)
	}
	gemm.Adam(p.w, p.m, p.v, p.grad, &n.adam)
}
