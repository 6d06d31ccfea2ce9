package doctor

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/trouble"
)

// alone gives a test an environment without the machine's: no Docker, no GPU, no mirror,
// and a home of its own. The folder of the home is returned.
func alone(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "XDG_CACHE_HOME": "", "BERTH_CACHE": "", "DOCKER_HOST": "unix://" + filepath.Join(home, "docker.sock"), "DOCKER_CONTEXT": "",
		"DOCKER_CONFIG": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "PATH": home, "BERTH_DEBIAN_MIRROR": "http://127.0.0.1:1",
		"_EXPERIMENTAL_DAGGER_RUNNER_HOST": "", "DAGGER_SESSION_PORT": "",
	} {
		t.Setenv(name, value)
	}
	return home
}

// row finds a row among findings.
func row(all []Finding, row *trouble.Row) bool {
	for _, f := range all {
		if f.Row == row {
			return true
		}
	}
	return false
}

// TestBareMachine: without Docker, Go, GPU and network there is an answer, at once, and
// nothing is written.
func TestBareMachine(t *testing.T) {
	home := alone(t)
	start := time.Now()
	h := Probe(t.Context())
	assert.Less(t, time.Since(start), usual+2*reprobe)
	all := Examine(h)
	assert.True(t, row(all, trouble.DockerStopped), "DOCKER_HOST names one")
	assert.True(t, row(all, trouble.NoGo))
	assert.True(t, row(all, trouble.MirrorsSilent))
	assert.Equal(t, filepath.Join(home, ".cache", "berth"), h.Cache.Path)
	assert.Empty(t, h.Cache.Err)
	assert.Equal(t, trouble.Fault, Worst(all))
	assert.Empty(t, files(t, home), "something was written")
	var b bytes.Buffer
	require.NoError(t, page(h).Text(&b, h, all))
	assert.Contains(t, b.String(), "systemctl start docker")
}

func files(t *testing.T, dir string) (all []string) {
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			all = append(all, path)
		}
		return err
	}))
	return all
}

// TestDockerHangs: a daemon that takes connections and never answers.
func TestDockerHangs(t *testing.T) {
	home := alone(t)
	l, err := net.Listen("unix", filepath.Join(home, "docker.sock"))
	require.NoError(t, err)
	defer l.Close()
	start := time.Now()
	h := Probe(t.Context())
	assert.Less(t, time.Since(start), 2*usual)
	assert.Same(t, trouble.DockerSilent, h.Docker.Row)
	assert.True(t, row(Examine(h), trouble.DockerSilent))
}

// TestHangingProbe: what hangs is left out, changes nothing later, and keeps nobody.
func TestHangingProbe(t *testing.T) {
	release, late := make(chan struct{}), make(chan struct{})
	var h Host
	start := time.Now()
	run(t.Context(), &h, []probe{
		{name: "the well", limit: 50 * time.Millisecond, look: func(context.Context) func(*Host) {
			<-release
			defer close(late)
			return func(h *Host) { h.Kernel = "late" }
		}},
		{name: "the quick", limit: time.Minute, look: func(context.Context) func(*Host) { return func(h *Host) { h.Shm = 1 } }},
	})
	assert.Less(t, time.Since(start), 5*time.Second)
	close(release)
	<-late
	assert.Equal(t, Host{Shm: 1, Silent: []string{"the well"}}, h)

	h = Host{}
	run(t.Context(), &h, []probe{{name: ofSMI, limit: time.Millisecond, look: func(context.Context) func(*Host) { select {} },
		late: func(h *Host) { h.GPU.Slow = true }}})
	assert.Equal(t, Host{GPU: GPU{Slow: true}}, h)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start, h = time.Now(), Host{}
	run(ctx, &h, []probe{{name: "for ever", limit: time.Hour, look: func(context.Context) func(*Host) { select {} }}})
	assert.Less(t, time.Since(start), 5*time.Second, "Ctrl-C")
	assert.Equal(t, Host{}, h)
}

// TestRealDocker: what Docker says, and nothing made in it.
func TestRealDocker(t *testing.T) {
	docker := dockertest.Connect(t)
	h := Probe(t.Context())
	assert.Equal(t, docker.Host(), h.Docker.Address)
	assert.Equal(t, docker.APIVersion(), h.Docker.API)
	info, err := docker.Info(t.Context())
	require.NoError(t, err)
	assert.Equal(t, info, h.Docker.Info)
	assert.Contains(t, []string{"systemd", "cgroupfs"}, h.Docker.Info.CgroupDriver)
	assert.NotEmpty(t, h.Engine.State.Name)
	assert.Empty(t, h.Silent)
	all := Examine(h)
	assert.False(t, row(all, trouble.DockerStopped))
	assert.Equal(t, "docker", all[2].Check)
	assert.Equal(t, trouble.OK, all[2].State)
}

