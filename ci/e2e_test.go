package ci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/moduletest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/trouble"
)

// The tests below run the whole pipeline: real packages, real engine, real Docker.

// project is this repository's own, as its magefile has it, but under a
// name of the tests': the image of whoever works here stays as it is.
var project = func() Project {
	p, err := Project{
		Name: dockertest.Process + "-demo", BaseStage: "base", Home: "rootfs/home/user",
		Inputs: []input.Input{
			debian.Input{}, golang.Input{Packages: []string{"./trainer/..."}, Tests: true, Cgo: []string{"cuda"}},
			debian.Input{Archive: "compiler.tar", Manifest: "docker/compiler.toml", Lock: "docker/compiler.lock"},
		},
	}.At(".")
	if err != nil {
		panic(err)
	}
	return p
}()

// The locks of the project.
const (
	lockFile   = "docker/packages.lock"
	goLockFile = "docker/golang.lock"
)

// TestMain lets the test binary play a build that gets killed.
func TestMain(m *testing.M) {
	if root := os.Getenv("BERTH_TEST_BUILD"); root != "" {
		if size := os.Getenv("BERTH_TEST_CACHE_SIZE"); size != "" {
			if err := syscall.Mount("tmpfs", os.Getenv("BERTH_CACHE"), "tmpfs", 0, "size="+size); err != nil {
				os.Stderr.WriteString("no tmpfs: " + err.Error() + "\n")
				os.Exit(77)
			}
		}
		p := project
		p.Root = root
		if _, err := Build(context.Background(), p, BuildOptions{Tag: os.Getenv("BERTH_TEST_TAG"), Report: progress.New(os.Stderr)}); err != nil {
			os.Stderr.WriteString(Explain(err, "berth") + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := dockertest.Main(m)
	removeCompiled()
	os.Exit(code)
}

// checkout is a copy of this repository, as a clone with that umask has it.
func checkout(t *testing.T, umask int) Project {
	t.Helper()
	p := project
	p.Root = t.TempDir()
	old := syscall.Umask(umask)
	defer syscall.Umask(old)
	require.NoError(t, moduletest.Copy("..", p.Root))
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
	tag := dockertest.Name(t) + ":latest"
	t.Cleanup(func() {
		if err := docker.RemoveImage(context.Background(), tag); err != nil {
			assert.ErrorIs(t, err, daemon.ErrNotFound)
		}
	})
	return tag
}

// build builds as a person does, without the race detector's price, which packing
// hundreds of megabytes pays tenfold.
func build(t *testing.T, p Project, tag string) Result {
	t.Helper()
	r, stderr, code := tryBuild(t, p, tag)
	require.Zero(t, code, stderr)
	return r
}

// tryBuild returns the result, or what was said of a failure and the exit code.
func tryBuild(t *testing.T, p Project, tag string) (r Result, stderr string, code int) {
	t.Helper()
	args := []string{"build", "-json"}
	if tag != "" {
		args = append(args, "-t="+tag)
	}
	stdout, stderr, code := berth(t, p.Root, nil, args...)
	if code == 0 {
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	}
	return r, stderr, code
}

func TestBuild(t *testing.T) {
	docker := dockertest.Connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	first := build(t, p, tag)
	assert.Regexp(t, "^sha256:[0-9a-f]{64}$", first.Digest)

	have, err := docker.Image(t.Context(), tag)
	require.NoError(t, err)
	assert.Equal(t, first.ID, have.ID)
	assert.Equal(t, first.Layers, have.Layers)
	assert.Equal(t, first.Inputs, have.Labels[daemon.LabelInputs])
	assert.Equal(t, "demo-cnn", have.Labels["org.opencontainers.image.title"])
	assert.Equal(t, first.Epoch.Format(time.RFC3339), have.Labels["org.opencontainers.image.created"])

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
	docker := dockertest.Connect(t)
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
	if have, err := docker.Image(t.Context(), first.ID); err == nil {
		assert.NotEmpty(t, have.Tags)
	} else {
		assert.ErrorIs(t, err, daemon.ErrNotFound)
	}
}

func TestFailedRunShowsItsOutput(t *testing.T) {
	docker := dockertest.Connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	appendTo(t, p, p.Dockerfile, "RUN echo the reason why; exit 7\n")
	_, err := Build(t.Context(), p, BuildOptions{Tag: tag})
	require.Error(t, err)
	assert.Contains(t, err.Error(), "the reason why")
	assert.Contains(t, err.Error(), "exit code 7")
	assert.Contains(t, err.Error(), p.Dockerfile)
	assert.Equal(t, ExitFailure, ExitCode(err))
	_, err = docker.Image(t.Context(), tag)
	assert.ErrorIs(t, err, daemon.ErrNotFound)
}

// TestVerify is for the long suite: the next test, which finds a single difference,
// stands for it.
func TestVerify(t *testing.T) {
	dockertest.Connect(t)
	if !testenv.Long() {
		t.Skip("two builds from nothing")
	}
	stdout, stderr, code := berth(t, project.Root, nil, "verify", "-json")
	require.Zero(t, code, stderr)
	var r Result
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.Equal(t, build(t, project, "").Digest, r.Digest, "another image than the one that a build loads")
}

func TestVerifyNamesTheFileThatDiffers(t *testing.T) {
	dockertest.Connect(t)
	if testing.Short() {
		t.Skip("two builds from nothing")
	}
	p := checkout(t, 0o022)
	appendTo(t, p, p.Dockerfile, "RUN date > /stamp\n")
	_, stderr, code := berth(t, p.Root, nil, "verify")
	assert.Equal(t, ExitFailure, code)
	assert.Contains(t, stderr, ErrNotReproducible.Error())
	assert.Contains(t, stderr, "/stamp: content differs")
	assert.Equal(t, 1, strings.Count(stderr, " differs: "), "more differs than the stamp")
}

func TestBaseDigestIsThePinnedOne(t *testing.T) {
	dockertest.Connect(t)
	want, err := PinnedBaseDigest(project)
	require.NoError(t, err)
	have, drift, err := BaseDigest(t.Context(), project, progress.New(os.Stderr))
	require.NoError(t, err)
	if len(drift) > 0 {
		testenv.Skip(t, testenv.Snapshot, "locked packages are gone from every mirror: %s. Type: go tool mage pin", strings.Join(drift, ", "))
	}
	assert.Equal(t, want, have, "the base stage isn't what the lock promises. If the change is meant: go tool mage pin")
}

// ownCache gives the test a cache that no other process works in, with what takes
// long to make, as far as other tests have made it.
func ownCache(t *testing.T) cache.Dir {
	t.Helper()
	shared, err := cache.Open()
	require.NoError(t, err)
	dir := dockertest.Cache(t)
	var names []string
	for _, pattern := range []string{"engine/*/dagger*", "debs", "golang", "layers", "rootfs"} {
		found, err := filepath.Glob(shared.Path(pattern))
		require.NoError(t, err)
		names = append(names, found...)
	}
	for _, name := range names {
		to := dir.Path(strings.TrimPrefix(name, string(shared)))
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		for try := 1; ; try++ { // what others rename meanwhile, cp can't find
			out, err := exec.Command("cp", "-a", name, to).CombinedOutput()
			if err == nil {
				break
			}
			require.Less(t, try, 5, string(out))
			require.NoError(t, os.RemoveAll(to))
		}
	}
	return dir
}

// TestAnotherDayAnotherFolderAnotherEngine builds the base stage as another
// person would: in a folder elsewhere, with another umask, on an engine with no
// state, forty days later. It must be the pinned one. It is for the long suite:
// TestBaseDigestIsThePinnedOne stands for it.
func TestAnotherDayAnotherFolderAnotherEngine(t *testing.T) {
	dockertest.Connect(t)
	if !testenv.Long() {
		t.Skip("a build from nothing")
	}
	p := checkout(t, 0o077)
	later := time.Now().Add(40 * 24 * time.Hour)
	library := fakeClock(t, p)
	before, after, found := strings.Cut(readFile(t, p, p.Dockerfile), "RUN dpkg --force-depends")
	require.True(t, found)
	before += "COPY " + library + " /clock.so\n" +
		"ENV LD_PRELOAD=/clock.so FAKETIME=+40d\n" +
		// Fails if the clock isn't ahead.
		fmt.Sprintf("RUN [ $(date +%%s) -ge %d ]\n", later.Add(-time.Hour).Unix())
	after = strings.Replace(after, "find /var/log -type f -delete", "find /var/log -type f -delete && rm /clock.so", 1)
	writeFile(t, p, p.Dockerfile, before+"RUN dpkg --force-depends"+after)

	in, err := ReadInputs(p)
	require.NoError(t, err)
	dir, err := cache.Open()
	require.NoError(t, err)
	entries, remove, err := dir.Temp("test")
	require.NoError(t, err)
	defer remove()
	for _, made := range []string{"rootfs", "golang"} { // by packages whose tests show that they are the same each time
		require.NoError(t, os.MkdirAll(dir.Path(made), 0o755))
		require.NoError(t, os.Symlink(dir.Path(made), filepath.Join(entries, made)))
	}
	m := maker{project: p, inputs: in, fresh: true, cache: dir, entries: entries, report: progress.New(os.Stderr)}
	made, drift, err := m.make(t.Context(), m.base())
	require.NoError(t, err)
	if len(drift) > 0 {
		testenv.Skip(t, testenv.Snapshot, "locked packages are gone from every mirror: %s. Type: go tool mage pin", strings.Join(drift, ", "))
	}
	have, err := made[0].Digest()
	require.NoError(t, err)
	want, err := PinnedBaseDigest(project)
	require.NoError(t, err)
	assert.Equal(t, want, have.String())
}

// fakeClock puts a library that shifts the clock of programs into the build
// context and returns its path there.
func fakeClock(t *testing.T, p Project) string {
	t.Helper()
	manifest, err := debian.ReadManifest(project.Path("docker/packages.toml"))
	require.NoError(t, err)
	manifest.Packages = []debian.Requirement{{Name: "libfaketime", Why: "a clock that is wrong"}}
	dir, err := cache.Open()
	require.NoError(t, err)
	o := debian.Options{Mirrors: debian.HostMirrors(), Cache: dir}
	lock, err := debian.Pin(t.Context(), manifest, debian.Lock{}, o)
	require.NoError(t, err)
	lock.Packages = slices.DeleteFunc(lock.Packages, func(p debian.Package) bool { return p.Name != "libfaketime" })
	packages, err := debian.Fetch(t.Context(), lock, debian.FetchOptions{Options: o})
	require.NoError(t, err)
	var files bytes.Buffer
	require.NoError(t, debian.Rootfs(t.Context(), &files, packages, lock.Snapshot, t.TempDir(), nil))
	for r := tar.NewReader(&files); ; {
		h, err := r.Next()
		require.NoError(t, err)
		if filepath.Base(h.Name) == "libfaketime.so.1" {
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			writeFile(t, p, "rootfs/etc/clock.so", string(data))
			return "rootfs/etc/clock.so"
		}
	}
}

func readFile(t *testing.T, p Project, rel string) string {
	t.Helper()
	data, err := os.ReadFile(p.Path(rel))
	require.NoError(t, err)
	return string(data)
}

func writeFile(t *testing.T, p Project, rel, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(p.Path(rel), []byte(text), 0o644))
}

func TestFullDisk(t *testing.T) {
	docker := dockertest.Connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	appendTo(t, p, p.Dockerfile, "RUN echo another > /image\n")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "BERTH_TEST_BUILD="+p.Root, "BERTH_TEST_TAG="+tag, "BERTH_CACHE="+t.TempDir(), "BERTH_TEST_CACHE_SIZE=32m")
	// Only in namespaces of its own may anybody mount a small file system.
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 77 {
		testenv.Skip(t, testenv.Namespaces, "this kernel gives none: %v %s", err, out)
	}
	assert.Contains(t, string(out), "no space left on device")
	assert.Contains(t, string(out), "name another folder in BERTH_CACHE")
	_, err = docker.Image(t.Context(), tag)
	assert.ErrorIs(t, err, daemon.ErrNotFound)
}

func TestDockerNotRunning(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "docker.sock"))
	_, err := Build(t.Context(), project, BuildOptions{})
	require.ErrorIs(t, err, daemon.ErrUnavailable)
	assert.Same(t, trouble.DockerStopped, advice.Row(err))
	assert.Equal(t, ExitPrerequisite, ExitCode(err))
}
