package engine

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"dagger.io/dagger/engineconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

func TestVersionIsTheSDKs(t *testing.T) {
	assert.Equal(t, "v"+engineconn.CLIVersion, Version)
	nested, err := fs.ReadFile(embedded, "source/go.mod.txt")
	require.NoError(t, err)
	assert.Contains(t, string(nested), "\n\tdagger.io/dagger "+Version)
	assert.Contains(t, string(nested), "\n\tgithub.com/dagger/dagger "+Version)
}

func TestDecide(t *testing.T) {
	container := func(state, inputs string, execs ...string) *daemon.Status {
		return &daemon.Status{State: state, Execs: execs, Labels: map[string]string{daemon.LabelRole: role, daemon.LabelInputs: inputs}}
	}
	for name, c := range map[string]struct {
		container *daemon.Status
		want      action
	}{
		"none":                 {nil, create},
		"running":              {container("running", "new"), use},
		"running, in use":      {container("running", "new", "x"), use},
		"stopped":              {container("exited", "new"), start},
		"killed before start":  {container("created", "new"), start},
		"paused":               {container("paused", "new", "x"), resume},
		"out of date, paused":  {container("paused", "old"), replace},
		"dead":                 {container("dead", "new"), replace},
		"out of date":          {container("running", "old"), replace},
		"out of date, in use":  {container("running", "old", "x"), wait},
		"out of date, stopped": {container("exited", "old"), replace},
		"somebody's own":       {&daemon.Status{State: "running"}, refuse},
		"another role of Berth": {&daemon.Status{State: "exited", Labels: map[string]string{daemon.LabelRole: "run", daemon.LabelInputs: "new"}},
			refuse},
	} {
		assert.Equal(t, c.want, decide(c.container, func(l map[string]string) bool { return l[daemon.LabelInputs] == "new" }), name)
	}
}

func TestChooseSource(t *testing.T) {
	for _, c := range []struct {
		way                   string
		hasOfficial, hasBuilt bool
		want                  source
	}{
		{"", true, true, present},
		{"", true, false, present},
		{"", false, true, built},
		{"", false, false, pull},
		{"image", true, true, present},
		{"image", false, true, pull},
		{"image", false, false, pull},
		{"source", true, true, built},
		{"source", true, false, fromScratch},
		{"source", false, false, fromScratch},
	} {
		assert.Equal(t, c.want, chooseSource(c.way, c.hasOfficial, c.hasBuilt), "%+v", c)
	}
}

func TestWanted(t *testing.T) {
	for way, want := range map[string][2]bool{"": {true, true}, "source": {true, false}, "image": {false, true}} {
		p := provider{builder: &builder{inputs: "ours"}, source: way}
		wanted := func(inputs string) bool { return p.wanted(map[string]string{daemon.LabelInputs: inputs}) }
		assert.Equal(t, want, [2]bool{wanted("ours"), wanted(p.officialInputs())}, way)
		assert.False(t, wanted(""), way)
		assert.False(t, p.wanted(map[string]string{daemon.LabelInputs: "ours", labelGPUs: "some"}), "an engine of the other kind")
	}
}

func TestContainers(t *testing.T) {
	s := spec{name: "berth-engine", image: "berth-engine:0123456789ab", inputs: "0123456789abcdef", limit: stateLimit}
	got := s.containers()
	golden, err := os.ReadFile("testdata/containers.json")
	require.NoError(t, err)
	var want []daemon.Container
	require.NoError(t, json.Unmarshal(golden, &want))
	assert.Equal(t, want, got)
}

// What Docker said in a virtual machine that keeps SYS_RESOURCE back.
func TestNotPrivileged(t *testing.T) {
	assert.True(t, notPrivileged(errors.New("failed to create shim task: OCI runtime create failed: runc create failed: "+
		"unable to start container process: unable to apply caps: operation not permitted: unknown")))
	assert.False(t, notPrivileged(errors.New("driver failed programming external connectivity: address already in use")))
}

