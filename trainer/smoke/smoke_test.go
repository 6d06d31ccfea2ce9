package smoke

import (
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/nn"
)

var update = flag.Bool("update", false, "write what the training gives to testdata/golden.json")

func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		var got result
		if _, err := onCPU(context.Background(), 1, nil, 0, &got); err != nil {
			panic(err)
		}
		raw, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile("testdata/golden.json", append(raw, '\n'), 0o666)
		}
		if err != nil {
			panic(err)
		}
		os.Exit(0) // the old file is compiled into this binary
	}
	os.Exit(m.Run())
}

func TestChecks(t *testing.T) {
	for _, check := range Checks() {
		for _, c := range check(t.Context()) {
			assert.NoError(t, c.Err, c.Name)
			assert.NotEmpty(t, c.Detail, c.Name)
		}
	}
}

// TestCompare shows that the checks can fail: one bit is enough, anywhere.
func TestCompare(t *testing.T) {
	known := func() *result {
		var r result
		require.NoError(t, json.Unmarshal(goldenFile, &r))
		return &r
	}
	require.NoError(t, known().compare())
	for name, c := range map[string]struct {
		change func(*result)
		want   string
	}{
		"loss":       {func(r *result) { r.Losses[70] *= 1 + 1e-15 }, "the loss of step 71 is"},
		"epoch":      {func(r *result) { r.Epochs[2].TestAccuracy += 0.005 }, "epoch 3 gave"},
		"state":      {func(r *result) { r.Checkpoint = "00" + r.Checkpoint[2:] }, "SHA-256"},
		"cut short":  {func(r *result) { r.Losses = r.Losses[:95] }, "95 steps in 6 epochs, want 96 in 6"},
		"no results": {func(r *result) { *r = result{} }, "0 steps in 0 epochs"},
	} {
		r := known()
		c.change(r)
		assert.ErrorContains(t, r.compare(), c.want, name)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range bits(ctx) {
		assert.ErrorIs(t, c.Err, context.Canceled)
	}
}

// faulty is the CPU with a fault, in place of a GPU.
type faulty struct {
	device.Backend
	bits   int // of fraction that a convolution's weights and a step's images keep
	images int // that a step takes
}

func (f faulty) Restore(s nn.State) error {
	s.Tensors = slices.Clone(s.Tensors)
	for i := range s.Tensors {
		if len(s.Tensors[i].Shape) == 4 && !strings.HasPrefix(s.Tensors[i].Name, "adam.") {
			s.Tensors[i].Data = round(s.Tensors[i].Data, f.bits)
		}
	}
	return f.Backend.Restore(s)
}

func (f faulty) TrainStep(images []float32, labels []uint8) (float64, int, error) {
	n := min(f.images, len(labels))
	return f.Backend.TrainStep(round(images[:len(images)/len(labels)*n], f.bits), labels[:n])
}

// round rounds to so many bits of fraction, as a GPU's cvt.rna does.
func round(values []float32, bits int) []float32 {
	rounded, unit := make([]float32, len(values)), uint32(1)<<(23-bits)
	for i, v := range values {
		rounded[i] = math.Float32frombits((math.Float32bits(v) + unit/2) &^ (unit - 1))
	}
	return rounded
}

// TestBounds: a GPU may round as its precision does, and no more, and there may be no fault.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		fault   faulty
		refuses map[device.Precision]string
	}{
		"tf32":                 {faulty{bits: 10, images: batchSize}, map[device.Precision]string{device.FP32: "losses may be 5e-06 apart and gradients 0.01, they are "}},
		"bf16":                 {faulty{bits: 7, images: batchSize}, map[device.Precision]string{device.TF32: "losses may be 0.0003 apart and gradients 0.12, they are "}},
		"an image is left out": {faulty{bits: 23, images: batchSize - 1}, map[device.Precision]string{device.FP32: "they are", device.TF32: "they are"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &gpu{open: func() (device.Opened, error) {
				set, err := load()
				require.NoError(t, err)
				network, err := nn.New(config(set, 0))
				c.fault.Backend = device.CPU(network)
				return device.Opened{Backend: c.fault}, err
			}}
			worst, losses, err := g.compareSteps(t.Context())
			require.NoError(t, err)
			assert.Len(t, losses, steps)
			t.Logf("losses %.2g, gradients %.2g", worst.loss, worst.gradient)
			for precision, limit := range allowed {
				switch want, refused := c.refuses[precision]; {
				case refused:
					assert.ErrorContains(t, limit.check(worst), want, precision)
				case name == string(precision):
					assert.NoError(t, limit.check(worst))
				}
			}
		})
	}
	assert.Error(t, allowed[device.TF32].check(bounds{loss: math.NaN()}))
}
