package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"dagger.io/dagger"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The engine collects its garbage by itself some time after a build: what the test
// asks for is that it does so now, by the rules it has.
func TestStateHasALimit(t *testing.T) {
	p := testProvider(t)
	p.limit = 150e6
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	limit, err := e.Engine().LocalCache().MaxUsedSpace(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, p.limit, limit)

	dir := programContext(t, `package main

import ("crypto/rand"; "io"; "os")

func main() {
	f, _ := os.Create("/out")
	io.CopyN(f, rand.Reader, 50e6)
}
`)
	dockerfile := []byte("FROM scratch\nCOPY program round /\nRUN [\"/program\"]\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), dockerfile, 0o644))
	for round := range 5 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "round"), fmt.Append(nil, round), 0o644))
		_, err := e.Host().Directory(dir).DockerBuild().Sync(t.Context())
		require.NoError(t, err)
	}
	before, err := p.size(t.Context())
	require.NoError(t, err)
	assert.Greater(t, before, int64(250e6))
	require.NoError(t, e.Close()) // what a session made is in use until its end
	e, err = p.connect(t.Context())
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Engine().LocalCache().Prune(t.Context(), dagger.EngineCachePruneOpts{UseDefaultPolicy: true}))
	after, err := p.size(t.Context())
	require.NoError(t, err)
	assert.Less(t, after, int64(200e6), "the limit, and databases")
}
