// Package dockertest gives tests a Docker Engine, names and a cache that nobody
// else has, and images to launch containers of. A person's builds at the same
// time disturb nothing, and aren't disturbed.
package dockertest

import (
	"crypto/rand"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/testenv"
)

// Connect returns the Docker Engine, or skips the test where there is none. The
// connection is closed with the test.
func Connect(t testing.TB) *daemon.Client {
	t.Helper()
	docker, err := daemon.Connect(t.Context())
	if err != nil {
		testenv.Skip(t, testenv.Docker, "%v", err)
	}
	t.Cleanup(func() { docker.Close() })
	return docker
}

// prefix begins the name of everything that tests make in Docker.
const prefix = "berth-test-"

// Name returns a name that nothing in Docker has, and logs it: of a container, an
// engine, or the repository of an image.
func Name(t testing.TB) string {
	t.Helper()
	name := Process + "-" + random()
	t.Log(name)
	return name
}

func random() string {
	b := make([]byte, 4)
	rand.Read(b)
	return hex.EncodeToString(b)
}

const envCache = "BERTH_CACHE"

// Cache returns an empty cache of the test's own, which is also that of the
// processes it starts.
func Cache(t testing.TB) cache.Dir {
	t.Helper()
	t.Setenv(envCache, t.TempDir())
	dir, err := cache.Open()
	require.NoError(t, err)
	return dir
}
