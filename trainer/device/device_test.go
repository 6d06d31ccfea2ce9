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
		"auto": {Kind: "auto", Indexes: []int{0}}, "cpu": {Kind: "cpu"},
		"cuda": {Kind: "cuda", Indexes: []int{0}}, "cuda:0": {Kind: "cuda", Indexes: []int{0}}, "cuda:12": {Kind: "cuda", Indexes: []int{12}},
		"cuda:2,0,13": {Kind: "cuda", Indexes: []int{2, 0, 13}}, "cuda:all": {Kind: "cuda"},
	} {
		want.Precision = FP32
		got, err := Parse(s, "fp32")
		require.NoError(t, err)
		assert.Equal(t, want, got, s)
	}
	for _, s := range []string{
		"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1,", "cuda:,1", "cuda:0-3", "cuda:all,1", "cuda:ALL", "cuda:99999", "cuda:0x1", " cpu",
	} {
		_, err := Parse(s, "fp32")
		assert.ErrorIs(t, err, ErrSpec, s)
		assert.ErrorContains(t, err, "Give auto, cpu, cuda, cuda:N, several as cuda:N,M, or cuda:all", s)
	}
	_, err := Parse("cuda:1,0,01", "fp32")
	assert.ErrorIs(t, err, ErrSpec)
	assert.ErrorContains(t, err, "cuda:1,0,01 names cuda:1 twice")
	got, err := Parse("cuda:1", "tf32")
	require.NoError(t, err)
	assert.Equal(t, Spec{"cuda", []int{1}, TF32}, got)
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
	_, _, why := GPUs()
	if why == nil {
		testenv.Skip(t, testenv.NoGPU, "this build and machine have CUDA")
	}
	_, err := Open(Spec{Kind: "cuda"}, config)
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "--device=cpu")
	auto, err := Open(Spec{Kind: "auto"}, config)
	require.NoError(t, err)
	assert.Equal(t, "cpu", auto.Name)
	assert.Equal(t, "No GPU is used, training on the CPU: "+why.Error(), auto.Notice)
	auto, err = Open(Spec{Kind: "auto", Precision: TF32}, config)
	require.NoError(t, err)
	assert.Contains(t, auto.Notice, ". It computes in fp32, not in tf32")
}
