package ci

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/dockertest/smi"
)

// A gpuMachine is a machine with two GPUs of a fake driver, and a Docker that passes
// them on.
type gpuMachine struct {
	t         *testing.T
	root      string // of a checkout
	image     string
	env       []string
	processes string // file with what the driver says of processes
}

const gpuA, gpuB = smi.A, smi.B

func newGPUMachine(t *testing.T) gpuMachine {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Docker")
	}
	_, hooks := dockertest.SecondDocker(t)
	m := gpuMachine{t: t, processes: filepath.Join(t.TempDir(), "processes")}
	m.image = imageWith(t, map[string]string{"trainer": "#!/bin/sh\n" + smi.UUIDs + "; echo smoke >>/my_workspace/smoked\n"})
	m.root = checkoutOfNothing(t)
	require.NoError(t, os.WriteFile(m.processes, nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(hooks, "nvidia-smi"), []byte(`#!/bin/sh
case "$*" in
--list-gpus)
	echo "GPU 0: NVIDIA H200 (UUID: `+gpuA+`)"
	echo "GPU 1: NVIDIA H200 (UUID: `+gpuB+`)" ;;
"--query-compute-apps=gpu_uuid,pid --format=csv,noheader") cat `+m.processes+` ;;
*) exit 6 ;;
esac
`), 0o755))
	m.env = []string{"PATH=" + hooks + ":" + os.Getenv("PATH"), "BERTH_LEASES=" + t.TempDir()}
	return m
}

// args are those of a run with these GPUs.
func (m gpuMachine) args(gpus, command string, more ...string) []string {
	return append([]string{"run", "-t=" + m.image, "-net=none", "-gui=off", "-g=" + gpus, "-cmd=" + command}, more...)
}

func (m gpuMachine) run(gpus, command string, more ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	return berth(m.t, m.root, m.env, m.args(gpus, command, more...)...)
}

// A running command is one that goes on until it is told to end.
type running struct {
	*exec.Cmd
	gpus   chan string // what the container was given, once it has that
	stderr *os.File
	end    func() error
}

// start starts a run that says which GPUs it has, and goes on.
func (m gpuMachine) start(gpus string, more ...string) running {
	m.t.Helper()
	binary, err := compiled()
	require.NoError(m.t, err)
	c := exec.Command(binary, m.args(gpus, "echo $("+smi.UUIDs+"); read line; true", more...)...)
	c.Dir, c.Env = m.root, append(os.Environ(), m.env...)
	r := running{Cmd: c, gpus: make(chan string, 1)}
	r.stderr, err = os.Create(filepath.Join(m.t.TempDir(), "stderr"))
	require.NoError(m.t, err)
	m.t.Cleanup(func() { r.stderr.Close() })
	c.Stderr = r.stderr
	in, err := c.StdinPipe()
	require.NoError(m.t, err)
	out, err := c.StdoutPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, c.Start())
	r.end = func() error {
		in.Close()
		return c.Wait()
	}
	go func() {
		text := make([]byte, 256)
		n, _ := out.Read(text)
		r.gpus <- strings.ReplaceAll(strings.TrimSpace(string(text[:n])), " ", ",")
	}()
	return r
}

// has waits until the container has its GPUs, and returns them.
func (r running) has(t *testing.T) string {
	t.Helper()
	select {
	case gpus := <-r.gpus:
		return gpus
	case <-time.After(60 * time.Second):
		require.Fail(t, "it has no GPUs", r.said())
		return ""
	}
}

func (r running) said() string {
	text, _ := os.ReadFile(r.stderr.Name())
	return string(text)
}

func (m gpuMachine) status() (s GPUs) {
	m.t.Helper()
	stdout, stderr, code := berth(m.t, m.root, m.env, "gpu:status", "-json")
	require.Zero(m.t, code, stderr)
	require.NoError(m.t, json.Unmarshal([]byte(stdout), &s))
	require.Len(m.t, s.GPUs, 2)
	return s
}

