package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/trouble"
)

// The tests below run real engines in the real Docker. The first of them may
// have to build the engine: minutes, once.

var testTime = time.Unix(1e9, 0)

// connectDocker returns the daemon, or skips the test where there is none.
func connectDocker(t *testing.T) *daemon.Client {
	t.Helper()
	docker := dockertest.Connect(t)
	for _, name := range []string{envRunnerHost, envSessionPort} {
		t.Setenv(name, "")
	}
	return docker
}

// options are those of the engine that these tests share.
func options(t *testing.T) Options {
	t.Helper()
	dir, err := cache.Open()
	require.NoError(t, err)
	return Options{Cache: dir, Report: progress.New(os.Stderr)}
}

// newName is the name of an engine that no other test has. What comes to exist
// under it is removed with the test.
func newName(t *testing.T, docker *daemon.Client) string {
	t.Helper()
	name := dockertest.Name(t)
	t.Cleanup(func() {
		assert.NoError(t, docker.Remove(context.Background(), name))
		assert.NoError(t, docker.RemoveVolume(context.Background(), volumeOf(name)))
	})
	return name
}

// testProvider makes sure that the engine's image and its command line exist,
// and returns a provider of an engine of the test's own.
func testProvider(t *testing.T) *provider {
	t.Helper()
	docker := connectDocker(t)
	o := options(t)
	o.Name = newName(t, docker)
	p, err := newProvider(docker, o)
	require.NoError(t, err)
	_, _, err = p.findImage(t.Context())
	require.NoError(t, err)
	_, err = p.cli(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { p.removeEngine(context.Background()) }) // what isn't on record goes with the name
	return p
}

// ownCache gives a provider an empty cache of the test's own, which has the command
// line, and nothing on record.
func ownCache(t *testing.T, p *provider) {
	t.Helper()
	cli, err := p.cli(t.Context())
	require.NoError(t, err)
	t.Setenv(envCLI, cli)
	p.Cache = dockertest.Cache(t)
}

// works builds something on the engine.
func works(t *testing.T, e *Engine) {
	t.Helper()
	text := rand.Text() + "\n"
	got, err := e.Directory().WithNewFile("Dockerfile", "FROM scratch\nCOPY text /\n").WithNewFile("text", text).
		DockerBuild().File("/text").Contents(t.Context())
	require.NoError(t, err)
	assert.Equal(t, text, got)
}

// programContext is the context of a build that runs a Go program as its only step.
func programContext(t *testing.T, source string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644))
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platformOS, "GOARCH="+platformArch)
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY program /\nRUN [\"/program\"]\n"), 0o644))
	return dir
}

func TestDockerBuildRunsPrograms(t *testing.T) {
	connectDocker(t)
	dir := programContext(t, `package main

import ("fmt"; "net"; "os")

func main() {
	links, err := net.Interfaces()
	os.WriteFile("/out", fmt.Append(nil, os.Getpid(), len(links), err), 0o644)
}
`)
	var log bytes.Buffer
	o := options(t)
	o.LogOutput = &log
	e, err := Connect(t.Context(), o)
	require.NoError(t, err)
	got, err := e.Host().Directory(dir).DockerBuild().File("/out").Contents(t.Context())
	require.NoError(t, err)
	assert.Regexp(t, `^\d+ 2 <nil>$`, got, "a process with a loopback and a network interface")
	require.NoError(t, e.Close())
	assert.Contains(t, log.String(), "/program")
}

func TestTwoEnginesInOneProcess(t *testing.T) {
	connectDocker(t)
	one := options(t)
	one.Ephemeral = true
	first, err := Connect(t.Context(), one)
	require.NoError(t, err)
	second, err := Connect(t.Context(), options(t))
	require.NoError(t, err)
	works(t, first)
	works(t, second)
	require.NoError(t, first.Close())
	works(t, second)
	require.NoError(t, second.Close())
}

