package ci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	layerfile "github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// privateRegistry serves images on this machine's loopback, to those alone who log in: the
// engine, which has another network and no credentials, can't take anything from it.
func privateRegistry(t *testing.T) (host string, closed func()) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host = strings.TrimPrefix(server.URL, "http://")
	dir := t.TempDir()
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:secret")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	t.Setenv("DOCKER_CONFIG", dir)
	return host, server.Close
}

// A file of a base image.
type baseFile struct {
	name string
	data []byte
}

// baseLayer is a layer as no canonical form has it: its files have times and owners' names,
// and aren't sorted.
func baseLayerOf(t *testing.T, files ...baseFile) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{
			Name: f.name, Mode: 0o755, Size: int64(len(f.data)), Uname: "somebody", ModTime: time.Unix(1234567890, 0), Format: tar.FormatGNU,
		}))
		_, err := w.Write(f.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

// tool is a program that can run in an image with nothing else in it, and writes /made there.
func tool(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	source := "package main\nimport \"os\"\nfunc main() { data, err := os.ReadFile(\"/base\"); if err == nil { err = os.WriteFile(\"/made\", data, 0o644) }\n" +
		"if err != nil { panic(err) } }\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644))
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "tool"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(filepath.Join(dir, "tool"))
	require.NoError(t, err)
	return data
}

// pushBase pushes an image of two platforms under a tag, and returns the digest of its index
// and the one of them that is built on. Its layers are of a type of Docker's or of OCI's.
func pushBase(t *testing.T, reference string, layerType types.MediaType, files ...[]byte) (string, v1.Image) {
	t.Helper()
	img, index := v1.Image(empty.Image), types.DockerManifestList
	if layerType != types.DockerLayer {
		index = types.OCIImageIndex
		img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	for _, data := range files {
		o := []layerfile.LayerOption{layerfile.WithCompressionLevel(gzip.BestCompression), layerfile.WithMediaType(layerType)}
		if layerType == types.OCILayerZStd {
			o = append(o, layerfile.WithCompression(compression.ZStd))
		}
		l, err := layerfile.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, o...)
		require.NoError(t, err)
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: layerType, History: v1.History{CreatedBy: "elsewhere"}})
		require.NoError(t, err)
	}
	config, err := img.ConfigFile()
	require.NoError(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	config.Config.Env = []string{"FROM_BASE=yes"}
	img, err = mutate.ConfigFile(img, config)
	require.NoError(t, err)
	config.Architecture = "arm64"
	other, err := mutate.ConfigFile(img, config)
	require.NoError(t, err)
	all := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, index),
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, all, remote.WithAuthFromKeychain(authn.DefaultKeychain)))
	digest, err := all.Digest()
	require.NoError(t, err)
	return digest.String(), img
}

// compressed are the layers of an image as they are stored, by their digests.
func compressed(t *testing.T, img v1.Image) (digests []string, all map[string][]byte) {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	all = map[string][]byte{}
	for _, l := range layers {
		digest, err := l.Digest()
		require.NoError(t, err)
		r, err := l.Compressed()
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		digests, all[digest.String()] = append(digests, digest.String()), data
	}
	return digests, all
}

// TestUnitTestsOnABaseImage runs a command in a stage that is made from an image which the
// engine can't pull, as a user who isn't root.
func TestUnitTestsOnABaseImage(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an image")
	}
	dockertest.Connect(t)
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	host, _ := privateRegistry(t)
	saved := filepath.Join(t.TempDir(), "shell.tar")
	out, err := exec.Command("docker", "save", "-o", saved, dockertest.Shell(t)).CombinedOutput()
	require.NoError(t, err, string(out))
	img, err := layerfile.ImageFromPath(saved, nil)
	require.NoError(t, err)
	ref, err := name.ParseReference(host + "/team/shell:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img, remote.WithAuthFromKeychain(authn.DefaultKeychain)))
	digest, err := img.Digest()
	require.NoError(t, err)

	p := small(t, host)
	p.TestStage = "test"
	p.Test = []string{`id -u; find * -type f | sort; echo '<testsuite><testcase name="mine"/></testsuite>' >$BERTH_JUNIT`}
	text := fmt.Sprintf("FROM %s@%s AS test\nUSER 1234\nWORKDIR /src\nCOPY . .\nFROM scratch\nCOPY a b /\n", ref, digest)
	require.NoError(t, os.WriteFile(p.Path(p.Dockerfile), []byte(text), 0o644))
	report, err := Pipeline(t.Context(), p, PipelineOptions{Only: "unit", InImage: true})
	require.NoError(t, err)
	log, err := os.ReadFile(report.Stages[0].Log)
	require.NoError(t, err)
	assert.Equal(t, "1234 a b docker/Dockerfile", strings.Join(strings.Fields(string(log)), " "))
	assert.Equal(t, []stage.Check{{Name: "mine"}}, report.Stages[0].Checks)
}