func TestRunsShareTheGPUs(t *testing.T) {
	m := newGPUMachine(t)
	first := m.start("auto", "-n="+dockertest.Name(t))
	require.Equal(t, gpuA, first.has(t), first.said())
	assert.Contains(t, first.said(), "Leased GPU 0\n")

	s := m.status()
	require.NotNil(t, s.GPUs[0].Lease)
	assert.Equal(t, first.Process.Pid, s.GPUs[0].Lease.PID)
	assert.Nil(t, s.GPUs[1].Lease)
	stdout, stderr, code := berth(t, m.root, m.env, "gpu:status")
	require.Zero(t, code, stderr)
	assert.Regexp(t, `(?m)^0 +`+gpuA+` +NVIDIA H200 +\S+ +`+s.GPUs[0].Lease.Name+` +\d+ \w+ \d\d:\d\d:\d\d$`, stdout)
	assert.Regexp(t, `(?m)^1 +`+gpuB+` +NVIDIA H200 +idle`, stdout)

	// The other GPU is idle, the first one isn't, by whatever name.
	stdout, stderr, code = m.run("auto", smi.UUIDs)
	assert.Equal(t, []any{gpuB + "\n", 0}, []any{stdout, code}, stderr)
	for _, selection := range []string{"", "0", "all", "GPU-aaaa", "auto:2"} {
		_, stderr, code = m.run(selection, "true", "-wait=0s")
		assert.Equal(t, 125, code, selection)
		assert.Contains(t, stderr, "held by others, and not free within -wait=0s:\n\tGPU 0: ")
		assert.Contains(t, stderr, s.GPUs[0].Lease.Name+", since ")
		assert.Contains(t, stderr, "gpu:status")
	}
	_, stderr, code = m.run("0", "true", "-wait=50ms")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "not free within -wait=50ms")
	stdout, stderr, code = m.run("0", smi.UUIDs, "-share")
	assert.Equal(t, []any{gpuA + "\n", 0}, []any{stdout, code}, stderr)
	_, stderr, code = m.run("auto", "true", "-share")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "-share: usage: ")
	stdout, stderr, code = m.run("auto:2", "true", "-dry")
	require.Zero(t, code, stderr)
	assert.Regexp(t, `(?m)^# GPUs +`+gpuB+","+gpuA, stdout, "the idle one first")
	assert.Contains(t, stdout, "It would wait for 2 idle of 2 GPUs:")

	// A wait, and who is seen to wait.
	both := m.start("auto:2", "-n="+dockertest.Name(t))
	require.Eventually(t, func() bool { return len(m.status().Waiting) == 1 }, 20*time.Second, 20*time.Millisecond)
	waits := func() bool { return strings.Contains(both.said(), "Waiting for 2 idle of 2 GPUs, until Ctrl-C:\n") }
	require.Eventually(t, waits, 20*time.Second, 20*time.Millisecond)
	assert.Contains(t, both.said(), "\tGPU 0: ")
	_, stderr, code = m.run("1", "true", "-wait=0s")
	assert.Equal(t, 125, code, "it is promised")
	assert.Contains(t, stderr, "before this: ")

	// Ctrl-C ends a wait, which leaves the queue.
	tired := m.start("auto", "-wait=1h")
	waits = func() bool {
		return strings.Contains(tired.said(), "Waiting for 1 idle of 2 GPUs, for at most 1h0m0s or until Ctrl-C:\n")
	}
	require.Eventually(t, waits, 20*time.Second, 20*time.Millisecond)
	require.NoError(t, tired.Process.Signal(os.Interrupt))
	tired.end()
	assert.Equal(t, 130, tired.ProcessState.ExitCode(), tired.said())
	assert.Len(t, m.status().Waiting, 1)

	assert.NoError(t, first.end())
	assert.Equal(t, gpuA+","+gpuB, both.has(t), both.said())

	// Whose process is killed has no lease any more.
	require.NoError(t, both.Process.Kill())
	both.end()
	_, stderr, code = m.run("all", "true", "-wait=10s")
	assert.Zero(t, code, stderr)
}

func TestGPUsThatAreUsedWithoutALease(t *testing.T) {
	m := newGPUMachine(t)
	require.NoError(t, os.WriteFile(m.processes, []byte(gpuA+", 4711\n"+gpuA+", 4712\n"), 0o644))
	stdout, stderr, code := berth(t, m.root, m.env, "gpu:status")
	require.Zero(t, code, stderr)
	assert.Regexp(t, `(?m)^0 +`+gpuA+` +NVIDIA H200 +without a lease: processes 4711, 4712`, stdout)
	stdout, stderr, code = m.run("auto", smi.UUIDs)
	assert.Equal(t, []any{gpuB + "\n", 0}, []any{stdout, code}, stderr)
	_, stderr, code = m.run("auto:2", "true", "-wait=0s")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "\tGPU 0: somebody computes on it without a lease: processes 4711, 4712\n")
	stdout, stderr, code = m.run("0", smi.UUIDs)
	assert.Equal(t, []any{gpuA + "\n", 0}, []any{stdout, code}, stderr)
	assert.Contains(t, stderr, "GPU 0 is leased, but somebody computes on it without a lease: processes 4711, 4712\n")
	_, stderr, code = m.run("auto:3", "true")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "no more than 2 to choose from")

	// The commands of smoke have one lease.
	stdout, stderr, code = berth(t, m.root, m.env, "smoke", "-t="+m.image, "-g=auto")
	assert.Zero(t, code, stderr)
	assert.Contains(t, stdout, gpuB+"\n")
	assert.Contains(t, stdout, checkName+": ok (")
	held := m.start("1")
	require.Equal(t, gpuB, held.has(t), held.said())
	_, stderr, code = berth(t, m.root, m.env, "smoke", "-t="+m.image, "-g=1", "-wait=0s")
	assert.Equal(t, ExitPrerequisite, code)
	assert.Contains(t, stderr, "held by others")
	assert.NoError(t, held.end())
}

