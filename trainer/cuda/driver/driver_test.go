//go:build cuda && cgo && linux && amd64

package driver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/cudatest"
	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// The driver is loaded once in a process, so what goes wrong with it is tried in processes of
// their own: this program again, with a stand-in for the driver before all other libraries.
const envRole = "BERTH_TEST_DRIVER"

func TestMain(m *testing.M) {
	if os.Getenv(envRole) == "" {
		os.Exit(m.Run())
	}
	go func() {
		fmt.Println("ERROR:", <-Hung())
		os.Exit(0)
	}()
	if err := map[string]func() error{"one": use, "several": useSeveral, "twice": useTwice, "stopped": useStopped}[os.Getenv(envRole)](); err != nil {
		fmt.Println("ERROR:", err)
	}
}

// useSeveral does with devices what several together do.
func useSeveral() error {
	var all []*Device
	for i := range 3 {
		d, err := Open(i)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	if err := Connect(all); err != nil {
		return err
	}
	var at [3]kernels.Pointer
	for i, d := range all {
		var err error
		if at[i], err = d.Alloc("some", 16); err != nil {
			return err
		}
		if err := d.Write(at[i], []byte("0123456789abcdef")[i:i+8]); err != nil {
			return err
		}
	}
	// What the first one gets from the last one came there from the second one.
	b := make([]byte, 3)
	err := errors.Join(
		all[1].Mark(), all[2].Follow(all[1]), all[2].Fetch(at[2]+8, all[1], at[1]+2, 4), all[2].Mark(),
		all[0].Follow(all[2]), all[0].Fetch(at[0]+4, all[2], at[2]+8, 4), all[0].Read(b, at[0]+5))
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", b)
	for want, err := range map[string]error{
		"cuda:2 (Fake GPU 2): cuMemcpyPeerAsync: error 1 (InvalidValue)": all[2].Fetch(at[2], all[1], at[1], 17),
		"cuda:0 (Fake GPU 0): cuMemcpyHtoD: error 1 (InvalidValue)":      all[0].Write(at[1], b),
		"cuda:1 (Fake GPU 1): cuMemFree: error 1 (InvalidValue)":         all[1].Free(at[2]),
	} {
		if err == nil || err.Error() != want {
			return fmt.Errorf("%v, not %s", err, want)
		}
	}
	// A kernel has no access to what is another device's; that shows when somebody waits.
	s := kernels.Set{Launcher: all[1], Precision: kernels.FP32}
	if err := s.NormRunning(at[1], at[1], at[2], at[1], at[1], 1); err != nil {
		return err
	}
	if err := all[0].Read(b, at[0]); err != nil {
		return fmt.Errorf("of another device: %w", err)
	}
	return all[1].Read(b, at[1])
}

// useTwice opens a device that only one may have, when it is free again and before.
func useTwice() error {
	for range 2 {
		d, err := Open(1)
		if err != nil {
			return err
		}
		if _, err := d.Alloc("some", 12); err != nil {
			return err
		}
		d.Close()
	}
	if _, err := Open(1); err != nil {
		return err
	}
	fmt.Println("before")
	_, err := Open(1)
	return err
}

// useStopped has a process stopped in a call, until somebody has it go on.
func useStopped() error {
	ended := watch(named("a GPU"))
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // what is overdue comes first
	ended()
	fmt.Println("it came back")
	return nil
}

// use does with a device what a training does.
func use() error {
	if _, err := find(0); err != nil {
		return err
	}
	d, err := Open(1)
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Println(d.Name, d.UUID, len(d.functions))
	// Goroutines run on threads on which there is no context yet.
	var wait sync.WaitGroup
	wait.Go(func() {
		var p kernels.Pointer
		if p, err = d.Alloc("some", 12); err != nil {
			return
		}
		if err = d.Write(p+4, []byte("abcdefgh")); err != nil {
			return
		}
		b := make([]byte, 3)
		if err = d.Read(b, p+6); err != nil {
			return
		}
		fmt.Printf("%s\n", b)
		err = d.Free(p)
	})
	wait.Wait()
	if err != nil {
		return err
	}
	s := kernels.Set{Launcher: d, Precision: kernels.TF32}
	drop := kernels.Dropout{Seed: 1<<63 + 5, Probability: 0.5, Block: 3, First: 250}
	if err := s.Activate(0x1000, 0x2000, 0x3000, 0x4000, drop, 100, 16, 2); err != nil {
		return err
	}
	if err := s.ConvWeight(0x1000, 0x2000, 0xffff000000000000, kernels.Shape{Rows: 5000, K: 64, N: 32, Width: 3, Log: 3}); err != nil {
		return err
	}
	recording, err := d.Record(func() error { return s.NormRunning(1, 2, 3, 4, 5, 16) })
	if err != nil {
		return err
	}
	if err := errors.Join(recording.Replay(), recording.Replay(), recording.Destroy()); err != nil {
		return err
	}
	// What waits can't be recorded, and the device goes on after that.
	p, err := d.Alloc("more", 4)
	if err != nil {
		return err
	}
	_, err = d.Record(func() error { return d.Write(p, make([]byte, 4)) })
	if want := "cuda:1 (Fake GPU 1): cuMemcpyHtoD: error 900 (StreamCaptureUnsupported)"; err == nil || err.Error() != want {
		return fmt.Errorf("%v, not %s", err, want)
	}
	if err := d.Write(p, make([]byte, 4)); err != nil {
		return err
	}
	if err := d.Launch("nothing", [3]int{1, 1, 1}, [3]int{1, 1, 1}); err == nil || err.Error() != `there is no kernel "nothing"` {
		return fmt.Errorf("a kernel that isn't there: %v", err)
	}
	if err := d.Launch("haar", [3]int{1, 1, 1}, [3]int{1, 1, 1}, "x"); err == nil || err.Error() != "argument 0 is a string" {
		return fmt.Errorf("an argument of another type: %v", err)
	}
	return nil
}

// run runs use with a driver of which something is wrong, and returns what it prints and
// what the driver notes.
func run(t *testing.T, folder, wrong string) (out, log string) { return as(t, "one", folder, wrong) }

func as(t *testing.T, role, folder, wrong string) (out, log string) {
	name := filepath.Join(t.TempDir(), "log")
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), envRole+"="+role, "LD_LIBRARY_PATH="+folder, "FAKE_CUDA="+wrong, "FAKE_CUDA_GPUS=3", "FAKE_CUDA_LOG="+name, envTimeout+"=2s")
	text, err := c.CombinedOutput()
	require.NoError(t, err, "%s", text)
	noted, _ := os.ReadFile(name) // there is none if nothing was called
	return string(text), string(noted)
}