func TestIsVersion(t *testing.T) {
	assert.True(t, isVersion([]byte("dagger "+Version+" (docker-image://registry/engine) linux/amd64\n")))
	assert.False(t, isVersion([]byte("dagger v0.19.1 (docker-image://registry/engine) linux/amd64\n")))
	assert.False(t, isVersion([]byte("dagger\n")))
	assert.False(t, isVersion(nil))
}

func TestHashModuleIsThatOfTheSources(t *testing.T) {
	sources := fstest.MapFS{"source/go.mod.txt": {Data: []byte("module x")}, "source/sub/a.go": {Data: []byte("package a")}}
	hash := func() string {
		h, err := hashModule(sources)
		require.NoError(t, err)
		return h
	}
	before := hash()
	sources["packages.lock"] = &fstest.MapFile{}
	assert.Equal(t, before, hash())
	sources["source/sub/a.go"].Data = []byte("package b")
	assert.NotEqual(t, before, hash())
	sources["source/sub/a.go"].Data = []byte("package a")
	sources["source/go.sum.txt"] = &fstest.MapFile{}
	assert.NotEqual(t, before, hash())

	dir := t.TempDir()
	require.NoError(t, writeModule(sources, dir))
	for _, name := range []string{"go.mod", "go.sum", "sub/a.go"} {
		assert.FileExists(t, filepath.Join(dir, name))
	}
}

func TestLayerDependsOnItsFilesAlone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"engine", "init", "dialstdio", "dnsname"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("the program "+name), 0o600))
	}
	pack := func() []byte {
		var out bytes.Buffer
		require.NoError(t, writeLayer(&out, engineFiles(dir)))
		return out.Bytes()
	}
	layer := pack()
	require.NoError(t, os.Chtimes(filepath.Join(dir, "engine"), testTime, testTime))
	assert.Equal(t, layer, pack())

	found := map[string]string{}
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(tr)
		require.NoError(t, err)
		found[h.Name] = h.Linkname + string(data)
		if h.Typeflag == tar.TypeReg && strings.Contains(h.Name, "bin/") {
			assert.EqualValues(t, 0o755, h.Mode, h.Name)
		}
	}
	assert.Equal(t, "the program engine", found["usr/local/bin/dagger-engine"])
	assert.Equal(t, "the program dialstdio", found["usr/local/bin/buildctl"])
	assert.Equal(t, "/usr/sbin/runc", found["usr/local/bin/runc"])
}

func TestMissingProgramIsAnError(t *testing.T) {
	assert.ErrorContains(t, writeLayer(io.Discard, engineFiles(t.TempDir())), "packing ")
}

// archive writes a tar archive with files by name.
func archive(t testing.TB, files map[string]string) string {
	path := filepath.Join(t.TempDir(), "root.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	tw := tar.NewWriter(f)
	for name, content := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}))
		_, err = io.WriteString(tw, content)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, f.Close())
	return path
}

func TestCertificates(t *testing.T) {
	bundle, err := certificates(archive(t, map[string]string{
		"usr/share/ca-certificates/mozilla/A.crt": "one\n", "usr/share/doc/x.crt": "no\n",
	}))
	require.NoError(t, err)
	assert.Equal(t, "one\n", string(bundle))
	_, err = certificates(archive(t, map[string]string{"etc/motd": "hello"}))
	assert.ErrorContains(t, err, "packages.toml must name ca-certificates")
}

func TestPinsAreWhatIsAskedFor(t *testing.T) {
	assert.NoError(t, Packages.Check("../.."))
}

func TestNoGoCommand(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c, err := newCompiler(embedded, t.TempDir(), nil)
	require.NoError(t, err)
	err = c.build(t.Context(), platformOS, platformArch, t.TempDir(), "dialstdio")
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.Same(t, trouble.NoGo, advice.Row(err))
}

func TestCompilerShowsWhatGoSays(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\ngo 1.26\n"), 0o644))
	err := compiler{module: dir, temp: t.TempDir()}.build(t.Context(), platformOS, platformArch, t.TempDir(), "engine")
	require.Error(t, err)
	assert.ErrorContains(t, err, "github.com/dagger/dagger/cmd/engine")
}

func TestUnknownSource(t *testing.T) {
	t.Setenv(envSource, "magic")
	_, err := newProvider(nil, Options{})
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "image (the official one), source")
}
