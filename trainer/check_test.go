package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
)

// script is the path of one of the scripts in bench.
func script(t *testing.T, name string) string {
	path, err := filepath.Abs(filepath.Join("bench", name))
	require.NoError(t, err)
	return path
}

// TestArgumentsOfScripts: which program and which data bench/gpu.sh and bench/check.sh take. The
// trainer is one that says with what it was called.
func TestArgumentsOfScripts(t *testing.T) {
	folder, bin := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o755))
	}
	write(filepath.Join(folder, "here"), "#!/bin/sh\necho \"here $*\"")
	write(filepath.Join(bin, "here"), "#!/bin/sh\necho \"on the PATH $*\"")
	write(filepath.Join(bin, "there"), "#!/bin/sh\necho \"on the PATH $*\"")
	require.NoError(t, os.Mkdir(filepath.Join(folder, "there"), 0o755)) // no program
	require.NoError(t, os.WriteFile(filepath.Join(folder, "text"), nil, 0o644))
	for _, name := range []string{
		"gray/train-images-idx3-ubyte.gz",
		"both/train-images-idx3-ubyte", "both/cifar-10-batches-bin/data_batch_1.bin",
		"torchvision/FashionMNIST/raw/train-images-idx3-ubyte", "torchvision/cifar-10-batches-bin/data_batch_1.bin",
		"colour/data_batch_1.bin",
	} {
		write(filepath.Join(folder, name), "")
	}
	run := func(name string, args ...string) (said string, code int) {
		c := exec.CommandContext(t.Context(), script(t, name), args...)
		c.Dir = folder
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "BENCH_SKIP=pytorch-plain pytorch-tuned")
		out, _ := c.CombinedOutput()
		require.NotNil(t, c.ProcessState)
		return string(out), c.ProcessState.ExitCode()
	}
	for _, c := range []struct{ trainer, data, want string }{
		{"here", "gray", "here train --device=cuda --precision=tf32 --data-dir=gray --batch-size="},
		{"there", "both", "on the PATH train --device=cuda --precision=tf32 --data-dir=both --fashion --batch-size="},
		{"./here", "torchvision", "here train --device=cuda --precision=tf32 --data-dir=torchvision/FashionMNIST/raw --batch-size="},
	} {
		run("gpu.sh", c.trainer, c.data, "out") // without Python it fails at its end
		log, err := os.ReadFile(filepath.Join(folder, "out", "train-tf32.log"))
		require.NoError(t, err)
		assert.Contains(t, string(log), c.want)
	}
	for _, c := range []struct{ script, program, data, want string }{
		{"gpu.sh", "nowhere", "gray", "nowhere is no program, here or on the PATH. Give the one that this makes: CGO_ENABLED=1 go build "},
		{"gpu.sh", "./there", "gray", "./there is no program"},
		{"gpu.sh", "text", "gray", "text is no program"},
		{"gpu.sh", "here", "colour", "There is no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in colour or colour/FashionMNIST/raw. Give a folder "},
		{"check.sh", "there", "", "./there is no program. Give the one that this makes: go test -c "},
	} {
		said, code := run(c.script, c.program, c.data)
		assert.Equal(t, 2, code, said)
		assert.Contains(t, said, c.want)
	}
}

// TestCheck runs bench/check.sh with stand-ins for the driver and for compute-sanitizer, of which one
// tool finds something.
func TestCheck(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the kernels for the host")
	}
	folder, bin := t.TempDir(), t.TempDir()
	cudatest.Go(t, "trainer", "test", "-c", "-tags=cuda", "-o", filepath.Join(folder, "kernels.test"), "./cuda/kernels")
	require.NoError(t, os.WriteFile(filepath.Join(bin, "compute-sanitizer"), []byte(`#!/bin/sh
[ "$2" = --error-exitcode=1 ] || exit 2
if [ "$1" = --tool=racecheck ]; then
	echo "========= ERROR SUMMARY: 1 hazard" >&2
	exit 1
fi
shift 2
exec "$@"
`), 0o755))
	driver := cudatest.Runs(t)
	check := func(wrong string) (said string, code int) {
		c := exec.CommandContext(t.Context(), script(t, "check.sh"), "kernels.test", t.TempDir())
		c.Dir = folder
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LD_LIBRARY_PATH="+driver, "FAKE_CUDA="+wrong, "CHECK_BATCH=1", "CHECK_TIMES=1x")
		out, err := c.CombinedOutput()
		if err != nil {
			require.IsType(t, &exec.ExitError{}, err, "%s", out)
		}
		return string(out), c.ProcessState.ExitCode()
	}
	said, code := check("")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: 24 checks passed
memcheck: 24 checks passed
racecheck: FAILED: ========= ERROR SUMMARY: 1 hazard. See .*/racecheck.log
initcheck: 24 checks passed
synccheck: 24 checks passed
times: 1[0-9][0-9] launches, see .*/times.log
$`, said)
	said, code = check("old")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: FAILED: .*no CUDA: the driver is for CUDA 11.4`, said)
	said, code = check("coarse") // multiplies with fewer bits than tf32 has
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^float64: FAILED: .*of which rounding explains`, said)
}