func TestDevice(t *testing.T) {
	out, log := run(t, cudatest.Notes(t), "")
	total := 0
	for _, text := range kernels.PTX() {
		total += len(kernels.Entries(text))
	}
	assert.Equal(t, fmt.Sprintf("Fake GPU 1 GPU-10111213-1415-1617-1819-1a1b1c1d1e1f %d\ncde\n", total), out)
	assert.Equal(t, `context on 1
activate 2 1 1 x 256 1 1, 0: 1000 2000 3000 4000 8000000000000005 80000000 2 3 250 100 16 2
conv_weight_tf32 9 2 20 x 128 1 1, 0: 1000 2000 ffff000000000000 5000 64 32 3 3 256
graph
recording
graph destroyed
replay
replay
recording destroyed
graph
graph destroyed
no context on 1
`, log)
	out, _ = run(t, cudatest.Notes(t), "mig")
	assert.Contains(t, out, "MIG-10111213-1415-1617-1819-1a1b1c1d1e1e")
}

// TestExclusive opens a device of which there may be one context.
func TestExclusive(t *testing.T) {
	out, log := as(t, "twice", cudatest.Notes(t), "exclusive")
	assert.Contains(t, out, "before\nERROR: cuda:1 (Fake GPU 1): cuCtxCreate: error 46 (")
	assert.Equal(t, "context on 1\nno context on 1\ncontext on 1\nno context on 1\ncontext on 1\n", log)
}

// TestStopped: a process that is stopped for longer than a call may last has not waited for it.
func TestStopped(t *testing.T) {
	var out strings.Builder
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), envRole+"=stopped", envTimeout+"=1s")
	c.Stdout, c.Stderr = &out, &out
	require.NoError(t, c.Start())
	var status syscall.WaitStatus
	_, err := syscall.Wait4(c.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped(), "%v %s", status, &out)
	time.Sleep(1500 * time.Millisecond)
	require.NoError(t, c.Process.Signal(syscall.SIGCONT))
	require.NoError(t, c.Wait())
	assert.Equal(t, "it came back\n", out.String())
}

