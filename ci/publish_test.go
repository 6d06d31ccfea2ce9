package ci

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/attest"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

// small is a project of two files, which builds in a second.
func small(t *testing.T, host string) Project {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"docker/Dockerfile": "FROM scratch\nCOPY a b /\n", "docker/Dockerfile.dockerignore": "*\n!a\n!b\n", "a": "one", "b": "two", "magefiles/berth.go": "",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	p, err := Project{Name: dockertest.Name(t), Inputs: []input.Input{}, Registry: host + "/team/small:1"}.At(root)
	require.NoError(t, err)
	return p
}

// writeKeys writes a pair of keys, the public one into the project.
func writeKeys(t *testing.T, p Project, public string) (private string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	private = filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.Path(public), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644))
	return private
}

// TestPublish goes through a registry: from one machine there, to another, and back.
func TestPublish(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts engines")
	}
	docker := dockertest.Connect(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	p := small(t, host)
	// Other machines have other caches, and nothing in Docker.
	anotherMachine := func() {
		t.Helper()
		if err := docker.RemoveImage(context.Background(), p.Tag()); err != nil {
			require.ErrorIs(t, err, daemon.ErrNotFound)
		}
	}
	t.Cleanup(anotherMachine)

	var said strings.Builder
	built, err := Build(t.Context(), p, BuildOptions{Report: progress.New(&said)})
	require.NoError(t, err)
	assert.Empty(t, built.Pulled)
	assert.Contains(t, said.String(), host+"/team/small doesn't have this image: building it")

	published, err := Publish(t.Context(), p, PublishOptions{})
	require.NoError(t, err)
	assert.Equal(t, built.Digest, published.Digest)
	assert.Equal(t, host+"/team/small:1", published.Image)
	assert.Equal(t, []string{"inputs-" + built.Inputs, "1"}, published.Tags)

	repository, err := name.NewRepository(host + "/team/small")
	require.NoError(t, err)
	for _, kind := range []string{attest.SPDXType, attest.StatementType} {
		all, err := image.Artifacts(t.Context(), repository.Digest(built.Digest), kind)
		require.NoError(t, err)
		require.Len(t, all, 1)
		assert.True(t, json.Valid(all[0].Data))
	}

	t.Run("pull instead of building", func(t *testing.T) {
		anotherMachine()
		t.Setenv("BERTH_ENGINE", "no-engine-is-needed")
		start := time.Now()
		pulled, err := Build(t.Context(), p, BuildOptions{})
		require.NoError(t, err)
		t.Logf("built in %.2f s, pulled in %s", built.Seconds, time.Since(start))
		assert.Equal(t, repository.Name(), pulled.Pulled)
		assert.Equal(t, built.Digest, pulled.Digest)
		assert.Equal(t, built.ID, pulled.ID)
		again, err := Build(t.Context(), p, BuildOptions{})
		require.NoError(t, err)
		assert.True(t, again.Cached)
	})

	t.Run("verify", func(t *testing.T) {
		result, err := VerifyImage(t.Context(), p, VerifyImageOptions{Image: published.Image})
		require.NoError(t, err)
		assert.Equal(t, built.Digest, result.Digest)

		other := p
		other.Root = small(t, host).Root
		require.NoError(t, os.WriteFile(other.Path("b"), []byte("another"), 0o644))
		_, err = Publish(t.Context(), other, PublishOptions{To: host + "/team/small:other"})
		require.NoError(t, err)
		_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: host + "/team/small:other"})
		require.ErrorIs(t, err, ErrImageDiffers)
		assert.Regexp(t, `\n\t.*\bb\b.*`, err.Error())
		assert.NotRegexp(t, `(?m)^\t.* a:`, err.Error())
		img, err := image.Pull(t.Context(), repository.Digest(built.Digest))
		require.NoError(t, err)
		annotated := mutate.Annotations(img, map[string]string{"by": "somebody"}).(v1.Image)
		require.NoError(t, remote.Write(repository.Tag("annotated"), annotated))
		_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: host + "/team/small:annotated"})
		require.ErrorIs(t, err, ErrImageDiffers)
		assert.ErrorContains(t, err, "its manifest is written in another way")
		_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: host + "/team/small:none"})
		assert.ErrorIs(t, err, image.ErrNoImage)
	})

	t.Run("signatures", func(t *testing.T) {
		signed := p
		signed.Key = "berth.pub"
		private := writeKeys(t, p, signed.Key)
		anotherMachine()
		_, err := Build(t.Context(), signed, BuildOptions{})
		require.ErrorIs(t, err, attest.ErrNotSigned)
		assert.Contains(t, advice.Text(err, "berth"), "\tberth build -from=none")

		result, err := Publish(t.Context(), signed, PublishOptions{Key: private})
		require.NoError(t, err)
		assert.True(t, result.Signed)
		pulled, err := Build(t.Context(), signed, BuildOptions{})
		require.NoError(t, err)
		assert.NotEmpty(t, pulled.Pulled)
		_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: published.Image, Key: p.Path(signed.Key)})
		require.NoError(t, err)

		writeKeys(t, p, "other.pub")
		_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: published.Image, Key: p.Path("other.pub")})
		assert.ErrorIs(t, err, attest.ErrNotSigned)
	})

	t.Run("damaged layers", func(t *testing.T) {
		dir := ownCache(t)
		other := small(t, host)
		t.Cleanup(func() { assert.NoError(t, docker.RemoveImage(context.Background(), other.Tag())) })
		require.NoError(t, os.WriteFile(other.Path("a"), []byte("damaged later"), 0o644))
		require.NoError(t, os.WriteFile(other.Path(other.Dockerfile), []byte("FROM scratch\nCOPY a /\nCOPY b /\n"), 0o644))
		built, err := Build(t.Context(), other, BuildOptions{})
		require.NoError(t, err)
		for _, file := range filesOf(t, dir)["layers"] {
			if filepath.Ext(file) != ".json" { // else they would be made anew without a word
				damageFile(t, file, damages["flipped"])
			}
		}
		said.Reset()
		published, err := Publish(t.Context(), other, PublishOptions{To: host + "/team/small:damaged", Report: progress.New(&said)})
		require.NoError(t, err)
		assert.Equal(t, built.Digest, published.Digest)
		assert.Contains(t, said.String(), "Building again: ")
	})

	t.Run("another image under the tag", func(t *testing.T) {
		anotherMachine()
		forged, err := random.Image(64, 1)
		require.NoError(t, err)
		require.NoError(t, remote.Write(repository.Tag(inputsTag(built.Inputs)), forged))
		_, err = Build(t.Context(), p, BuildOptions{})
		assert.ErrorContains(t, err, "isn't an image that Berth made from these inputs")
		_, err = docker.Image(t.Context(), p.Tag())
		assert.ErrorIs(t, err, daemon.ErrNotFound)
		result, err := Build(t.Context(), p, BuildOptions{From: fromNowhere})
		require.NoError(t, err)
		assert.Equal(t, built.Digest, result.Digest)
	})

	t.Run("no registry", func(t *testing.T) {
		anotherMachine()
		server.Close()
		said.Reset()
		result, err := Build(t.Context(), p, BuildOptions{Report: progress.New(&said)})
		require.NoError(t, err)
		assert.Equal(t, built.Digest, result.Digest)
		assert.Contains(t, said.String(), "Building the image, since it can't be pulled")
		_, err = Publish(t.Context(), p, PublishOptions{})
		assert.ErrorContains(t, err, fmt.Sprintf("pushing to %s/team/small@sha256:", host))
	})
}

