package engine

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
)

func TestSilenceIsReportedOnce(t *testing.T) {
	start := time.Unix(1e9, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	asked := 0
	state := func() string { asked++; return "paused" }
	s := watchdog{name: "berth-engine", last: start}
	assert.Empty(t, s.note(at(5), true, state))
	assert.Empty(t, s.note(at(11), false, state), "6 s")
	assert.Zero(t, asked)
	assert.Equal(t, "The engine berth-engine hasn't answered for 8 s (its container is paused). "+
		"docker unpause berth-engine lets it go on. Ctrl-C ends this build", s.note(at(13), false, state))
	assert.Empty(t, s.note(at(60), false, state))
	assert.Equal(t, "The engine berth-engine answers again", s.note(at(61), true, state))
	assert.Empty(t, s.note(at(67), false, state))
	assert.Contains(t, s.note(at(69), false, func() string { return "running" }), "docker restart berth-engine ends all builds on it")
}

// A record is what was reported. It may be written and read at once.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// do has Docker do something to a container that Berth never asks for.
func do(t *testing.T, docker *daemon.Client, container, action string) {
	t.Helper()
	socket, ok := strings.CutPrefix(docker.Host(), "unix://")
	if !ok {
		testenv.Skip(t, testenv.DockerSocket, "Docker is at %s", docker.Host())
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}}
	r, err := client.Post("http://docker/containers/"+container+"/"+action, "", nil)
	require.NoError(t, err)
	defer r.Body.Close()
	require.Equal(t, http.StatusNoContent, r.StatusCode, action)
}

// A stuckBuild is a build whose only step prints nothing and never ends.
type stuckBuild struct {
	*provider
	engine   *Engine
	reported *record
	cancel   context.CancelFunc
	failed   chan error // the build's error, when it ends
}

// startStuckBuild returns when the step runs. The engine and the cache folder
// are the test's own.
func startStuckBuild(t *testing.T) *stuckBuild {
	t.Helper()
	p := testProvider(t)
	ownCache(t, p)
	s := &stuckBuild{provider: p, reported: &record{}, failed: make(chan error, 1)}
	p.Report = progress.New(s.reported)
	log := &record{}
	p.LogOutput = log
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s.cancel = cancel
	var err error
	s.engine, err = p.connect(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { s.engine.Close() })
	dir := programContext(t, "package main\n\nimport \"time\"\n\nfunc main() {\n\tprintln(\"stuck\")\n\ttime.Sleep(time.Hour)\n}\n")
	go func() {
		_, err := s.engine.Host().Directory(dir).DockerBuild().Sync(ctx)
		s.failed <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "stuck") }, time.Minute, 50*time.Millisecond,
		"the step doesn't start")
	return s
}

// A person hears of an engine that says nothing within 10 s, but not of a step that
// does, and Ctrl-C ends the build at once, with nothing left.
func TestPausedEngine(t *testing.T) {
	b := startStuckBuild(t)
	quiet := b.reported.String()
	assert.Never(t, func() bool { return b.reported.String() != quiet }, maxSilence+2*time.Second, 100*time.Millisecond,
		"a quiet step isn't a silent engine")

	do(t, b.docker, b.name, "pause")
	assert.Eventually(t, func() bool {
		return strings.Contains(b.reported.String(), "The engine "+b.name+" hasn't answered for")
	}, 30*time.Second, 50*time.Millisecond)
	assert.Contains(t, b.reported.String(), "(its container is paused). docker unpause "+b.name)
	do(t, b.docker, b.name, "unpause")
	assert.Eventually(t, func() bool {
		return strings.Contains(b.reported.String(), "The engine "+b.name+" answers again")
	}, 30*time.Second, 50*time.Millisecond)

	do(t, b.docker, b.name, "pause")
	start := time.Now()
	b.cancel()
	assert.ErrorIs(t, <-b.failed, context.Canceled)
	require.NoError(t, b.engine.Close())
	assert.Less(t, time.Since(start), 20*time.Second)
	left, err := os.ReadDir(b.Cache.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Empty(t, using(t, string(b.Cache)), "processes go on")
	do(t, b.docker, b.name, "unpause")
}

func TestKilledEngine(t *testing.T) {
	b := startStuckBuild(t)
	do(t, b.docker, b.name, "kill")
	start := time.Now()
	require.Error(t, <-b.failed)
	err := b.engine.Stopped()
	assert.ErrorContains(t, err, "the engine "+b.name+" stopped (exit code 137) during the build. Build again")
	require.NoError(t, b.engine.Close())
	assert.Less(t, time.Since(start), 20*time.Second)
	left, err := os.ReadDir(b.Cache.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)

	e, err := b.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
}

func TestRestartedEngine(t *testing.T) {
	p := testProvider(t)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	defer e.Close()
	assert.NoError(t, e.Stopped())
	do(t, p.docker, p.name, "restart?t=0")
	assert.ErrorContains(t, e.Stopped(), "was restarted during the build. Build again")
}
