package engine

import (
	"archive/tar"
	"bytes"
	"os"
	"testing"

	"dagger.io/dagger"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/progress"
	"github.com/berthdev/berth/docker/cache"
)

const root = "../.."

func options(t *testing.T) Options {
	dir, err := cache.Open()
	require.NoError(t, err)
	return Options{Root: root, Cache: dir, Report: progress.New(os.Stderr), LogOutput: os.Stderr}
}

var _ = tar.TypeReg
var _ = bytes.NewReader
var _ dagger.DirectoryDockerBuildOpts

func TestSlice(t *testing.T) {
	e, err := Connect(t.Context(), options(t))
	require.NoError(t, err)
	defer e.Close()
	out, err := e.Directory().WithNewFile("Dockerfile", "FROM scratch\nCOPY Dockerfile /x\n").DockerBuild().File("/x").Contents(t.Context())
	require.NoError(t, err)
	require.Contains(t, out, "FROM")
}
