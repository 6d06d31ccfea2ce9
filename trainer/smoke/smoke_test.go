package smoke

import (
	"context"
	"encoding/json"
	"flag"
	"math"
	"os"
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
	tensor string
}

func (f faulty) Restore(s nn.State) error {
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

func (f faulty) State() (nn.State, error) {
	s, err := f.Backend.State()
	for _, t := range s.Tensors {
		if t.Name == f.tensor {
			t.Data[0], t.Data[1] = t.Data[1], t.Data[0]
		}
	}
	return s, err
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
	const all = 23 // bits
	for name, c := range map[string]struct {
		precision device.Precision
		fault     faulty
		want      string
	}{
		"fp32":                 {device.FP32, faulty{bits: all, images: batchSize}, ""},
		"tf32 for fp32":        {device.FP32, faulty{bits: 10, images: batchSize}, "losses may be 5e-06 apart and gradients 0.01, they are "},
		"tf32":                 {device.TF32, faulty{bits: 10, images: batchSize}, ""},
		"bf16 for tf32":        {device.TF32, faulty{bits: 7, images: batchSize}, "losses may be 0.0003 apart and gradients 0.12, they are "},
		"an image is left out": {device.TF32, faulty{bits: 10, images: batchSize - 1}, "losses may be"},
		"two values swapped":   {device.TF32, faulty{bits: 10, images: batchSize, tensor: "adam.m.block4.bn2.bias"}, "and gradients 0.12"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &gpu{precision: c.precision, open: func() (device.Opened, error) {
				set, err := load()
				require.NoError(t, err)
				network, err := nn.New(config(set, 0))
				c.fault.Backend = device.CPU(network)
				return device.Opened{Backend: c.fault}, err
			}}
			cases := g.steps(t.Context())
			require.Len(t, cases, 1)
			t.Log(cases[0].Detail)
			assert.Len(t, cases[0].Losses, steps)
			if c.want == "" {
				assert.NoError(t, cases[0].Err)
			} else {
				assert.ErrorContains(t, cases[0].Err, c.want)
			}
		})
	}
}
