package image

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/testenv"
)

// counted counts what a registry is asked, and the uploads that it takes.
type counted struct {
	http.Handler
	requests, uploads atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") || r.Method == http.MethodPatch {
		c.uploads.Add(1)
	}
	c.Handler.ServeHTTP(w, r)
}

// inProcess is go-containerregistry's registry, with the API of referrers or without.
func inProcess(t *testing.T, referrers bool) (*counted, name.Repository) {
	t.Helper()
	handler := &counted{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return handler, repositoryAt(t, server.URL)
}

func repositoryAt(t *testing.T, url string) name.Repository {
	t.Helper()
	repository, err := name.NewRepository(strings.TrimPrefix(strings.TrimPrefix(url, "https://"), "http://") + "/team/image")
	require.NoError(t, err)
	return repository
}

func randomImage(t *testing.T, size int64, layers int) (v1.Image, string) {
	t.Helper()
	img, err := random.Image(size, int64(layers))
	require.NoError(t, err)
	digest, err := img.Digest()
	require.NoError(t, err)
	return img, digest.String()
}

var said = []Artifact{{"application/spdx+json", []byte(`{"a":1}`)}, {"application/vnd.in-toto+json", []byte(`{"b":2}`)}}

// checkPushed looks at everything that Push writes.
func checkPushed(t *testing.T, repository name.Repository, digest string) {
	t.Helper()
	for _, ref := range []name.Reference{repository.Tag("one"), repository.Tag("two"), repository.Digest(digest)} {
		img, err := Pull(t.Context(), ref)
		require.NoError(t, err)
		got, err := img.Digest()
		require.NoError(t, err)
		assert.Equal(t, digest, got.String())
		layers, err := img.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			r, err := l.Uncompressed()
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}
	}
	for _, a := range said {
		got, err := Artifacts(t.Context(), repository.Digest(digest), a.Type)
		require.NoError(t, err)
		assert.Equal(t, []Artifact{a}, got)
	}
	none, err := Artifacts(t.Context(), repository.Digest(digest), "other/type")
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestPushAndPull(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers %v", referrers), func(t *testing.T) {
			handler, repository := inProcess(t, referrers)
			img, digest := randomImage(t, 1<<16, 3)
			require.NoError(t, Push(t.Context(), repository, img, []string{"one", "two"}, said, nil))
			checkPushed(t, repository, digest)
			// Again: nothing is sent.
			before := handler.uploads.Load()
			require.Positive(t, before)
			require.NoError(t, Push(t.Context(), repository, img, []string{"one", "two"}, said, nil))
			assert.Equal(t, before, handler.uploads.Load())
			checkPushed(t, repository, digest)

			_, err := Pull(t.Context(), repository.Tag("none"))
			assert.ErrorIs(t, err, ErrNoImage)
		})
	}
}

// TestArtifactsAmongOthers is in a repository where others have written, and cleaned up.
func TestArtifactsAmongOthers(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers %v", referrers), func(t *testing.T) {
			_, repository := inProcess(t, referrers)
			img, digest := randomImage(t, 1<<10, 1)
			wanted := Artifact{"wanted/type", []byte("wanted")}
			put := func(a Artifact) name.Digest {
				subject, err := partial.Descriptor(img)
				require.NoError(t, err)
				made, err := a.image(*subject)
				require.NoError(t, err)
				d, err := made.Digest()
				require.NoError(t, err)
				require.NoError(t, Push(t.Context(), repository, img, nil, []Artifact{a}, nil))
				return repository.Digest(d.String())
			}
			put(wanted)
			manifest := put(Artifact{wanted.Type, []byte("the manifest goes")})
			put(Artifact{wanted.Type, []byte("the content goes")})
			// An index may refer to an image, too.
			subject, err := partial.Descriptor(img)
			require.NoError(t, err)
			index := mutate.Subject(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), *subject).(v1.ImageIndex)
			d, err := index.Digest()
			require.NoError(t, err)
			require.NoError(t, remote.WriteIndex(repository.Digest(d.String()), index))
			// Without the API for referrers, the list keeps what is gone.
			require.NoError(t, remote.Delete(manifest))
			content, _, err := v1.SHA256(strings.NewReader("the content goes"))
			require.NoError(t, err)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete,
				fmt.Sprintf("http://%s/v2/%s/blobs/%s", repository.RegistryStr(), repository.RepositoryStr(), content), nil)
			require.NoError(t, err)
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			require.Equal(t, http.StatusAccepted, answer.StatusCode)

			got, err := Artifacts(t.Context(), repository.Digest(digest), wanted.Type)
			require.NoError(t, err)
			assert.Equal(t, []Artifact{wanted}, got)
		})
	}
}

// rawIndex is an index as somebody writes it.
type rawIndex []byte

func (i rawIndex) RawManifest() ([]byte, error)        { return i, nil }
func (i rawIndex) MediaType() (types.MediaType, error) { return types.OCIImageIndex, nil }

