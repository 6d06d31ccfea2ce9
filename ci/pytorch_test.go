package ci

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
	sample "github.com/berthdev/berth/testdata/fashion-mnist-1000"
	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/nn"
)

// TestPyTorch trains in PyTorch, on its CPU, what the trainer trains: from one checkpoint, on
// images that a flip leaves as they are, all in one batch, and without dropout, so that neither
// order nor chance matters. Step by step the two say the same. It also is what runs
// trainer/bench/pytorch/train.py where there is no GPU.
func TestPyTorch(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it fetches and unpacks PyTorch: mage test -long")
	}
	const images, steps = 64, 5
	docker, image := testenv.NeedsCommand(t, testenv.DockerCommand, "docker"), dockertest.PyTorch(t)
	peer, err := filepath.Abs("../trainer/bench/pytorch")
	require.NoError(t, err)
	folder := t.TempDir()
	writeMirrored(t, folder, images)
	set, err := data.Find(folder, false)
	require.NoError(t, err)
	network := begun(t, filepath.Join(folder, "begun"))

	// The trainer's.
	var losses []float64
	loader := data.NewLoader(set, images, false, 0)
	for x, y := range loader.Epoch(0, 0) {
		for range steps {
			loss, _, err := network.TrainStep(x, y)
			require.NoError(t, err)
			losses = append(losses, loss)
		}
	}
	var testLoss float64
	var correct int
	for x, y := range loader.Epoch(0, 0) {
		testLoss, correct, err = network.Evaluate(x, y)
		require.NoError(t, err)
	}
	assert.Less(t, losses[steps-1], losses[0]-0.5, "it learns something")

	for variant, tolerance := range map[string]float64{"plain": 1e-5, "tuned": 0.02} { // bfloat16 has 8 bits
		t.Run(variant, func(t *testing.T) {
			c := exec.CommandContext(t.Context(), docker, "run", "--rm", "--name="+dockertest.Name(t), "--network=none", "--shm-size=1g",
				"--volume="+peer+":/peer:ro", "--volume="+folder+":/data:ro",
				"--env=LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-pthread", image,
				"python3", "-B", "/peer/train.py", "--variant="+variant, "--device=cpu", "--data=/data", "--from=/data/begun",
				fmt.Sprint("--batch-size=", images), fmt.Sprint("--epochs=", steps))
			out, err := c.Output()
			if exit, ok := err.(*exec.ExitError); ok {
				require.NoError(t, err, "%s", exit.Stderr)
			}
			require.NoError(t, err)
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			var got struct {
				TrainLosses  []float64 `json:"train_losses"`
				TestLoss     float64   `json:"test_loss"`
				TestAccuracy float64   `json:"test_accuracy"`
			}
			require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &got), "%s", out)
			t.Logf("PyTorch: %.6f, then %.6f; the trainer: %.6f, then %.6f", got.TrainLosses, got.TestLoss, losses, testLoss/images)
			assert.InDeltaSlice(t, losses, got.TrainLosses, tolerance)
			assert.InDelta(t, testLoss/images, got.TestLoss, tolerance)
			assert.InDelta(t, float64(correct)/images, got.TestAccuracy, 1.0/images)
		})
	}
}

// begun writes a checkpoint of a network without dropout, and returns the network. The
// parameters and statistics of batch norm are random: at first they are 0 and 1, with which
// much that is wrong goes unnoticed.
func begun(t *testing.T, file string) *nn.Network {
	t.Helper()
	network, err := nn.New(nn.Config{Channels: 1, Classes: 10, Seed: 1})
	require.NoError(t, err)
	state := network.State()
	random := rand.New(rand.NewPCG(1, 2))
	for _, tensor := range state.Tensors {
		if strings.Contains(tensor.Name, "bn") && !strings.HasPrefix(tensor.Name, "adam.") {
			for i := range tensor.Data {
				if value := random.Float32(); strings.HasSuffix(tensor.Name, "weight") || strings.HasSuffix(tensor.Name, "var") {
					tensor.Data[i] = 0.5 + value
				} else {
					tensor.Data[i] = (value - 0.5) / 2
				}
			}
		}
	}
	require.NoError(t, network.Restore(state))
	out, err := os.Create(file)
	require.NoError(t, err)
	defer out.Close()
	require.NoError(t, (&checkpoint.Checkpoint{State: state}).Encode(out))
	return network
}

// writeMirrored writes a data set whose images are symmetric, of which both splits have the same.
func writeMirrored(t *testing.T, folder string, images int) {
	t.Helper()
	set, err := data.Load(sample.Files, false)
	require.NoError(t, err)
	size := set.Height * set.Width
	pixels := make([]byte, 0, images*size)
	for i := range images {
		for y := range set.Height {
			for x := range set.Width {
				pixels = append(pixels, set.Train.Pixels[i*size+y*set.Width+min(x, set.Width-1-x)])
			}
		}
	}
	for _, split := range []string{"train", "t10k"} {
		for kind, values := range map[string][]byte{"images-idx3": pixels, "labels-idx1": set.Train.Labels[:images]} {
			header := []byte{0, 0, 8, kind[len(kind)-1] - '0'}
			header = binary.BigEndian.AppendUint32(header, uint32(images))
			if len(values) > images {
				header = binary.BigEndian.AppendUint32(header, uint32(set.Height))
				header = binary.BigEndian.AppendUint32(header, uint32(set.Width))
			}
			require.NoError(t, os.WriteFile(filepath.Join(folder, split+"-"+kind+"-ubyte"), append(header, values...), 0o644))
		}
	}
}