func TestEphemeralEngineLeavesNothing(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	o := p.Options
	o.Ephemeral = true
	e, err := Connect(t.Context(), o)
	require.NoError(t, err)
	works(t, e)
	assert.Len(t, ephemeralContainers(t, p), 1)
	require.NoError(t, e.Close())
	assert.Empty(t, ephemeralContainers(t, p))
	volumes, err := p.docker.Volumes(t.Context(), daemon.LabelRole+"="+role)
	require.NoError(t, err)
	for _, v := range volumes {
		assert.NotContains(t, v, p.name)
	}
	left, err := os.ReadDir(p.Cache.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// ephemeralContainers lists those whose name begins with the provider's.
func ephemeralContainers(t *testing.T, p *provider) (names []string) {
	t.Helper()
	all, err := p.docker.Containers(t.Context(), daemon.LabelRole+"="+role)
	require.NoError(t, err)
	for _, c := range all {
		if strings.HasPrefix(c.Name, p.name+"-") {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestDeadEngineIsRestarted(t *testing.T) {
	p := testProvider(t)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	before, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	require.NoError(t, p.docker.Stop(t.Context(), before.ID, 0))
	_, err = e.Version(t.Context())
	require.Error(t, err, "the engine is gone")
	e.Close()

	e, err = p.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
	after, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	assert.Equal(t, before.ID, after.ID)
}

func TestWedgedEngineIsReplaced(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	before, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	stop, err := p.docker.Exec(t.Context(), p.name, "sh", "-c",
		`for p in /proc/[0-9]*; do case $(readlink $p/exe) in */dagger-engine) kill -STOP ${p#/proc/};; esac; done`)
	require.NoError(t, err)
	_, err = io.ReadAll(stop)
	require.NoError(t, err)
	stop.Close()

	// It is found out, and a person told, before it is this process's turn to repair it.
	unlock, err := p.lock(t.Context())
	require.NoError(t, err)
	defer unlock()
	var log bytes.Buffer
	p.runTimeout, p.startTimeout = 5*time.Second, 30*time.Second
	p.Report = progress.New(writerFunc(func(b []byte) {
		if bytes.Contains(b, []byte("Waiting for another build")) {
			assert.Contains(t, log.String(), "Connecting to the engine "+p.name)
			unlock()
		}
		log.Write(b)
	}))
	e, err = p.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
	after, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	assert.NotEqual(t, before.ID, after.ID)
	assert.Contains(t, log.String(), "is recreated after an error: connecting to the engine "+p.name+": it doesn't answer within 30s")
}

func TestSpoiltStateIsGivenUp(t *testing.T) {
	p := testProvider(t)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	spoil, err := p.docker.Exec(t.Context(), p.name, "sh", "-c", "rm -rf /var/lib/dagger/worker; echo spoilt > /var/lib/dagger/worker")
	require.NoError(t, err)
	_, err = io.ReadAll(spoil)
	require.NoError(t, err)
	spoil.Close()
	require.NoError(t, p.docker.Stop(t.Context(), p.name, 0))
	e.Close()

	var log bytes.Buffer
	p.Report = progress.New(&log)
	e, err = p.connect(t.Context())
	require.NoError(t, err, log.String())
	works(t, e)
	require.NoError(t, e.Close())
	assert.Contains(t, log.String(), "Its state goes too")
}

// stranger makes a container of the engine's name, and returns its ID.
func stranger(t *testing.T, p *provider, labels map[string]string) string {
	t.Helper()
	image, _, err := p.findImage(t.Context())
	require.NoError(t, err)
	id, err := p.docker.Create(t.Context(), daemon.Container{
		Name: p.name, Image: image, Labels: labels, Entrypoint: []string{"sh", "-c", "sleep 600"}, Init: true,
	})
	require.NoError(t, err)
	require.NoError(t, p.docker.Start(t.Context(), id))
	return id
}

func TestStrangersContainerIsLeftAlone(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	id := stranger(t, p, map[string]string{daemon.LabelRole: "test"})
	_, err := p.connect(t.Context())
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.Same(t, trouble.ForeignEngine, advice.Row(err))
	assert.ErrorContains(t, Stop(t.Context(), p.Options), "isn't an engine of Berth's")

	// What is ours goes all the same.
	g, err := newProvider(p.docker, Options{Name: p.name, GPU: true, Cache: p.Cache})
	require.NoError(t, err)
	ours, err := p.docker.Create(t.Context(),
		daemon.Container{Name: g.name, Image: dockertest.Shell(t), Labels: map[string]string{daemon.LabelRole: role}})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.docker.Remove(context.Background(), ours)) })
	require.NoError(t, g.record(t.Context(), owned.Persistent{Kind: owned.KindContainer, ID: ours}))
	program := p.Cache.Path("engine", "program")
	require.NoError(t, os.MkdirAll(program, 0o755))
	assert.ErrorContains(t, Prune(t.Context(), p.Options), "isn't an engine of Berth's")
	_, err = p.docker.Inspect(t.Context(), ours)
	assert.ErrorIs(t, err, daemon.ErrNotFound)
	assert.NoDirExists(t, program)

	c, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	assert.Equal(t, id, c.ID)
	assert.Equal(t, "running", c.State)
}

// A killed process's removal may still be under way in the daemon when the next
// process removes the same.
func TestForgetWaitsForAnotherRemoval(t *testing.T) {
	p := testProvider(t)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	var removals errgroup.Group
	for range 4 {
		removals.Go(func() error { return p.removeEngine(t.Context()) })
	}
	require.NoError(t, removals.Wait())
	s, err := Status(t.Context(), p.Options)
	require.NoError(t, err)
	assert.Equal(t, State{Name: p.name}, s)
}

func TestOutdatedEngineIsReplacedWhenNobodyUsesIt(t *testing.T) {
	p := testProvider(t)
	old := stranger(t, p, map[string]string{daemon.LabelRole: role, daemon.LabelInputs: "old"})
	require.NoError(t, p.record(t.Context(), owned.Persistent{Kind: owned.KindContainer, ID: old}))
	user, err := p.docker.Exec(t.Context(), old, "cat")
	require.NoError(t, err)
	var waited atomic.Bool
	p.Report = progress.New(writerFunc(func(b []byte) {
		if bytes.Contains(b, []byte("waiting for its end")) {
			waited.Store(true)
			user.CloseWrite()
		}
	}))
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
	assert.True(t, waited.Load(), "it was in use")
	user.Close()
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestStatusStopAndPrune(t *testing.T) {
	p := testProvider(t)
	o := p.Options
	s, err := Status(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, State{Name: p.name}, s)
	assert.Contains(t, advice.Text(Logs(t.Context(), o, io.Discard, "all", false), "go tool mage"), "\n\tgo tool mage engine:start")
	require.NoError(t, Stop(t.Context(), o), "there is nothing to stop")

	require.NoError(t, Start(t.Context(), o))
	e, err := Connect(t.Context(), o)
	require.NoError(t, err)
	s, err = Status(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, "running", s.Container)
	assert.True(t, s.Current)
	assert.Positive(t, s.Users)
	assert.Equal(t, volumeOf(p.name), s.Volume)
	assert.Positive(t, s.Size)
	assert.EqualValues(t, stateLimit, s.Limit)
	require.NoError(t, e.Close())
	var log bytes.Buffer
	require.NoError(t, Logs(t.Context(), o, &log, "all", false))
	assert.Contains(t, log.String(), "running server on /run/dagger/engine.sock")

	require.NoError(t, Stop(t.Context(), o))
	s, err = Status(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, "exited", s.Container)
	assert.Zero(t, s.Users)

	// The images and programs are everybody's: only what has the name is removed here.
	require.NoError(t, p.removeEngine(t.Context()))
	s, err = Status(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, State{Name: p.name}, s)
}

func TestEngineThatTheUserRuns(t *testing.T) {
	p := testProvider(t)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	defer e.Close()
	b, err := openBridge(p.docker, p.Cache, filepath.Join(p.socketFolder(), socketName), p.name)
	require.NoError(t, err)
	defer b.Close()
	t.Setenv(envRunnerHost, b.host())
	t.Setenv("DOCKER_HOST", "unix:///nonexistent") // it isn't asked
	theirs, err := Connect(t.Context(), options(t))
	require.NoError(t, err)
	works(t, theirs)
	require.NoError(t, theirs.Close())

	t.Setenv(envRunnerHost, "unix:///nonexistent")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = Connect(ctx, options(t))
	assert.ErrorContains(t, err, "connecting to the engine that "+envRunnerHost)
}

// A registry that takes connections and says nothing.
func TestSilentRegistryIsGivenUp(t *testing.T) {
	docker := connectDocker(t)
	if !strings.HasPrefix(docker.Host(), "unix://") {
		testenv.Skip(t, testenv.DockerSocket, "this Docker may not reach the machine's loopback: %s", docker.Host())
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	p, err := newProvider(docker, options(t))
	require.NoError(t, err)
	start := time.Now()
	err = p.pull(t.Context(), silent.Addr().String()+"/engine:v1")
	assert.ErrorContains(t, err, "its registry doesn't answer")
	assert.Less(t, time.Since(start), 2*firstReplyTimeout)
}

func TestNoDocker(t *testing.T) {
	for _, name := range []string{envRunnerHost, envSessionPort} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	_, err := Connect(t.Context(), options(t))
	assert.ErrorIs(t, err, daemon.ErrUnavailable)
	assert.Same(t, trouble.DockerStopped, advice.Row(err))
}

func TestNoPermission(t *testing.T) {
	docker := connectDocker(t)
	testenv.NeedsRoot(t, "become somebody else")
	socket, ok := strings.CutPrefix(docker.Host(), "unix://")
	info, err := os.Stat(socket)
	if !ok || err != nil || info.Mode()&0o002 != 0 {
		testenv.Skip(t, testenv.DockerSocket, "everybody may use this Docker: %s", docker.Host())
	}
	dir, err := os.MkdirTemp("", "berth-test-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o777))
	program := filepath.Join(dir, "program")
	data, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, data, 0o755))
	nobody := exec.Command(program)
	nobody.Dir = dir
	nobody.Env = append(os.Environ(), "BERTH_TEST_CONNECT="+dir, "BERTH_CACHE="+filepath.Join(dir, "cache"))
	nobody.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := nobody.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "can't use Docker: no permission on "+docker.Host())
}