func TestArtifactsHaveLimits(t *testing.T) {
	handler, repository := inProcess(t, false)
	img, digest := randomImage(t, 1<<10, 1)
	large := func(first byte) Artifact {
		return Artifact{"a/type", append([]byte{first}, make([]byte, maxArtifacts/2)...)}
	}
	require.NoError(t, Push(t.Context(), repository, img, nil, []Artifact{large(1), large(2)}, nil))
	_, err := Artifacts(t.Context(), repository.Digest(digest), "a/type")
	assert.ErrorContains(t, err, "what is said of the image is larger than 64 MB")

	before := handler.requests.Load()
	none, err := Artifacts(t.Context(), repository.Digest(digest), "other/type")
	require.NoError(t, err)
	assert.Empty(t, none)
	assert.EqualValues(t, 3, handler.requests.Load()-before,
		"for the registry, the referrers, and the list in place of them: nothing of another type is read")

	described, err := partial.Descriptor(img)
	require.NoError(t, err)
	described.ArtifactType = "a/type"
	text, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: slices.Repeat([]v1.Descriptor{*described}, maxReferrers+1),
	})
	require.NoError(t, err)
	require.NoError(t, remote.Put(repository.Tag(strings.Replace(digest, ":", "-", 1)), rawIndex(text)))
	_, err = Artifacts(t.Context(), repository.Digest(digest), "a/type")
	assert.ErrorContains(t, err, "1001 things in the repository refer to "+repository.Name()+"@"+digest+", and at most 1000 are looked at")
}

// TestPushWithCredentials is to a registry that speaks TLS and wants to know who writes.
func TestPushWithCredentials(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer server.Close()
	repository := repositoryAt(t, server.URL)
	img, digest := randomImage(t, 1<<10, 1)
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)

	// On loopback, go-containerregistry goes on without TLS if its certificate isn't
	// trusted: the error says one thing or the other.
	require.Error(t, Push(t.Context(), repository, img, nil, nil, nil))

	transport := remote.DefaultTransport.(*http.Transport)
	old := transport.TLSClientConfig
	transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	defer func() { transport.TLSClientConfig = old }()
	err := Push(t.Context(), repository, img, nil, nil, nil)
	require.ErrorContains(t, err, "pushing to "+repository.Name())
	assert.Contains(t, advice.Text(err, "berth"), "docker login "+repository.RegistryStr())
	assert.NotContains(t, err.Error(), "secret")

	text := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, repository.RegistryStr(), base64.StdEncoding.EncodeToString([]byte("me:secret")))
	require.NoError(t, os.WriteFile(filepath.Join(config, "config.json"), []byte(text), 0o600))
	require.NoError(t, Push(t.Context(), repository, img, []string{"one", "two"}, said, nil))
	checkPushed(t, repository, digest)
}

// TestPushInterrupted ends pushes at random moments: no tag names an image that isn't
// whole, and at last all of it is there, each layer sent as often as it has to be.
func TestPushInterrupted(t *testing.T) {
	handler, repository := inProcess(t, true)
	img, digest := randomImage(t, 1<<20, 6)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	start := time.Now()
	_, other := inProcess(t, true)
	require.NoError(t, Push(t.Context(), other, img, []string{"one"}, said, nil))
	whole := time.Since(start)
	interrupted := 0
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.Int64N(int64(whole)*int64(i+1)/20)))
		err := Push(ctx, repository, img, []string{"one", "two"}, said, nil)
		cancel()
		if err == nil {
			break
		}
		interrupted++
		require.ErrorIs(t, err, context.DeadlineExceeded)
		if tagged, err := Pull(t.Context(), repository.Tag("one")); err == nil {
			layers, err := tagged.Layers()
			require.NoError(t, err)
			for _, l := range layers {
				_, err := l.Compressed()
				assert.NoError(t, err)
			}
		} else {
			assert.ErrorIs(t, err, ErrNoImage)
		}
	}
	require.NoError(t, Push(t.Context(), repository, img, []string{"one", "two"}, said, nil))
	checkPushed(t, repository, digest)
	t.Logf("interrupted %d times, %d uploads", interrupted, handler.uploads.Load())
}

// TestReferenceRegistry is the registry that Docker Hub grew from, compiled for the test.
func TestReferenceRegistry(t *testing.T) {
	if !testenv.Long() {
		t.Skip("-long: compiling the registry takes minutes")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "registry")
	build := exec.Command("go", "build", "-o", program, "github.com/distribution/distribution/v3/cmd/registry")
	build.Dir = "testdata/registry"
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	config := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(config, []byte("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: "+dir+"}}\nhttp: {addr: "+address+"}\n"), 0o644))
	server := exec.Command(program, "serve", config)
	server.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	server.Stderr = os.Stderr
	require.NoError(t, server.Start())
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	require.Eventually(t, func() bool {
		answer, err := http.Get("http://" + address + "/v2/")
		return err == nil && answer.Body.Close() == nil
	}, 30*time.Second, 50*time.Millisecond)

	repository := repositoryAt(t, address)
	img, digest := randomImage(t, 8<<20, 4)
	for range 5 { // interrupted
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(300*time.Millisecond))))
		err := Push(ctx, repository, img, []string{"one", "two"}, said, nil)
		cancel()
		assert.True(t, err == nil || errors.Is(err, context.DeadlineExceeded), "%v", err)
	}
	require.NoError(t, Push(t.Context(), repository, img, []string{"one", "two"}, said, nil))
	checkPushed(t, repository, digest)
}
