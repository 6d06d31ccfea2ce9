package engine

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
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

func TestRun(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/main.go", []byte("package main\nimport (\"fmt\";\"net\")\nfunc main() { i, err := net.Interfaces(); fmt.Println(i, err); a, err := net.LookupHost(\"deb.debian.org\"); fmt.Println(a, err); c, err := net.Dial(\"tcp\", \"deb.debian.org:80\"); fmt.Println(c, err) }"), 0o644))
	cmd := exec.Command("go", "build", "-o", dir+"/prog", dir+"/main.go")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	e, err := Connect(t.Context(), options(t))
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM scratch\nCOPY prog /prog\nRUN [\"/prog\"]\n"), 0o644))
	_, err = e.Host().Directory(dir).DockerBuild().Sync(t.Context())
	require.NoError(t, err)
}
