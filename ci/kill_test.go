package ci

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
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
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestKilledCommandsLeaveNothing kills commands at random moments, spread over the
// time that each takes. One clean later there is nothing of theirs, and the next
// build gives the right image.
func TestKilledCommandsLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts engines")
	}
	docker := dockertest.Connect(t)
	dir := ownCache(t)
	p := checkout(t, 0o022)
	tag := newTag(t, docker)
	want := build(t, p, tag)
	binary, err := compiled()
	require.NoError(t, err)

	type command struct {
		args  string
		kills int
		whole time.Duration // that it takes, if nobody kills it
	}
	commands := []command{
		{"run -cmd=true -t=" + tag, 4, 500 * time.Millisecond},
		{"build -t=" + tag, 3, 5 * time.Second},
		{"smoke", 1, 4 * time.Second},
		{"verify", 1, 30 * time.Second},
		{"pin", 1, 15 * time.Second},
	}
	if testenv.Long() {
		for i, kills := range []int{80, 60, 25, 20, 15} {
			commands[i].kills = kills
		}
	}
	locks := map[string]string{} // which a killed pin may have moved, whole
	for _, name := range []string{lockFile, p.BaseDigest, goLockFile} {
		locks[name] = readFile(t, p, name)
	}
	inputs := []string{want.Inputs}
	before := leftovers(t, docker, dir, p, inputs)
	struck, total := 0, 0
	for _, c := range commands {
		for i := range c.kills {
			if strings.HasPrefix(c.args, "build") {
				appendTo(t, p, p.Dockerfile, fmt.Sprintf("RUN echo %d > /killed\n", i)) // something to do
				in, err := ReadInputs(p)
				require.NoError(t, err)
				inputs = append(inputs, in.Hash)
			}
			total++
			moment := time.Duration(float64(c.whole) * (float64(i) + rand.Float64()) / float64(c.kills))
			child := exec.Command(binary, strings.Fields(c.args)...)
			child.Dir = p.Root
			var said bytes.Buffer
			child.Stderr = &said
			require.NoError(t, child.Start())
			kill := time.AfterFunc(moment, func() { child.Process.Kill() })
			err := child.Wait()
			kill.Stop()
			if err == nil {
				t.Logf("%s had ended before %s", c.args, moment)
				continue
			}
			lines := strings.Split(strings.TrimSpace(said.String()), "\n")
			require.Equal(t, -1, child.ProcessState.ExitCode(), "it failed by itself: %s", &said)
			struck++
			t.Logf("%s was killed after %s: %s", c.args, moment, lines[len(lines)-1])
		}
	}
	assert.GreaterOrEqual(t, 2*struck, total, "most commands ended before they were killed: nothing was tried")

	out, stderr, code := berth(t, p.Root, nil, "clean")
	require.Zero(t, code, stderr)
	t.Logf("clean:\n%s", out)
	assert.Subset(t, before, leftovers(t, docker, dir, p, inputs))
	for name, text := range locks {
		writeFile(t, p, name, text)
	}
	assert.Equal(t, want.Digest, build(t, checkout(t, 0o022), tag).Digest)
}

// leftovers is everything that commands with that cache, checkout and inputs could
// leave behind, the engine for builds apart, which stays.
func leftovers(t *testing.T, docker *daemon.Client, dir cache.Dir, p Project, inputs []string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir.Path("tmp"))
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, "temporary "+e.Name())
	}
	for _, folder := range []string{string(dir), p.Root} {
		require.NoError(t, filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, ".berth-part") {
				all = append(all, "half a file "+path)
			}
			return err
		}))
	}
	locks, err := os.ReadDir(dir.Path("locks"))
	require.NoError(t, err)
	for _, e := range locks {
		if strings.HasPrefix(e.Name(), "ephemeral") {
			all = append(all, "lock "+e.Name())
		}
	}
	engine := os.Getenv("BERTH_ENGINE")
	containers, err := docker.Containers(t.Context())
	require.NoError(t, err)
	for _, c := range containers {
		if strings.HasPrefix(c.Name, dockertest.Process) && c.Name != engine {
			all = append(all, "container "+c.Name)
		}
	}
	volumes, err := docker.Volumes(t.Context())
	require.NoError(t, err)
	for _, v := range volumes {
		if strings.HasPrefix(v, dockertest.Process) && !strings.HasPrefix(v, engine+"-v") {
			all = append(all, "volume "+v)
		}
	}
	images, err := docker.Images(t.Context(), daemon.LabelInputs)
	require.NoError(t, err)
	for _, id := range images {
		i, err := docker.Image(t.Context(), id)
		if err == nil && len(i.Tags) == 0 && slices.Contains(inputs, i.Labels[daemon.LabelInputs]) {
			all = append(all, "image "+id)
		}
	}
	return all
}
