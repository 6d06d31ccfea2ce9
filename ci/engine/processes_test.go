package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/testenv"
)

// A child is another process that connects.
type child struct {
	*exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	errors *bytes.Buffer
}

func startChild(t *testing.T, sources string, env ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0]), errors: &bytes.Buffer{}}
	c.Env = append(append(os.Environ(), "BERTH_TEST_CONNECT="+sources), env...)
	c.Stderr = c.errors
	var err error
	c.input, err = c.StdinPipe()
	require.NoError(t, err)
	output, err := c.StdoutPipe()
	require.NoError(t, err)
	c.output = bufio.NewReader(output)
	require.NoError(t, c.Start())
	return c
}

// connected waits until the child is.
func (c *child) connected(t *testing.T) {
	t.Helper()
	line, _ := c.output.ReadString('\n')
	if line != "connected to "+Version+"\n" {
		c.Wait()
		require.Fail(t, "the child didn't connect", "%q\n%s", line, c.errors)
	}
}

// finish lets the child go.
func (c *child) finish(t *testing.T) {
	t.Helper()
	require.NoError(t, c.input.Close())
	require.NoError(t, c.Wait(), c.errors.String())
}

func TestProcessesShareOneEngine(t *testing.T) {
	p := testProvider(t)
	var children []*child
	for i := range 4 {
		env := []string{envName + "=" + p.name}
		if i == 3 {
			// Another person's cache: no lock in common, only Docker.
			cli, err := p.cli(t.Context())
			require.NoError(t, err)
			env = append(env, "BERTH_CACHE="+t.TempDir(), envCLI+"="+cli)
		}
		children = append(children, startChild(t, embeddedSources, env...))
	}
	for _, c := range children {
		c.connected(t)
	}
	all, err := p.docker.Containers(t.Context(), daemon.LabelRole+"="+role)
	require.NoError(t, err)
	made := 0
	for _, c := range all {
		if c.Name == p.name {
			made++
		}
	}
	assert.Equal(t, 1, made)
	for _, c := range children {
		c.finish(t)
	}
}

// otherSources is a folder with sources of an engine whose image no Docker has. The
// image is removed with the test.
func otherSources(t *testing.T, docker *daemon.Client) string {
	t.Helper()
	other := t.TempDir()
	require.NoError(t, os.CopyFS(other, embedded))
	lock := filepath.Join(other, lockName)
	require.NoError(t, os.Chmod(lock, 0o644))
	f, err := os.OpenFile(lock, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	fmt.Fprintf(f, "# %s\n", rand.Text())
	require.NoError(t, f.Close())
	b, err := newBuilder(Options{sources: os.DirFS(other)})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := docker.RemoveImage(context.Background(), b.tag()); err != nil {
			assert.ErrorIs(t, err, daemon.ErrNotFound)
		}
	})
	return other
}

// kill kills the child after a random part of at most. What it was doing then is
// in the test's log, which is shown if the test fails.
func (c *child) kill(t *testing.T, most time.Duration) {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(int64(most)))
	require.NoError(t, err)
	after := time.Duration(n.Int64())
	time.Sleep(after)
	require.NoError(t, c.Process.Kill())
	c.Wait()
	said := strings.Split(strings.TrimSpace(c.errors.String()), "\n")
	t.Logf("killed after %s, having said %q", after, said[len(said)-1])
}

func TestKilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	other := otherSources(t, connectDocker(t)) // its image goes after the containers
	p := testProvider(t)
	dir := t.TempDir()
	env := []string{"BERTH_CACHE=" + dir, envName + "=" + p.name, envSource + "=source"}
	kills := 1
	if testenv.Long() {
		kills = 5
	}
	for range kills { // compiling, assembling, loading
		startChild(t, other, env...).kill(t, 15*time.Second)
	}
	c := startChild(t, other, env...)
	c.connected(t)
	c.finish(t)
	for range 4 { // creating, starting, connecting
		require.NoError(t, p.docker.Remove(t.Context(), p.name))
		startChild(t, other, env...).kill(t, 2*time.Second)
	}
	for range 3 {
		startChild(t, other, append(env, "BERTH_TEST_EPHEMERAL=1")...).kill(t, 3*time.Second)
	}
	c = startChild(t, other, env...)
	c.connected(t)
	c.finish(t)

	// Connecting doesn't wait for what Docker may still be making for the last one killed.
	d, err := cacheAt(t, dir)
	require.NoError(t, err)
	swept, err := owned.Sweep(t.Context(), d, p.docker, true)
	require.NoError(t, err)
	assert.Empty(t, swept.Left)

	assert.Empty(t, ephemeralContainers(t, p))
	volumes, err := p.docker.Volumes(t.Context(), daemon.LabelRole+"="+role)
	require.NoError(t, err)
	for _, v := range volumes {
		assert.False(t, strings.HasPrefix(v, p.name) && v != volumeOf(p.name), v)
	}
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.Eventually(t, func() bool { return len(using(t, dir)) == 0 }, 20*time.Second, 100*time.Millisecond, "processes go on")
}

func TestKilledWhileCompiling(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for some seconds")
	}
	connectDocker(t)
	dir, goCache := t.TempDir(), t.TempDir()
	o := Options{Cache: cache.Dir(dir)}
	b, err := newBuilder(o)
	require.NoError(t, err)
	kept, err := exec.Command("go", "env", "GOCACHE").Output()
	require.NoError(t, err)
	t.Setenv("GOCACHE", strings.TrimSpace(string(kept)))
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // the SDK has no command line there
	c := startChild(t, embeddedSources, "BERTH_CACHE="+dir, "GOCACHE="+goCache, envSource+"=source", envCLI+"=")
	require.Eventually(t, func() bool {
		compiled, _ := filepath.Glob(filepath.Join(goCache, "*", "*-a"))
		return len(compiled) > 20
	}, 5*time.Minute, 50*time.Millisecond, "the compiler doesn't come to work")
	require.NotEmpty(t, using(t, dir))
	require.NoError(t, c.Process.Kill())
	c.Wait()
	assert.Eventually(t, func() bool { return len(using(t, dir)) == 0 }, 20*time.Second, 100*time.Millisecond, "the compiler goes on")
	program, err := cache.Find(b.cliPath())
	require.NoError(t, err)
	assert.Empty(t, program)

	o.Cache, err = cacheAt(t, dir)
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
	b, err = newBuilder(o)
	require.NoError(t, err)
	cli, err := b.cli(t.Context())
	require.NoError(t, err)
	out, err := exec.Command(cli, "version").Output()
	require.NoError(t, err)
	assert.True(t, isVersion(out), string(out))
}

// cacheAt opens the cache folder at dir, as the next command does.
func cacheAt(t *testing.T, dir string) (cache.Dir, error) {
	t.Setenv("BERTH_CACHE", dir)
	return cache.Open()
}

// using lists the processes that have dir in their environment.
func using(t *testing.T, dir string) (pids []string) {
	t.Helper()
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, name := range environments {
		if data, err := os.ReadFile(name); err == nil && bytes.Contains(data, []byte("BERTH_CACHE="+dir+"\x00")) {
			pids = append(pids, name)
		}
	}
	return pids
}