func TestParsePatience(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 2 * time.Minute, "90s": 90 * time.Second} {
		got, err := parsePatience(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"90", "-1s", "0s", "soon"} {
		_, err := parsePatience(text)
		assert.ErrorContains(t, err, "BERTH_GPU_TIMEOUT="+text+" is no time to wait for a GPU. Give one such as 90s or 10m")
	}
}

// TestSeveral exchanges memory, with direct access to each other's and without.
func TestSeveral(t *testing.T) {
	folder := cudatest.Notes(t)
	const foreign = "456\nERROR: cuda:1 (Fake GPU 1): cuMemcpyDtoH: error 700 (IllegalAddress)\n"
	out, log := as(t, "several", folder, "")
	assert.Equal(t, foreign, out)
	assert.Equal(t, 3, strings.Count(log, "context on "))
	for _, pair := range []string{"0 to 1", "0 to 2", "1 to 0", "1 to 2", "2 to 0", "2 to 1"} {
		assert.Contains(t, log, "access from "+pair+"\n")
	}
	for _, wrong := range []string{"nopeer", "peers", "novirtual"} {
		out, log = as(t, "several", folder, wrong)
		assert.Equal(t, foreign, out)
		assert.NotContains(t, log, "access")
	}
	out, _ = as(t, "several", folder, "copy")
	assert.Contains(t, out, "ERROR: cuda:2 (Fake GPU 2): cuMemcpyPeerAsync: error 220 (NvlinkUncorrectable)")
	assert.Contains(t, out, "\ncuda:0 (Fake GPU 0): cuMemcpyPeerAsync: error 220")
}

// TestMissingLinks names each link that may be missing, and what the driver may refuse.
func TestMissingLinks(t *testing.T) {
	folder := cudatest.Notes(t)
	for wrong, want := range map[string]string{
		"nodevice": "no CUDA: cuInit: error 100 (no CUDA-capable device is detected)",
		"zero":     "no CUDA: the driver sees no GPU",
		"old":      "no CUDA: the driver is for CUDA 11.4, which is too old: it must be for 11.8 (driver 520) or later",
		"small":    "no CUDA: GPU 0: it has compute capability 7.5, it must be 8.0 or later",
		"total":    "no CUDA: GPU 0: cuDeviceTotalMem: error 101 (InvalidDevice)",
		"ptx":      "kernel activate on cuda:1 (Fake GPU 1): cuModuleLoadDataEx: error 218 (InvalidPtx)\nptxas fatal: line 1",
		"memory":   "12 bytes for some, of which 1000 are free of 2000: cuda:1 (Fake GPU 1): cuMemAlloc: error 2 (CUDA_ERROR_OUT_OF_MEMORY: out of memory)",
		"lost":     "cuda:1 (Fake GPU 1): cuStreamCreate: error 214 (CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered)",
		"launch":   "cuda:1 (Fake GPU 1): cuLaunchKernel: error 701 (LaunchOutOfResources)",
		"graph":    "cuda:1 (Fake GPU 1): cuGraphInstantiateWithFlags: error 801 (",
		"hang":     "cuda:1 (Fake GPU 1) hangs: a call of its driver has lasted 2s. `dmesg` may say more: look for Xid",
		"hanginit": "a GPU hangs: a call of its driver has lasted 2s",
		"hangopen": "cuda:1 (Fake GPU 1) hangs: a call of its driver has lasted 2s",
	} {
		out, log := run(t, folder, wrong)
		assert.Contains(t, out, "ERROR: "+want, wrong)
		assert.Equal(t, strings.Count(log, "graph\n"), strings.Count(log, "graph destroyed\n"), "%s: what was made is destroyed", wrong)
	}
	out, log := run(t, t.TempDir(), "")
	if strings.Contains(out, "ERROR: ") { // else this machine has a driver
		assert.Contains(t, out, "ERROR: no CUDA: libcuda.so.1: cannot open shared object file")
		assert.Empty(t, log)
	}
}