// TestForeignEngine makes a container of the engine's name that is none.
func TestForeignEngine(t *testing.T) {
	docker := dockertest.Connect(t)
	name := dockertest.Name(t)
	id, err := docker.Create(t.Context(), daemon.Container{Name: name, Image: dockertest.Shell(t), Command: []string{"true"}})
	require.NoError(t, err)
	t.Cleanup(func() { docker.Remove(context.WithoutCancel(t.Context()), id) })
	t.Setenv("BERTH_ENGINE", name)
	t.Setenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "")
	h := Probe(t.Context())
	assert.True(t, row(Examine(h), trouble.ForeignEngine))
}

// TestProbesOfChecks: each probe that a check can't do without is one that there is.
func TestProbesOfChecks(t *testing.T) {
	known := []string{"", ofKernel, ofUser, ofGo, ofDocker, ofSMI, ofNVIDIA, ofDisplay, ofCache, ofMirrors, ofCDI, ofDisks, ofEngine}
	for _, c := range checks {
		assert.Contains(t, known, c.probe, c.name)
	}
	h := laptop()
	h.Silent = known[1:]
	for _, f := range Examine(h) {
		assert.Contains(t, []string{"docker", "kind of docker", "gpu"}, f.Check)
	}
}

// TestGPUsOfFakes: a machine whose nvidia-smi and toolkit are scripts.
func TestGPUsOfFakes(t *testing.T) {
	home := alone(t)
	t.Setenv("PATH", strings.SplitN(dockertest.SMI(t), ":", 2)[0]+":"+home+":/usr/bin:/bin")
	require.NoError(t, os.WriteFile(filepath.Join(home, "nvidia-ctk"),
		[]byte("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.17.8\n"), 0o755))
	h := Probe(t.Context())
	assert.Len(t, h.GPU.Machine.GPUs, 2)
	assert.Equal(t, "1.17.8", h.GPU.Toolkit)
	assert.False(t, h.GPU.Slow)
}

// TestGoOfAnotherToolchain: the go command answers for itself, and fetches nothing.
func TestGoOfAnotherToolchain(t *testing.T) {
	t.Setenv("GOTOOLCHAIN", "go1.24.99")
	t.Setenv("GOPROXY", "http://127.0.0.1:1")
	var h Host
	probeGo(t.Context())(&h)
	assert.Equal(t, "go1.24.99", h.Go.Toolchain)
	assert.NotEmpty(t, h.Go.Version)
	require.Len(t, h.Modules, 1)
	assert.Equal(t, "http://127.0.0.1:1", h.Modules[0].URL)
}

// TestSlowSMI: nvidia-smi that doesn't come back within the limit.
func TestSlowSMI(t *testing.T) {
	home := alone(t)
	t.Setenv("PATH", home+":/usr/bin:/bin")
	require.NoError(t, os.WriteFile(filepath.Join(home, "nvidia-smi"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var h Host
	probeGPU(ctx)(&h)
	assert.True(t, h.GPU.Slow)
	assert.True(t, row(Examine(h), trouble.SMISlow))
}

// TestServers: any answer will do; passwords are shown nowhere.
func TestServers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/broken/") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	secret := strings.Replace(server.URL, "http://", "http://me:secret@", 1)
	got := probeServers(t.Context(), []string{
		secret, server.URL + "/broken", "http://me:secret@127.0.0.1:1", "http://me:sec%ret@x", "file:///nowhere",
	}, "/dists/")
	for i, answers := range []bool{true, false, false, false, false} {
		assert.Equal(t, answers, got[i].Err == "", got[i])
		assert.NotContains(t, got[i].URL+got[i].Err, "secret")
		assert.NotContains(t, got[i].URL+got[i].Err, "sec%ret")
	}
	assert.Equal(t, []string{"https://a", "https://b"}, moduleProxies("https://a,https://b|direct,off"))
}

// TestWayOfFixtures: what the checks say of the way is what a launch would do.
func TestWayOfFixtures(t *testing.T) {
	for name, want := range map[string]gpu.Method{"workstation with RTX": gpu.CDI, "hook alone": gpu.Hook, "WSL2": gpu.Runtime} {
		method, err := fixtures()[name].way()
		require.NoError(t, err, name)
		assert.Equal(t, want, method, name)
	}
}