func TestPublishOptions(t *testing.T) {
	p := small(t, "127.0.0.1:9")
	p.Registry = ""
	_, err := Publish(t.Context(), p, PublishOptions{})
	assert.ErrorIs(t, err, usage.Err)
	_, err = Publish(t.Context(), p, PublishOptions{To: "not a name"})
	assert.ErrorIs(t, err, usage.Err)
	_, err = Publish(t.Context(), p, PublishOptions{To: "example.org/x", Key: p.Path("none")})
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = Publish(t.Context(), p, PublishOptions{To: "example.org/x", Key: p.Path("a")})
	assert.ErrorContains(t, err, "reading the key")
	_, err = VerifyImage(t.Context(), p, VerifyImageOptions{Image: "not a name"})
	assert.ErrorIs(t, err, usage.Err)
}

// TestGitSource keeps credentials of the repository's URL to itself.
func TestGitSource(t *testing.T) {
	root := t.TempDir()
	_, commit, _ := gitSource(t.Context(), root)
	assert.Empty(t, commit)
	for _, args := range [][]string{
		{"init", "-q"}, {"-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "one"},
		{"remote", "add", "origin", "https://me:secret@example.org/team/repository.git"},
	} {
		out, err := gitIn(root, args...)
		require.NoError(t, err, out)
	}
	url, commit, changed := gitSource(t.Context(), root)
	assert.Equal(t, "https://example.org/team/repository.git", url)
	assert.Len(t, commit, 40)
	assert.False(t, changed)
	require.NoError(t, os.WriteFile(filepath.Join(root, "new"), nil, 0o644))
	_, _, changed = gitSource(t.Context(), root)
	assert.True(t, changed)
}

func TestPublicURL(t *testing.T) {
	for remote, want := range map[string]string{
		"git@example.org:team/x.git":                   "ssh://example.org/team/x.git",
		"example.org:/srv/x.git":                       "ssh://example.org/srv/x.git",
		"ssh://git@example.org:22/team/x.git":          "ssh://example.org:22/team/x.git",
		"https://me:secret@example.org/x?token=secret": "https://example.org/x",
		"/srv/x.git":  "",
		"./a:b":       "",
		"file:///srv": "",
		"":            "",
	} {
		assert.Equal(t, want, publicURL(remote), remote)
	}
}

func gitIn(root string, args ...string) (string, error) {
	out, err := exec.Command("git", append([]string{"-C", root}, args...)...).CombinedOutput()
	return string(out), err
}
