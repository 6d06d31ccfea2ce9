package launch

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
)

// hostOf is this machine as a person sees it, without a terminal.
func hostOf(t *testing.T, p *person) Host {
	t.Setenv("BERTH_CACHE", t.TempDir())
	d := dockertest.Connect(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	h, err := Probe(context.Background(), d, p.options, Streams{In: null, Out: null, Err: null})
	require.NoError(t, err)
	return h
}
