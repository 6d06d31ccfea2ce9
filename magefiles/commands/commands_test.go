package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/magefile/mage/mg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/magefiles/targets"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// in makes a project of files, and goes there.
func in(t *testing.T, p ci.Project, files map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "Ein Projekt")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "magefiles"), 0o755))
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	t.Chdir(dir)
	targets.Use(Of(p))
}

// printed returns what a target wrote to standard output.
func printed(t *testing.T, do func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	before := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = before }()
	text := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		text <- string(data)
	}()
	err = do()
	w.Close()
	return <-text, err
}

func TestPinCheck(t *testing.T) {
	yes := true
	files := map[string]string{}
	for _, name := range []string{"packages.toml", "packages.lock"} {
		data, err := os.ReadFile(filepath.Join("../../docker", name))
		require.NoError(t, err)
		files["docker/"+name] = string(data)
	}
	in(t, ci.Project{}, files)
	_, err := printed(t, func() error { return targets.Pin(t.Context(), &yes, nil, nil, nil) })
	require.NoError(t, err)

	files["docker/packages.toml"] += "\n[[package]]\nname = \"hello\"\nwhy = \"to say so\"\n"
	in(t, ci.Project{}, files)
	_, err = printed(t, func() error { return targets.Pin(t.Context(), &yes, nil, nil, nil) })
	assert.Equal(t, ci.ExitPinsDiffer, mg.ExitStatus(err))
	assert.ErrorContains(t, err, "Type\n\t"+os.Args[0]+" pin", "advice is for what was typed")

	t.Chdir(t.TempDir())
	_, err = printed(t, func() error { return targets.Pin(t.Context(), &yes, nil, nil, nil) })
	assert.Equal(t, ci.ExitUsage, mg.ExitStatus(err))
}

// TestPinDry asks a real mirror, and writes nothing.
func TestPinDry(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the index of a real mirror")
	}
	dockertest.Connect(t)
	if len(debian.HostMirrors()["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	in(t, ci.Project{Inputs: []input.Input{debian.Input{}}}, map[string]string{"docker/packages.toml": `architecture = "amd64"
[[suite]]
archive = "debian"
name = "bookworm"
components = ["main"]
[[package]]
name = "curl"
why = "to fetch things"
`})
	yes := true
	text, err := printed(t, func() error { return targets.Pin(t.Context(), nil, &yes, nil, nil) })
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^bash \d\S+$`, text)
	assert.Regexp(t, `(?m)^curl \d\S+$`, text)
	data, err := printed(t, func() error { return targets.Pin(t.Context(), nil, &yes, nil, &yes) })
	require.NoError(t, err)
	var items []ci.Resolved
	require.NoError(t, json.Unmarshal([]byte(data), &items))
	var lines strings.Builder
	for _, i := range items {
		assert.Equal(t, "rootfs.tar", i.Input)
		fmt.Fprintln(&lines, i.Name, i.Version)
	}
	assert.Equal(t, text, lines.String())
	assert.NoFileExists(t, "docker/packages.lock")

	text, err = printed(t, func() error { return targets.Why(t.Context(), "libcurl4") })
	require.NoError(t, err)
	assert.Regexp(t, `^libcurl4 \S+\n\t<- curl \(Depends\)\n\t<- docker/packages.toml:7: to fetch things\n$`, text)
	_, err = printed(t, func() error { return targets.Why(t.Context(), "libcurl5") })
	assert.ErrorContains(t, err, `nothing that is wanted brings a package "libcurl5"`)

	for _, typed := range []func() error{
		func() error { return targets.Pin(t.Context(), &yes, &yes, nil, nil) },
		func() error { return targets.Pin(t.Context(), nil, nil, nil, &yes) },
		func() error { return targets.Pin(t.Context(), &yes, nil, &yes, nil) },
		func() error { return targets.Pin(t.Context(), nil, &yes, &yes, nil) },
	} {
		_, err = printed(t, typed)
		assert.Equal(t, ci.ExitUsage, mg.ExitStatus(err))
	}
}

func TestWrongProjects(t *testing.T) {
	yes := true
	for says, p := range map[string]ci.Project{
		"no such stage":              {BaseDigest: "docker/base.digest"},
		"two inputs":                 {Inputs: []input.Input{debian.Input{}, debian.Input{}}},
		"isn't a path within":        {Home: "../home"},
		"no input that it is made":   {BaseStage: "base", Inputs: []input.Input{}},
		"/elsewhere isn't a path wi": {Dockerfile: "/elsewhere"},
	} {
		in(t, p, nil)
		_, err := printed(t, func() error { return targets.Pin(t.Context(), &yes, nil, nil, nil) })
		assert.ErrorContains(t, err, says)
		assert.Equal(t, ci.ExitUsage, mg.ExitStatus(err))
	}
}

// TestBuildHere builds an image without packages, from the default paths.
func TestBuildHere(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts an engine")
	}
	docker := dockertest.Connect(t)
	in(t, ci.Project{Name: dockertest.Process + "-here", Inputs: []input.Input{}}, map[string]string{
		"docker/Dockerfile": "FROM scratch\nCOPY a /\n", "docker/Dockerfile.dockerignore": "*\n!a\n", ".dockerignore": "a\n", "a": "a",
	})
	t.Cleanup(func() { docker.RemoveImage(context.Background(), dockertest.Process+"-here:latest") })
	out, err := printed(t, func() error { return targets.Build(t.Context(), nil, nil, nil, nil, nil) })
	require.NoError(t, err)
	assert.Regexp(t, `^`+dockertest.Process+`-here:latest sha256:[0-9a-f]{64} \(built in \d+\.\d s\)\n$`, out)
	out, err = printed(t, func() error { return targets.Build(t.Context(), nil, nil, nil, nil, nil) })
	require.NoError(t, err)
	assert.Contains(t, out, "(up to date)")
}

func TestTyped(t *testing.T) {
	before := os.Args[0]
	defer func() { os.Args[0] = before }()
	t.Setenv("MAGEFILE_CACHE", "/home/me/.magefile")
	for program, want := range map[string]string{"./berth": "./berth", "/usr/bin/berth": "/usr/bin/berth",
		"/home/me/.magefile/0123abcd": "go tool mage"} {
		os.Args[0] = program
		assert.Equal(t, want, typedCommand())
	}
	assert.False(t, errors.Is(Set{}.Do(t.Context(), nil), nil), "a panic is an error")
}
