package dockertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// TestMain lets the test binary play a test process that makes a container, a
// volume and a tag, and then waits for its end.
func TestMain(m *testing.M) {
	image := os.Getenv("BERTH_TEST_LEAVE")
	if image == "" {
		os.Exit(Main(m))
	}
	if err := leave(context.Background(), image); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func leave(ctx context.Context, image string) error {
	if _, err := begin(ctx); err != nil {
		return err
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return err
	}
	name := Process + "-" + random()
	id, err := docker.Create(ctx, daemon.Container{
		Name: name, Image: image, Command: []string{"sleep", "1000"}, Network: "none", Init: true,
		Labels: map[string]string{daemon.LabelRole: "test"},
		Mounts: []daemon.Mount{{Type: "volume", Source: name, Target: "/state"}},
	})
	if err := errors.Join(err, docker.Start(ctx, id), docker.Tag(ctx, image, name+":latest")); err != nil {
		return err
	}
	fmt.Println(name)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestKilledTestsLeaveNothing(t *testing.T) {
	docker, image := Connect(t), Shell(t)
	dir, err := cache.Open()
	require.NoError(t, err)
	records, err := cache.OpenAt(dir.Path("tests"))
	require.NoError(t, err)
	start := func() (c *exec.Cmd, name string) {
		c = exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "BERTH_TEST_LEAVE="+image)
		_, err := c.StdinPipe()
		require.NoError(t, err)
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
			assert.NoError(t, sweep(context.Background(), dir, records))
		})
		name, err = bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err, name)
		name = strings.TrimSpace(name)
		require.True(t, strings.HasPrefix(name, prefix), name)
		return c, name
	}
	dead, left := start()
	_, lives := start()
	require.NoError(t, dead.Process.Kill())
	dead.Wait()

	require.NoError(t, sweep(t.Context(), dir, records))
	// Tests of another package that begin now may have been faster, and be at it still.
	assert.Eventually(t, func() bool {
		_, container := docker.Inspect(t.Context(), left)
		_, image := docker.Image(t.Context(), left)
		volumes, err := docker.Volumes(t.Context())
		return errors.Is(container, daemon.ErrNotFound) && errors.Is(image, daemon.ErrNotFound) && err == nil && !slices.Contains(volumes, left)
	}, 30*time.Second, 100*time.Millisecond)
	volumes, err := docker.Volumes(t.Context())
	require.NoError(t, err)
	assert.Contains(t, volumes, lives)
	c, err := docker.Inspect(t.Context(), lives)
	require.NoError(t, err)
	assert.Equal(t, "running", c.State)
	_, err = docker.Image(t.Context(), lives)
	assert.NoError(t, err)
	_, err = docker.Image(t.Context(), image)
	assert.NoError(t, err)
}

func TestCacheOfTheTests(t *testing.T) {
	user := func() (string, error) { return "/home/x/.cache", nil }
	for own, want := range map[string]string{
		"":              "/home/x/.cache/berth-test",
		"/fast/berth/":  "/fast/berth-test",
		"/fast/b-test":  "/fast/b-test", // a test process's child
		"relative/path": "relative/path-test",
	} {
		have, err := root(own, user)
		require.NoError(t, err)
		assert.Equal(t, filepath.FromSlash(want), have)
	}
	_, err := root("", func() (string, error) { return "", errors.New("$HOME is not defined") })
	assert.ErrorContains(t, err, "$HOME is not defined. Name one in BERTH_CACHE")
}
