package ci

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/progress"
	"github.com/berthdev/berth/docker/cache"
	"github.com/berthdev/berth/docker/daemon"
)

// The tests below run the whole pipeline: real packages, real engine, real Docker.

// project is this repository's own, as magefiles/project.go has it.
var project = Project{
	Root: "..", Name: "demo-cnn", Dockerfile: "docker/Dockerfile",
	Packages: "docker/packages.toml", Lock: "docker/packages.lock",
	BaseStage: "base", BaseDigest: "docker/base.digest",
}

// TestMain lets the test binary play a build that gets killed.
func TestMain(m *testing.M) {
	if root := os.Getenv("BERTH_TEST_BUILD"); root != "" {
		p := project
		p.Root = root
		if _, err := Build(context.Background(), p, BuildOptions{Tag: os.Getenv("BERTH_TEST_TAG"), Report: progress.New(os.Stderr)}); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// connect returns the daemon, or skips the test where there is none.
func connect(t *testing.T) *daemon.Client {
	t.Helper()
	docker, err := daemon.Connect(t.Context())
	if err != nil {
		t.Skipf("needs Docker: %v", err)
	}
	t.Cleanup(func() { docker.Close() })
	return docker
}

// checkout copies what a build reads of this repository into a new folder, as a
// clone with that umask would.
func checkout(t *testing.T, umask int) Project {
	t.Helper()
	list, err := exec.Command("git", "-C", "..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	require.NoError(t, err)
	p := project
	p.Root = t.TempDir()
	old := syscall.Umask(umask)
	defer syscall.Umask(old)
	for _, name := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		switch top, _, _ := strings.Cut(name, "/"); top {
		case "docker", "rootfs", "magefiles", "ci", ".dockerignore":
		default:
			continue
		}
		info, err := os.Lstat(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // deleted, not yet committed
		}
		require.NoError(t, err)
		mode := os.FileMode(0o666)
		if info.Mode()&0o100 != 0 {
			mode = 0o777
		}
		data, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(p.Root, filepath.Dir(name)), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(p.Root, name), data, mode))
	}
	return p
}

