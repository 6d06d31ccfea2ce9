package ci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
)

// A tarball is a kind of input that nothing else knows of: what a file of the checkout
// names by its URL, locked with its SHA-256.
type tarball struct{ wanted, lock string }

type lockedTarball struct{ url, sum string }

func (tarball) Name() string { return "thing.tar" }

func (b tarball) Read(root string) (input.Locked, error) {
	text, err := os.ReadFile(filepath.Join(root, b.lock))
	url, sum, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return lockedTarball{url, sum}, err
}

func (b tarball) Check(root string) error {
	locked, err := b.Read(root)
	if err != nil {
		return err
	}
	wanted, err := os.ReadFile(filepath.Join(root, b.wanted))
	if err == nil && strings.TrimSpace(string(wanted)) != locked.(lockedTarball).url {
		err = fmt.Errorf("%w: another tarball is locked", input.ErrPinsDiffer)
	}
	return err
}

func (b tarball) Pin(_ context.Context, root string, _ input.Options) (input.Pinned, error) {
	wanted, err := os.ReadFile(filepath.Join(root, b.wanted))
	if err != nil {
		return input.Pinned{}, err
	}
	l := lockedTarball{url: strings.TrimSpace(string(wanted))}
	data, err := l.fetch()
	l.sum = fmt.Sprintf("%x", sha256.Sum256(data))
	return input.Pinned{Locked: l, Files: map[string][]byte{b.lock: fmt.Appendln(nil, l.url, l.sum)}, Changes: []string{"thing " + l.sum}}, err
}

func (l lockedTarball) Hash() string { return l.sum }

func (l lockedTarball) Make(_ context.Context, o input.Options) (input.Made, error) {
	path, err := o.Keep(l.sum+".tar", func(w io.Writer) error {
		data, err := l.fetch()
		if sum := fmt.Sprintf("%x", sha256.Sum256(data)); err == nil && sum != l.sum {
			return fmt.Errorf("%s isn't what is locked", l.url)
		}
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
	return input.Made{Path: path}, err
}

// Unkept is the tarball itself.
func (l lockedTarball) Unkept(ctx context.Context, o input.Options) (map[string]string, error) {
	made, err := l.Make(ctx, o)
	return map[string]string{"from/server.tar": made.Path}, err
}

func (l lockedTarball) fetch() ([]byte, error) {
	answer, err := http.Get(l.url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// TestAnotherKindOfInput takes it through pin, check and build.
func TestAnotherKindOfInput(t *testing.T) {
	docker := dockertest.Connect(t)
	served := map[string]string{"/1": "one", "/2": "two"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		file := tar.NewWriter(&b)
		content := served[r.URL.Path]
		file.WriteHeader(&tar.Header{Name: "thing", Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)})
		io.WriteString(file, content)
		file.Close()
		w.Write(b.Bytes())
	}))
	t.Cleanup(server.Close)
	p := Project{
		Root: tree(t, map[string]string{
			"docker/Dockerfile":              "FROM scratch\nADD thing.tar /\nCMD [\"none\"]\n",
			"docker/Dockerfile.dockerignore": "*\n!thing.tar\n", "wanted": server.URL + "/1\n",
		}),
		Name: dockertest.Process + "-thing", Dockerfile: "docker/Dockerfile", Inputs: []input.Input{tarball{"wanted", "lock"}},
	}
	changes, err := Pin(t.Context(), p, PinOptions{})
	require.NoError(t, err)
	require.Len(t, changes, 1)
	require.NoError(t, CheckPins(p))

	tag := newTag(t, docker)
	first, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.NoError(t, err)
	again, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.NoError(t, err)
	assert.True(t, again.Cached)
	thing := func() string {
		id, err := docker.Create(t.Context(), daemon.Container{Name: dockertest.Name(t), Image: tag, Command: []string{"none"}})
		require.NoError(t, err)
		defer docker.Remove(context.Background(), id)
		text, err := docker.ReadFile(t.Context(), id, "/thing", 100)
		require.NoError(t, err)
		return string(text)
	}
	assert.Equal(t, "one", thing())

	writeFile(t, p, "wanted", server.URL+"/2\n")
	err = CheckPins(p)
	require.ErrorIs(t, err, input.ErrPinsDiffer)
	assert.Equal(t, ExitPinsDiffer, ExitCode(err))
	_, err = Pin(t.Context(), p, PinOptions{})
	require.NoError(t, err)
	require.NoError(t, CheckPins(p))
	second, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.NoError(t, err)
	assert.NotEqual(t, first.Inputs, second.Inputs)
	assert.Equal(t, "two", thing())

	// What nobody keeps is written to the checkout, and isn't part of the context.
	appendTo(t, p, p.Dockerfile+".dockerignore", "!thing.kept\n")
	before, err := ReadInputs(p)
	require.NoError(t, err)
	names, err := Materials(t.Context(), p, MaterialsOptions{})
	require.NoError(t, err)
	assert.Equal(t, []string{"thing.tar", "thing.kept/from/server.tar"}, names)
	assert.Equal(t, readFile(t, p, "thing.tar"), readFile(t, p, "thing.kept/from/server.tar"))
	after, err := ReadInputs(p)
	require.NoError(t, err)
	assert.Equal(t, before.Hash, after.Hash)

	served["/2"] = "three"
	dir := dockertest.Cache(t) // what the shared one has was locked
	_, err = Materials(t.Context(), p, MaterialsOptions{Dir: t.TempDir(), Locked: true})
	require.ErrorContains(t, err, "isn't what is locked")
	left, err := os.ReadDir(dir.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}
