package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/report"
)

// machine is a trainer with CUDA, and a stand-in for NVIDIA's driver that runs the kernels.
type machine struct {
	trainer, driver string
	data            string // 60 images to train on, 20 to test
}

func newMachine(t *testing.T) machine {
	m := machine{cudatest.Trainer(t), cudatest.Runs(t), t.TempDir()}
	for name, n := range map[string]int{"train": 60, "t10k": 20} {
		images, labels := idx(0x803, uint32(n), 28, 28), idx(0x801, uint32(n))
		for i := range n {
			labels = append(labels, byte(i%10))
			for k := range 28 * 28 {
				images = append(images, byte(k*(i%10)+i*i))
			}
		}
		require.NoError(t, os.WriteFile(filepath.Join(m.data, name+"-images-idx3-ubyte"), images, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(m.data, name+"-labels-idx1-ubyte"), labels, 0o600))
	}
	return m
}

func idx(numbers ...uint32) (b []byte) {
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

// run runs the trainer, and returns all that it says and its exit code. env is what the
// stand-in reads.
func (m machine) run(t *testing.T, env string, args ...string) (said string, code int) {
	c := exec.Command(m.trainer, args...)
	c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+m.driver, "FAKE_CUDA_GPUS=3")
	c.Env = append(c.Env, strings.Fields(env)...)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// train trains, three steps an epoch.
func (m machine) train(t *testing.T, folder, env string, args ...string) (said string, code int) {
	return m.run(t, env, append([]string{"train", "--data-dir=" + m.data, "--batch-size=20", "--checkpoint-dir=" + folder}, args...)...)
}

// at is the step and the number of epochs of a folder's checkpoint.
func at(t *testing.T, dir string) (step int64, epochs int) {
	folder, err := checkpoint.Open(dir)
	require.NoError(t, err)
	defer folder.Close()
	c, err := folder.Load()
	require.NoError(t, err)
	return c.State.Step, len(c.Progress.Epochs)
}

// TestGPU has no GPU, but everything above one: the kernels run on the host.
func TestGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles and trains for a minute")
	}
	m := newMachine(t)
	t.Run("info", func(t *testing.T) {
		t.Parallel()
		said, code := m.run(t, "", "info")
		assert.Zero(t, code)
		assert.Contains(t, said, "available: --device=auto takes cuda:0, --device=cuda:all all 3\n")
		assert.Regexp(t, `driver +.*for CUDA 12.4\n`, said)
		assert.Regexp(t, `cuda:1 +Fake GPU 1, GPU-10111213-1415-1617-1819-1a1b1c1d1e1f, 32.0 GiB, compute capability 9.0\n`, said)
	})
	t.Run("smoke", func(t *testing.T) {
		t.Parallel()
		said, code := m.run(t, "FAKE_CUDA=exclusive", "smoke", "--device=cuda")
		assert.Zero(t, code, said)
		assert.Equal(t, 3, strings.Count(said, "ok  "), said)
		assert.Contains(t, said, "; the state has the bits that the kernels give on the host")
		if testenv.Long() {
			for _, device := range []string{"cuda", "cuda:0,1"} {
				said, code = m.run(t, "", "smoke", "--device="+device, "--precision=tf32")
				assert.Zero(t, code, said)
			}
			said, code = m.run(t, "", "smoke", "--device=cuda:2,0,1")
			assert.Zero(t, code, said)
		}
	})
	t.Run("smoke finds what is wrong", func(t *testing.T) {
		if !testenv.Long() {
			t.Skip("takes minutes; the test of package smoke's bounds is short")
		}
		t.Parallel()
		for fault, precision := range map[string]string{"FAKE_CUDA=wrong FAKE_CUDA_AFTER=200": "fp32", "FAKE_CUDA=coarse": "tf32"} {
			said, code := m.run(t, fault, "smoke", "--device=cuda", "--precision="+precision)
			assert.Equal(t, exitFailure, code, fault)
			assert.Regexp(t, "FAIL .*the CPU's: .*: losses may be .* apart and gradients", said, fault)
		}
	})
	t.Run("no memory", func(t *testing.T) {
		t.Parallel()
		said, code := m.train(t, t.TempDir(), "FAKE_CUDA=memory", "--device=cuda")
		assert.Equal(t, exitFailure, code)
		assert.Regexp(t, `\d+ bytes for .*, of which 1000 are free of 2000: cuda:0 \(Fake GPU 0\): cuMemAlloc: error 2 \(CUDA_ERROR_OUT_OF_MEMORY: out of memory\)`, said)
	})
	t.Run("a checkpoint moves", func(t *testing.T) {
		t.Parallel()
		folder := t.TempDir()
		for epoch, device := range []string{"cuda:1", "cpu", "cuda:2,0", "cuda:all", "cuda"} {
			said, code := m.train(t, folder, "", fmt.Sprint("--resume=", epoch > 0), "--device="+device, fmt.Sprint("--num-epochs=", epoch+1))
			require.Zero(t, code, said)
			step, epochs := at(t, folder)
			assert.Equal(t, []int{3 * (epoch + 1), epoch + 1}, []int{int(step), epochs})
		}
	})
	t.Run("gpu.sh", func(t *testing.T) {
		t.Parallel()
		out := t.TempDir()
		data := t.TempDir() // torchvision's
		require.NoError(t, os.Mkdir(filepath.Join(data, "FashionMNIST"), 0o755))
		require.NoError(t, os.Symlink(m.data, filepath.Join(data, "FashionMNIST", "raw")))
		c := exec.Command("bench/gpu.sh", m.trainer, data, out)
		c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+m.driver, "BENCH_BATCH=10", "BENCH_STEPS=1", "BENCH_EPOCHS=1", "BENCH_LIMIT=600",
			"CUDA_VISIBLE_DEVICES=") // PyTorch, if it is here, is to see no GPU
		skipped := []string{}
		if !testenv.Long() {
			skipped = []string{"smoke-fp32", "smoke-tf32"}
		}
		c.Env = append(c.Env, "BENCH_SKIP="+strings.Join(skipped, " "))
		said, err := c.CombinedOutput()
		testenv.NeedsCommand(t, testenv.Python, "python3")
		require.NoError(t, err, "%s", said)
		var got struct {
			Card    string
			Failed  map[string]string
			LeftOut []string `json:"left_out"`
			Runs    []struct {
				What            string
				ImagesPerSecond *float64 `json:"images_per_second"`
				SecondsPerEpoch *float64 `json:"seconds_per_epoch"`
				TestAccuracy    *float64 `json:"test_accuracy"`
			}
		}
		text, err := os.ReadFile(filepath.Join(out, "gpu.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &got))
		assert.NotEmpty(t, got.Card)
		assert.Equal(t, skipped, got.LeftOut)
		require.Len(t, got.Failed, 2, "%s", said)
		for _, step := range []string{"pytorch-plain", "pytorch-tuned"} {
			assert.Regexp(t, "^exit code 1: (.* has no module (torch|numpy): install PyTorch|PyTorch .* sees no GPU)", got.Failed[step])
		}
		table, err := os.ReadFile(filepath.Join(out, "gpu.md"))
		require.NoError(t, err)
		require.Len(t, got.Runs, 4)
		for i, what := range []string{
			"trainer bench, cuda:0 (Fake GPU 0), fp32, batch 10", "trainer bench, cuda:0 (Fake GPU 0), tf32, batch 10",
			"trainer train, cuda:0 (Fake GPU 0), fp32, 1 epochs", "trainer train, cuda:0 (Fake GPU 0), tf32, 1 epochs",
		} {
			r := got.Runs[i]
			assert.Equal(t, what, r.What)
			require.NotNil(t, r.ImagesPerSecond)
			assert.Positive(t, *r.ImagesPerSecond)
			assert.Equal(t, i > 1, r.SecondsPerEpoch != nil && r.TestAccuracy != nil, what)
			assert.Contains(t, string(table), "\n| "+what+" | ")
		}
		for _, more := range append(skipped, "pytorch-plain: exit code 1: ") {
			assert.Contains(t, string(table), more)
		}
	})
	t.Run("gpu.sh is too slow", func(t *testing.T) {
		t.Parallel()
		out := t.TempDir()
		c := exec.Command("bench/gpu.sh", m.trainer, m.data, out)
		c.Env = append(os.Environ(), "LD_LIBRARY_PATH="+m.driver, "FAKE_CUDA=hang", "BENCH_LIMIT=1",
			"BENCH_SKIP=smoke-fp32 smoke-tf32 bench-fp32 bench-tf32 train-fp32 pytorch-plain pytorch-tuned")
		said, err := c.CombinedOutput()
		testenv.NeedsCommand(t, testenv.Python, "python3")
		require.NoError(t, err, "%s", said)
		table, err := os.ReadFile(filepath.Join(out, "gpu.md"))
		require.NoError(t, err)
		assert.Contains(t, string(table), "\n- train-tf32: no end within 1 s\n")
	})
	t.Run("gpu.sh without Python", func(t *testing.T) {
		t.Parallel()
		bin, out := t.TempDir(), t.TempDir()
		for _, tool := range []string{"sh", "cat", "dirname", "mkdir", "rm", "tail", "timeout"} {
			path, err := exec.LookPath(tool)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(path, filepath.Join(bin, tool)))
		}
		c := exec.Command("bench/gpu.sh", m.trainer, m.data, out)
		c.Env = append(os.Environ(), "PATH="+bin, "BENCH_SKIP=smoke-fp32 smoke-tf32 bench-fp32 bench-tf32 train-fp32 train-tf32")
		said, err := c.CombinedOutput()
		assert.Error(t, err)
		assert.Contains(t, string(said), "There is no python3 to make gpu.json and gpu.md. What was measured is in "+out+": once it has Python, run ")
		log, err := os.ReadFile(filepath.Join(out, "info.log"))
		require.NoError(t, err)
		assert.Contains(t, string(log), "60 + 20 images")
	})
	// Which of the GPUs is ahead, which has which part, and how memory gets from one to the
	// other doesn't matter.
	t.Run("several give the same bits", func(t *testing.T) {
		t.Parallel()
		records := t.TempDir()
		var states []string
		for i, run := range [][2]string{
			{"FAKE_CUDA_LEADER=0", "cuda:0,1,2"}, {"FAKE_CUDA_LEADER=2", "cuda:all"}, {"FAKE_CUDA_LEADER=1 FAKE_CUDA=nopeer", "cuda:2,0,1"},
		} {
			name := filepath.Join(records, fmt.Sprint(i))
			// Of the last batch, of 4 images, a GPU has two: the first one.
			said, code := m.train(t, t.TempDir(), run[0], "--batch-size=14", "--num-epochs=1", "--device="+run[1], "--json="+name)
			require.Zero(t, code, said)
			var record report.Record
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(text, &record))
			assert.Equal(t, 3, record.Device.GPUs)
			assert.EqualValues(t, 5, record.Steps)
			states = append(states, record.CheckpointSHA256)
		}
		assert.Equal(t, []string{states[0], states[0], states[0]}, states)
	})
	t.Run("bench of several", func(t *testing.T) {
		t.Parallel()
		name := filepath.Join(t.TempDir(), "rows")
		said, code := m.run(t, "", "bench", "--device=cuda:0,2", "--num-workers=1", "--batch-size=3", "--steps=1", "--channels=1", "--json="+name)
		require.Zero(t, code, said)
		var rows []BenchRow
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &rows))
		require.Len(t, rows, 1)
		assert.Equal(t, 2, rows[0].GPUs)
		assert.Equal(t, "cuda:0,2 (Fake GPU 0, Fake GPU 2)", rows[0].Device)
	})
	t.Run("one in exclusive mode", func(t *testing.T) {
		t.Parallel()
		said, code := m.run(t, "FAKE_CUDA=exclusive", "bench", "--device=cuda", "--num-workers=1,2", "--batch-size=2", "--steps=1", "--channels=1")
		assert.Zero(t, code, said)
	})
	t.Run("hangs before it is used", func(t *testing.T) {
		t.Parallel()
		for _, wrong := range []string{"hanginit", "hangopen"} {
			env := "FAKE_CUDA=" + wrong + " BERTH_GPU_TIMEOUT=1s"
			for _, args := range [][]string{
				{"info"}, {"smoke", "--device=cuda"}, {"bench", "--device=cuda", "--num-workers=1"},
				{"train", "--device=cuda", "--data-dir=" + m.data, "--checkpoint-dir="},
			} {
				if wrong == "hangopen" && args[0] == "info" {
					continue // which opens none
				}
				said, code := m.run(t, env, args...)
				assert.Equal(t, exitFailure, code, said)
				assert.Contains(t, said, "hangs: a call of its driver has lasted 1s")
				assert.Equal(t, args[0] == "train", strings.Contains(said, "No checkpoint was to be kept"), said)
			}
		}
	})
	t.Run("several that can't be", func(t *testing.T) {
		t.Parallel()
		for device, want := range map[string]struct {
			env, says string
			code      int
		}{
			"cuda:1,0,1": {"", "cuda:1,0,1 names cuda:1 twice", exitUsage},
			"cuda:0,3":   {"", "there is no GPU 3, the last one of 3 is 2. Use --device=cpu", exitPrerequisite},
			"cuda:0,1,2": {"", "--batch-size=2 has fewer images than there are GPUs: 3.", exitUsage},
			"cuda:all":   {"", "--batch-size=2 has fewer images than there are GPUs: 3.", exitUsage},
			"cuda:2,1":   {"FAKE_CUDA=small FAKE_CUDA_DEVICE=1", "GPU 1: it has compute capability 7.5, it must be 8.0", exitPrerequisite},
		} {
			folder := t.TempDir()
			said, code := m.train(t, folder, want.env, "--batch-size=2", "--device="+device)
			assert.Equal(t, want.code, code, said)
			assert.Contains(t, said, want.says)
			_, err := os.Stat(filepath.Join(folder, "trainer.checkpoint"))
			assert.ErrorIs(t, err, os.ErrNotExist)
		}
		said, code := m.train(t, t.TempDir(), "FAKE_CUDA=small FAKE_CUDA_DEVICE=1", "--device=cuda:all")
		assert.Equal(t, exitPrerequisite, code)
		assert.Contains(t, said, "cuda:1: it has compute capability 7.5, it must be 8.0 or later. Name the others: --device=cuda:0,2. Use --device=cpu")
	})
	// A GPU goes in the second epoch: what the first one left is there.
	for _, c := range []struct{ env, device, want string }{
		{"FAKE_CUDA=lost FAKE_CUDA_AFTER=500", "cuda", "error 214 (CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered)"},
		{"FAKE_CUDA=hang FAKE_CUDA_AFTER=500 BERTH_GPU_TIMEOUT=20s", "cuda", "cuda:0 (Fake GPU 0) hangs: a call of its driver has lasted 20s"},
		{"FAKE_CUDA=lost FAKE_CUDA_AFTER=1000 FAKE_CUDA_DEVICE=1", "cuda:0,1", "cuda:1 (Fake GPU 1): cu"},
		{"FAKE_CUDA=hang FAKE_CUDA_AFTER=1000 FAKE_CUDA_DEVICE=1 BERTH_GPU_TIMEOUT=20s", "cuda:0,1",
			"It works together with others of cuda:0,1 (Fake GPU 0, Fake GPU 1): it may be one of them"},
		{"FAKE_CUDA=garble FAKE_CUDA_AFTER=1000 FAKE_CUDA_DEVICE=1", "cuda:0,1", "cuda:1 (Fake GPU 1) has other "},
	} {
		env, want := c.env, c.want
		t.Run(c.device+" "+strings.Fields(env)[0], func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			said, code := m.train(t, folder, env, "--device="+c.device, "--num-epochs=3")
			assert.Equal(t, exitFailure, code, said)
			assert.Contains(t, said, want)
			assert.Equal(t, 1, strings.Count(said, want), said)
			assert.Contains(t, said, folder)
			step, epochs := at(t, folder)
			assert.Equal(t, []int{3, 1}, []int{int(step), epochs}, said)
			said, code = m.train(t, folder, "", "--device=cpu", "--resume", "--num-epochs=2")
			assert.Zero(t, code, said)
		})
	}
}

// TestGPULines are those of machines with another driver.
func TestGPULines(t *testing.T) {
	assert.Equal(t, []string{"cuda\tdevice unavailable"}, gpuLines("", nil, device.ErrUnavailable))
	assert.Equal(t, []string{
		"cuda\t--device=auto doesn't take cuda:0: too old", "driver\tx",
		"cuda:0\ta, u, 2.0 GiB, compute capability 7.5. Can't be used: too old",
		"cuda:1\tb, v, 0.5 GiB, compute capability 8.0",
	}, gpuLines("x", []device.GPU{
		{Name: "a", UUID: "u", Memory: 2 << 30, Capability: "7.5", Err: errors.New("too old")},
		{Name: "b", UUID: "v", Memory: 1 << 29, Capability: "8.0"},
	}, nil))
}
