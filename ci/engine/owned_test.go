package engine

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// An engine that another cache folder has on record is used, but neither stopped
// nor removed, whatever its state.
func TestEngineOfAnotherPerson(t *testing.T) {
	theirs := testProvider(t)
	e, err := theirs.connect(t.Context())
	require.NoError(t, err)
	defer e.Close()
	before, err := theirs.docker.Inspect(t.Context(), theirs.name)
	require.NoError(t, err)

	mine, err := newProvider(theirs.docker, theirs.Options)
	require.NoError(t, err)
	ownCache(t, mine)
	shared, err := mine.connect(t.Context())
	require.NoError(t, err)
	works(t, shared)
	require.NoError(t, shared.Close())

	for what, do := range map[string]func() error{
		"stop":  func() error { return Stop(t.Context(), mine.Options) },
		"prune": func() error { return Prune(t.Context(), mine.Options) },
		"replace": func() error {
			mine.inputs = "other sources"
			defer func() { mine.inputs = theirs.inputs }()
			_, err := mine.run(t.Context())
			return err
		},
	} {
		err := do()
		assert.ErrorIs(t, err, ErrUnavailable, what)
		assert.ErrorContains(t, err, fmt.Sprintf("export BERTH_ENGINE=berth-engine-%d", os.Getuid()), what)
	}
	after, err := theirs.docker.Inspect(t.Context(), theirs.name)
	require.NoError(t, err)
	assert.Equal(t, [2]string{before.ID, before.Started}, [2]string{after.ID, after.Started})
	works(t, e)

	// Nor is their state, when nothing of theirs runs.
	require.NoError(t, e.Close())
	require.NoError(t, theirs.docker.Remove(t.Context(), theirs.name))
	assert.NoError(t, mine.removeEngine(t.Context()))
	assert.ErrorContains(t, mine.removeVolume(t.Context(), volumeOf(mine.name)), "isn't on record")
	_, err = theirs.docker.Volume(t.Context(), volumeOf(theirs.name))
	assert.NoError(t, err)
}

// What verify leaves when it is killed, any later command that sweeps removes.
func TestKilledEphemeralEngine(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	child := startChild(t, embeddedSources, "BERTH_TEST_EPHEMERAL=1", envName+"="+p.name)
	child.connected(t)
	require.Len(t, ephemeralContainers(t, p), 1)
	require.NoError(t, child.Process.Kill())
	child.Wait()
	require.Len(t, ephemeralContainers(t, p), 1)

	_, err := cache.Open() // as every command does
	require.NoError(t, err)
	swept, err := owned.Sweep(t.Context(), p.Cache, p.docker, true)
	require.NoError(t, err)
	assert.Len(t, swept.Removed, 2, "the container and its volume")
	assert.Empty(t, swept.Left)
	assert.Empty(t, ephemeralContainers(t, p))
	left, err := os.ReadDir(p.Cache.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// otherDaemon is the address of a daemon that has nothing.
func otherDaemon(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/_ping":
			w.Header().Set("API-Version", "1.41")
		case strings.HasSuffix(r.URL.Path, "/info"):
			io.WriteString(w, `{"ID": "another", "DockerRootDir": "/elsewhere"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message": "no such thing"}`)
		}
	}))
	t.Cleanup(server.Close)
	return "tcp://" + server.Listener.Addr().String()
}

// Prune with another DOCKER_HOST leaves the engine here, and its record: the next
// prune with this one removes it.
func TestPruneOnAnotherDaemon(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	t.Run("elsewhere", func(t *testing.T) {
		t.Setenv("DOCKER_HOST", otherDaemon(t))
		require.NoError(t, Prune(t.Context(), p.Options))
	})
	s, err := Status(t.Context(), p.Options)
	require.NoError(t, err)
	assert.Equal(t, "running", s.Container)
	assert.FileExists(t, p.socketFolder()+"/"+socketName)
	require.NoError(t, Prune(t.Context(), p.Options))
	s, err = Status(t.Context(), p.Options)
	require.NoError(t, err)
	assert.Equal(t, State{Name: p.name}, s)
}

// Prune of an engine leaves one of another name as it is, down to its socket, and
// an engine whose socket's folder is gone is reached all the same.
func TestHealthyEngineWithoutItsSocket(t *testing.T) {
	p := testProvider(t)
	ownCache(t, p)
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Close())
	before, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)

	other := p.Options
	other.Name = p.name + "-other"
	require.NoError(t, Prune(t.Context(), other))
	assert.FileExists(t, p.socketFolder()+"/"+socketName)

	require.NoError(t, os.RemoveAll(p.Cache.Path("engine")))
	start := time.Now()
	require.NoError(t, Start(t.Context(), p.Options))
	assert.Less(t, time.Since(start), 15*time.Second)
	e, err = p.connect(t.Context())
	require.NoError(t, err)
	works(t, e)
	require.NoError(t, e.Close())
	after, err := p.docker.Inspect(t.Context(), p.name)
	require.NoError(t, err)
	assert.Equal(t, [2]string{before.ID, before.Started}, [2]string{after.ID, after.Started})
}