// appendTo adds text to a file of the project.
func appendTo(t *testing.T, p Project, rel, text string) {
	t.Helper()
	f, err := os.OpenFile(p.Path(rel), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// newTag is a tag that no other test has. Its image is removed with the test.
func newTag(t *testing.T, docker *daemon.Client) string {
	t.Helper()
	random := make([]byte, 6)
	rand.Read(random)
	tag := "berth-test-" + hex.EncodeToString(random) + ":latest"
	t.Cleanup(func() {
		if err := docker.RemoveImage(context.Background(), tag); err != nil {
			assert.ErrorIs(t, err, daemon.ErrNotFound)
		}
	})
	return tag
}

func build(t *testing.T, p Project, tag string) Result {
	t.Helper()
	r, err := Build(t.Context(), p, BuildOptions{Tag: tag, Report: progress.New(os.Stderr)})
	require.NoError(t, err)
	return r
}

func TestBuild(t *testing.T) {
	docker := connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	first := build(t, p, tag)
	assert.Regexp(t, "^sha256:[0-9a-f]{64}$", first.Digest)

	have, err := docker.Image(t.Context(), tag)
	require.NoError(t, err)
	assert.Equal(t, first.ID, have.ID)
	assert.Equal(t, first.Layers, have.Layers)
	assert.Equal(t, first.Inputs, have.Labels[daemon.LabelInputs])

	// Nothing changed: no engine is needed, also under another tag.
	t.Setenv("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "unix:///nowhere")
	again := build(t, p, tag)
	assert.True(t, again.Cached)
	assert.Equal(t, first.Digest, again.Digest)
	other := build(t, p, newTag(t, docker))
	assert.True(t, other.Cached)
	assert.Equal(t, first.ID, other.ID)
}

func TestOnlyTheLastStepChanges(t *testing.T) {
	docker := connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	first := build(t, p, tag)
	appendTo(t, p, p.Dockerfile, "RUN echo hello > /hello\n")
	second := build(t, p, tag)
	assert.False(t, second.Cached)
	assert.NotEqual(t, first.Digest, second.Digest)
	assert.Equal(t, first.Layers, second.Layers[:len(first.Layers)])
	assert.Len(t, second.Layers, len(first.Layers)+1)

	// The image that lost its tag isn't left to pile up, unless another tag has it.
	if ids, err := docker.Images(t.Context(), daemon.LabelInputs+"="+first.Inputs); assert.NoError(t, err) {
		for _, id := range ids {
			have, err := docker.Image(t.Context(), id)
			require.NoError(t, err)
			assert.NotEmpty(t, have.Tags)
		}
	}
}

func TestFailedRunShowsItsOutput(t *testing.T) {
	docker := connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	appendTo(t, p, p.Dockerfile, "RUN echo the reason why; exit 7\n")
	_, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "the reason why")
	assert.Contains(t, err.Error(), "exit code: 7")
	assert.Contains(t, err.Error(), p.Dockerfile)
	assert.Equal(t, ExitFailure, ExitCode(err))
	_, err = docker.Image(t.Context(), tag)
	assert.ErrorIs(t, err, daemon.ErrNotFound)
}

func TestVerify(t *testing.T) {
	connect(t)
	if testing.Short() {
		t.Skip("two builds from nothing")
	}
	r, err := Verify(t.Context(), project, VerifyOptions{Report: progress.New(os.Stderr)})
	require.NoError(t, err)
	assert.Regexp(t, "^sha256:[0-9a-f]{64}$", r.Digest)
}

func TestVerifyNamesTheFileThatDiffers(t *testing.T) {
	connect(t)
	if testing.Short() {
		t.Skip("two builds from nothing")
	}
	p := checkout(t, 0o022)
	appendTo(t, p, p.Dockerfile, "RUN date > /stamp\n")
	_, err := Verify(t.Context(), p, VerifyOptions{Report: progress.New(os.Stderr)})
	require.ErrorIs(t, err, ErrNotReproducible)
	assert.Contains(t, err.Error(), "/stamp")
	assert.Contains(t, err.Error(), "content")
	assert.Equal(t, ExitFailure, ExitCode(err))
}

func TestBaseDigestIsThePinnedOne(t *testing.T) {
	connect(t)
	want, err := PinnedBaseDigest(project)
	require.NoError(t, err)
	have, drift, err := BaseDigest(t.Context(), project, progress.New(os.Stderr))
	require.NoError(t, err)
	if len(drift) > 0 {
		t.Skipf("DRIFT: locked packages are gone from every mirror, so the digest can't be compared: %s. Type: go tool mage pin", strings.Join(drift, ", "))
	}
	assert.Equal(t, want, have, "the base stage isn't what the lock promises. If the change is meant: go tool mage pin")
}

// kills is how often the test below kills a build. BERTH_KILLS=20 is the longer run.
const kills = 4

func TestKilledBuildsLeaveNothing(t *testing.T) {
	docker := connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	want := build(t, p, tag)
	before := leftovers(t, docker)

	for i := range kills {
		// Something to do each time, and killed later each time.
		appendTo(t, p, p.Dockerfile, "RUN echo "+strings.Repeat("x", i+1)+" > /killed\n")
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "BERTH_TEST_BUILD="+p.Root, "BERTH_TEST_TAG="+tag)
		require.NoError(t, child.Start())
		time.Sleep(time.Duration(i+1) * 700 * time.Millisecond)
		child.Process.Kill()
		child.Wait()
	}
	clean := checkout(t, 0o022)
	got, err := Build(t.Context(), clean, BuildOptions{Tag: tag})
	require.NoError(t, err)
	assert.Equal(t, want.Digest, got.Digest)
	assert.Equal(t, before, leftovers(t, docker))
}

// leftovers is everything of ours that a build could leave behind.
func leftovers(t *testing.T, docker *daemon.Client) (all []string) {
	t.Helper()
	dir, err := cache.Open()
	require.NoError(t, err)
	entries, err := os.ReadDir(dir.Path("tmp"))
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, "temporary "+e.Name())
	}
	containers, err := docker.Containers(t.Context(), daemon.LabelRole)
	require.NoError(t, err)
	for _, c := range containers {
		all = append(all, "container "+c.Name)
	}
	volumes, err := docker.Volumes(t.Context(), daemon.LabelRole)
	require.NoError(t, err)
	for _, v := range volumes {
		all = append(all, "volume "+v)
	}
	return all
}

func TestDockerNotRunning(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "docker.sock"))
	_, err := Build(t.Context(), project, BuildOptions{})
	require.ErrorIs(t, err, daemon.ErrUnavailable)
	assert.Contains(t, err.Error(), "sudo systemctl start docker")
	assert.Equal(t, ExitPrerequisite, ExitCode(err))
}
