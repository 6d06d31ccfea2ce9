package device

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/nn"
)

var config = nn.Config{Channels: 1, Classes: 10, Workers: 1}

func TestParse(t *testing.T) {
	for s, want := range map[string]Spec{
		"auto": {Kind: "auto"}, "cpu": {Kind: "cpu"}, "cuda": {Kind: "cuda"}, "cuda:0": {Kind: "cuda"}, "cuda:12": {Kind: "cuda", Index: 12},
	} {
		want.Precision = FP32
		got, err := Parse(s, "fp32")
		require.NoError(t, err)
		assert.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1,2", "cuda:99999", "cuda:0x1", " cpu"} {
		_, err := Parse(s, "fp32")
		assert.ErrorIs(t, err, ErrSpec, s)
		assert.ErrorContains(t, err, "Give auto, cpu, cuda or cuda:N", s)
	}
	got, err := Parse("cuda:1", "tf32")
	require.NoError(t, err)
	assert.Equal(t, Spec{"cuda", 1, TF32}, got)
	_, err = Parse("cuda", "fp16")
	assert.ErrorIs(t, err, ErrSpec)
	assert.ErrorContains(t, err, "Give fp32 or tf32")
	_, err = Parse("cpu", "tf32")
	assert.ErrorContains(t, err, "the CPU computes in fp32 alone")
}

func TestOpen(t *testing.T) {
	cpu, err := Open(Spec{Kind: "cpu"}, config)
	require.NoError(t, err)
	assert.Equal(t, "cpu", cpu.Name)
	assert.Equal(t, nn.Kernel(), cpu.Kernel)
	assert.Empty(t, cpu.Notice)
	assert.Equal(t, 633130, cpu.NumParameters())

	_, err = Open(Spec{Kind: "cpu"}, nn.Config{Channels: 2})
	assert.ErrorContains(t, err, "2 channels")
}

// TestNoCUDA: asked for by name it is an error, else a notice that says why.
func TestNoCUDA(t *testing.T) {
	if CUDA() == nil {
		testenv.Skip(t, testenv.NoGPU, "this build and machine have CUDA")
	}
	_, err := Open(Spec{Kind: "cuda"}, config)
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "--device=cpu")
	auto, err := Open(Spec{Kind: "auto"}, config)
	require.NoError(t, err)
	assert.Equal(t, "cpu", auto.Name)
	assert.Equal(t, "No GPU is used, training on the CPU: "+CUDA().Error(), auto.Notice)
	auto, err = Open(Spec{Kind: "auto", Precision: TF32}, config)
	require.NoError(t, err)
	assert.Contains(t, auto.Notice, ". It computes in fp32, not in tf32")
}