// TestALeaseLastsAsLongAsItsLaunch has launches that outlive their command.
func TestALeaseLastsAsLongAsItsLaunch(t *testing.T) {
	m := newGPUMachine(t)
	start := func(gpus string) (name string) {
		t.Helper()
		stdout, stderr, code := m.run(gpus, "echo begun; exec sleep 1000", "-d", "-n="+dockertest.Name(t))
		require.Zero(t, code, stderr)
		return strings.TrimSpace(stdout)
	}
	stop := func(name string) {
		t.Helper()
		_, stderr, code := berth(t, m.root, m.env, "stop", "-n="+name)
		require.Zero(t, code, stderr)
	}
	first := start("auto")
	held := m.status().GPUs[0].Lease
	require.NotNil(t, held, "the command has ended, and the lease with it")
	assert.Equal(t, first, held.Name)
	second := start("auto")
	stdout, stderr, code := berth(t, m.root, m.env, "ps")
	require.Zero(t, code, stderr)
	assert.Regexp(t, `(?m)^`+first+` .* `+gpuA+` `, stdout)
	assert.Regexp(t, `(?m)^`+second+` .* `+gpuB+` `, stdout)
	waiting := m.start("0")
	require.Eventually(t, func() bool { return strings.Contains(waiting.said(), "Waiting for GPU 0") }, 20*time.Second, 20*time.Millisecond)
	stop(first)
	assert.Equal(t, gpuA, waiting.has(t), waiting.said())
	assert.NotContains(t, waiting.said(), "without a lease")
	next := m.status().GPUs[0].Lease
	require.NotNil(t, next)
	require.NoError(t, waiting.end())
	stdout, stderr, code = berth(t, m.root, m.env, "logs", "-n="+first, "-follow")
	assert.Equal(t, []any{"begun\n", 0}, []any{stdout, code}, stderr)
	stdout, stderr, code = berth(t, m.root, m.env, "ps", "-all", "-json")
	require.Zero(t, code, stderr)
	var launches []launch.Launch
	require.NoError(t, json.Unmarshal([]byte(stdout), &launches))
	at := slices.IndexFunc(launches, func(l launch.Launch) bool { return l.Name == first })
	require.GreaterOrEqual(t, at, 0, "the launch that ended isn't known")
	t.Logf("the next one has the GPU %s after the container's end", next.Since.Sub(launches[at].Until))

	// The keeper of a launch is killed: its lease goes, the launch doesn't.
	require.NotNil(t, m.status().GPUs[1].Lease)
	require.NoError(t, syscall.Kill(dockertest.LiveKeeper(t, second), syscall.SIGKILL))
	require.Eventually(t, func() bool { return m.status().GPUs[1].Lease == nil }, 20*time.Second, 20*time.Millisecond)
	stdout, stderr, code = m.run("auto", smi.UUIDs)
	assert.Equal(t, []any{gpuA + "\n", 0}, []any{stdout, code}, stderr)
	_, stderr, code = m.run("auto:2", "true", "-wait=0s")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "\tGPU 1: "+second+" of ")
	assert.Contains(t, stderr, " runs on it without a lease\n")
	_, stderr, code = m.run("1", "true")
	assert.Zero(t, code, stderr)
	assert.Contains(t, stderr, "GPU 1 is leased, but "+second+" of ")
	stop(second)
	stdout, stderr, code = m.run("auto:2", smi.UUIDs, "-wait=0s")
	assert.Equal(t, []any{gpuA + "\n" + gpuB + "\n", 0}, []any{stdout, code}, stderr)
}