func TestHasTag(t *testing.T) {
	for reference, want := range map[string]bool{
		"ubuntu:24.04": true, "nvidia/cuda:12.4.1-base-ubuntu22.04": true, "docker.io/ubuntu:24.04": true, "localhost:5000/team/base:1": true,
		"ubuntu": false, "team/base": false, "localhost:5000/team/base": false, "Bad Name": true,
	} {
		assert.Equal(t, want, hasTag(reference), reference)
	}
}

// TestBaseImage builds on an image of a registry that the engine can't reach.
func TestBaseImage(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts engines")
	}
	docker := dockertest.Connect(t)
	host, closeRegistry := privateRegistry(t)
	p := small(t, host)
	p.Registry = ""
	t.Cleanup(func() {
		if err := docker.RemoveImage(context.Background(), p.Tag()); err != nil {
			assert.ErrorIs(t, err, daemon.ErrNotFound)
		}
	})
	base, tools := host+"/team/base:1", host+"/team/tools:1"
	program := tool(t)
	digest, img := pushBase(t, base, types.DockerLayer,
		baseLayerOf(t, baseFile{"tool", program}, baseFile{"base", []byte("from the base")}), baseLayerOf(t, baseFile{"b", []byte("replaced")}, baseFile{"a", nil}))
	toolsDigest, _ := pushBase(t, tools, types.OCILayer, baseLayerOf(t, baseFile{"other", []byte("other")}))
	write := func(text string) { require.NoError(t, os.WriteFile(p.Path(p.Dockerfile), []byte(text), 0o644)) }
	rest := "\nRUN [\"/tool\"]\nCOPY --from=start /base /again\nCOPY --from=" + tools + "@" + toolsDigest + " /other /\nCOPY a b /\nCOPY . /all/\n"

	t.Run("no digest", func(t *testing.T) {
		write("FROM " + base + " AS start" + rest)
		_, err := Build(t.Context(), p, BuildOptions{})
		require.ErrorIs(t, err, ErrUnpinned)
		assert.Contains(t, err.Error(), "docker/Dockerfile:1: FROM "+base+" has no digest")
		assert.Contains(t, advice.Text(err, "berth"), "Write\n\t"+base+"@"+digest+"\nor have it written by\n\tberth lint -fix")

		fixed, err := Lint(t.Context(), p, LintOptions{Fix: true})
		require.NoError(t, err)
		assert.Len(t, fixed.Fixed, 1)
		text, err := os.ReadFile(p.Path(p.Dockerfile))
		require.NoError(t, err)
		assert.Equal(t, "FROM "+base+"@"+digest+" AS start"+rest, string(text))
	})

	// The same image by its name in ARG, and by itself.
	text := "ARG BASE=" + base + "@" + digest + "\nFROM $BASE AS start\nFROM " + base + "@" + digest + rest
	write(text)
	file := filepath.Join(t.TempDir(), "image.tar")
	built, err := Build(t.Context(), p, BuildOptions{Output: file})
	require.NoError(t, err)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	blobs := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		blobs[strings.ReplaceAll(strings.TrimPrefix(h.Name, "blobs/"), "/", ":")], err = io.ReadAll(r)
		require.NoError(t, err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(blobs[built.Digest]))
	require.NoError(t, err)
	digests, layers := compressed(t, img)
	require.Len(t, manifest.Layers, len(digests)+5)
	for i, d := range digests {
		assert.Equal(t, d, manifest.Layers[i].Digest.String(), "the base's layer as the registry has it")
		assert.Equal(t, layers[d], blobs[d])
		assert.Equal(t, types.OCILayer, manifest.Layers[i].MediaType)
	}
	// The engine builds another Dockerfile, which no step sees.
	z, err := gzip.NewReader(bytes.NewReader(blobs[manifest.Layers[len(manifest.Layers)-1].Digest.String()]))
	require.NoError(t, err)
	copied := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		copied[h.Name] = string(data)
	}
	assert.Equal(t, text, copied["all/docker/Dockerfile"])
	assert.Equal(t, []string{"all/", "all/a", "all/b", "all/docker/", "all/docker/Dockerfile"}, slices.Sorted(maps.Keys(copied)))

	config, err := v1.ParseConfigFile(bytes.NewReader(blobs[manifest.Config.Digest.String()]))
	require.NoError(t, err)
	assert.Contains(t, config.Config.Env, "FROM_BASE=yes")
	made, err := docker.Image(t.Context(), p.Tag())
	require.NoError(t, err)
	assert.Equal(t, built.Layers, made.Layers)
	again, err := Build(t.Context(), p, BuildOptions{})
	require.NoError(t, err)
	assert.True(t, again.Cached)
	assert.Equal(t, built.Digest, again.Digest)

	t.Run("verify", func(t *testing.T) {
		result, err := Verify(t.Context(), p, VerifyOptions{})
		require.NoError(t, err)
		assert.Equal(t, built.Digest, result.Digest)
	})

	t.Run("pin", func(t *testing.T) {
		moves, err := PinBases(t.Context(), p)
		require.NoError(t, err)
		assert.Empty(t, moves)
		now, newer := pushBase(t, base, types.OCILayerZStd, baseLayerOf(t, baseFile{"tool", program}, baseFile{"base", []byte("a newer base")}))
		moves, err = PinBases(t.Context(), p)
		require.NoError(t, err)
		assert.Equal(t, []string{base + " " + digest + " -> " + now}, moves)
		text, err := os.ReadFile(p.Path(p.Dockerfile))
		require.NoError(t, err)
		assert.Equal(t, "ARG BASE="+base+"@"+now+"\nFROM $BASE AS start\nFROM "+base+"@"+now+rest, string(text))
		moved, err := Build(t.Context(), p, BuildOptions{})
		require.NoError(t, err)
		assert.NotEqual(t, built.Inputs, moved.Inputs)
		assert.NotEqual(t, built.Digest, moved.Digest)
		// Its layer is compressed by Zstandard, which no layer of Berth's own is.
		config, err := newer.ConfigFile()
		require.NoError(t, err)
		assert.Equal(t, config.RootFS.DiffIDs[0].String(), moved.Layers[0])
		have, err := docker.Image(t.Context(), p.Tag())
		require.NoError(t, err)
		assert.True(t, image.Sealed(have))
		if info, err := docker.Info(t.Context()); err == nil && !info.ContainerdStore {
			assert.Equal(t, moved.Digest, image.SealedDigest(have))
		}
	})

	// What an engine has forgotten it gets again.
	t.Run("pruned engine", func(t *testing.T) {
		dir, err := cache.Open()
		require.NoError(t, err)
		e, err := engine.Connect(t.Context(), engine.Options{Cache: dir})
		require.NoError(t, err)
		require.NoError(t, e.Client.Engine().LocalCache().Prune(t.Context()))
		require.NoError(t, e.Close())
		require.NoError(t, os.WriteFile(p.Path("a"), []byte("changed"), 0o644))
		_, err = Build(t.Context(), p, BuildOptions{})
		require.NoError(t, err)
	})

	t.Run("no registry", func(t *testing.T) {
		closeRegistry()
		write("FROM " + base + "@" + digest + "\nCOPY a /another\n")
		result, err := Build(t.Context(), p, BuildOptions{})
		require.NoError(t, err, "what was pulled once is in the cache")
		assert.Equal(t, built.Layers[:2], result.Layers[:2])

		write("FROM " + base + "\n")
		_, err = Build(t.Context(), p, BuildOptions{})
		require.ErrorIs(t, err, ErrUnpinned)
		assert.Contains(t, err.Error(), "Which digest it has now can't be told: asking "+host)
		assert.Contains(t, advice.Text(err, "berth"), "\tberth lint -fix")

		write("FROM " + host + "/team/unknown:1@" + toolsDigest[:len(toolsDigest)-4] + "0000\n")
		_, err = Build(t.Context(), p, BuildOptions{})
		assert.ErrorContains(t, err, "docker/Dockerfile:1: pulling "+host+"/team/unknown:1@sha256:")
		_, err = PinBases(t.Context(), p)
		assert.ErrorContains(t, err, "docker/Dockerfile:1: asking "+host)
	})
}
