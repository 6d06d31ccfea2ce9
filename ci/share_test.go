package ci

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestSecondPerson lets another user of the machine, who has an empty cache and no
// Go, run the image that the first one built, from their own checkout.
func TestSecondPerson(t *testing.T) {
	docker := dockertest.Connect(t)
	testenv.NeedsRoot(t, "become somebody else")
	first := build(t, checkout(t, 0o022), newTag(t, docker))
	binary, err := compiled()
	require.NoError(t, err)
	socket, err := os.Stat("/var/run/docker.sock")
	if err != nil {
		testenv.Skip(t, testenv.DockerSocket, "%v", err)
	}

	p := checkout(t, 0o022)
	home := t.TempDir()
	program := filepath.Join(home, "berth")
	copyTo(t, program, binary)
	const uid = 54321
	require.NoError(t, exec.Command("chown", "-R", fmt.Sprintf("%d:%d", uid, uid), p.Root, home).Run())
	for _, dir := range []string{p.Root, home} { // the folders above are the test's own, and closed
		for ; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
	}
	second := func(args ...string) (string, time.Duration) {
		c := exec.Command(program, args...)
		c.Dir = p.Root
		c.Env = []string{"HOME=" + home, "PATH=/nowhere", "USER=second"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid,
			Groups: []uint32{socket.Sys().(*syscall.Stat_t).Gid}}}
		var said strings.Builder
		c.Stderr = &said
		start := time.Now()
		out, err := c.Output()
		took := time.Since(start)
		require.NoError(t, err, said.String())
		t.Logf("%s: %s", args, took)
		return string(out), took
	}
	out, _ := second("run", "-net=host", "-cmd=id -u; echo $BERTH_IMAGE_DIGEST")
	assert.Equal(t, fmt.Sprintf("%d\n%s\n", uid, first.Digest), out, "the digest is computed from what the image says of itself")
	out, _ = second("build")
	assert.Contains(t, out, first.Digest+" (up to date)")

	// Their clean-up doesn't touch what the first one has.
	second("clean")
	_, err = docker.Image(t.Context(), first.Image)
	assert.NoError(t, err)
}

func copyTo(t *testing.T, to, from string) {
	t.Helper()
	in, err := os.Open(from)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

// TestForgedImage gives an image of others the labels of the project's: it isn't
// taken for it.
func TestForgedImage(t *testing.T) {
	docker := dockertest.Connect(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	first := build(t, p, tag)
	id, err := docker.Create(t.Context(), daemon.Container{Name: dockertest.Name(t), Image: first.ID, Command: []string{"true"}})
	require.NoError(t, err)
	t.Cleanup(func() { docker.Remove(context.Background(), id) })
	forged := dockertest.Name(t) + ":latest"
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	out, err := exec.Command("docker", "commit", "--change=ENV PATH=/planted", id, forged).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, docker.Remove(t.Context(), id))
	t.Cleanup(func() { docker.RemoveImage(context.Background(), forged) })
	have, err := docker.Image(t.Context(), forged)
	require.NoError(t, err)
	t.Cleanup(func() { docker.RemoveImage(context.Background(), have.ID) }) // when it has lost its name
	require.Equal(t, first.Inputs, have.Labels[daemon.LabelInputs])

	got := build(t, p, forged)
	assert.Equal(t, first.ID, got.ID, "a forged image passed for the project's")
}
