package owned

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestMain lets the test binary play a process that makes things in Docker, says
// so, and waits to be killed.
func TestMain(m *testing.M) {
	text := os.Getenv("BERTH_TEST_MAKE")
	if text == "" {
		os.Exit(dockertest.Main(m))
	}
	var w work
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		panic(err)
	}
	if err := w.do(); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("done\n")
	io.Copy(io.Discard, os.Stdin) // until the test dies
}

// A work is what a process makes in Docker.
type work struct {
	Image, Name, Volume string
	Start               bool
}

func (w work) do() error {
	dir, err := cache.Open()
	if err != nil {
		return err
	}
	docker, err := daemon.Connect(context.Background())
	if err != nil {
		return err
	}
	scope, err := Claim(dir, docker, "run")
	if err != nil {
		return err
	}
	if w.Volume != "" {
		if err := scope.Volume(context.Background(), w.Volume, nil); err != nil {
			return err
		}
	}
	id, err := scope.Container(context.Background(), daemon.Container{
		Image: w.Image, Name: w.Name, Command: []string{"sleep", "1000"}, Network: "none", Init: true,
		Labels: map[string]string{daemon.LabelRole: "test"},
	})
	if err != nil || !w.Start {
		return err
	}
	if err := docker.Start(context.Background(), id); err != nil {
		return err
	}
	scope.NoteDaemon(context.Background())
	scope.noting.Wait()
	return nil
}

// A child is a process that does some work.
type child struct {
	*exec.Cmd
	stdin io.Closer
	work  work
	done  chan struct{} // closed when the work is done, or the process is gone
	said  bytes.Buffer
}

func start(t *testing.T, dir cache.Dir, w work) *child {
	t.Helper()
	text, err := json.Marshal(w)
	require.NoError(t, err)
	c := &child{Cmd: exec.Command(os.Args[0]), work: w, done: make(chan struct{})}
	c.Env = append(os.Environ(), "BERTH_TEST_MAKE="+string(text), "BERTH_CACHE="+string(dir))
	c.Stderr = &c.said
	c.stdin, err = c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	go func() {
		defer close(c.done)
		bufio.NewReader(out).ReadString('\n')
	}()
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	c.Process.Kill()
	c.Wait()
}

// A world is a daemon with things of others in it, which must stay.
type world struct {
	*testing.T
	docker *daemon.Client
	random *rand.Rand
	shell  string   // an image
	images []string // of others, with labels of ours that they inherited or were given
	others []string // IDs of containers of others in this scenario
	state  map[string]string
}

// labels are what Berth puts on things, with a claim's name.
func labels(claim string) map[string]string {
	return map[string]string{
		daemon.LabelRole: "run", daemon.LabelOwner: Owner(), daemon.LabelLaunch: "1a2b3c4d", daemon.LabelClaim: claim,
		daemon.LabelInputs: strings.Repeat("a", 64),
	}
}

// some returns a random part of the labels.
func (w *world) some(all map[string]string) map[string]string {
	part := map[string]string{}
	for k, v := range all {
		if w.random.IntN(2) == 0 {
			part[k] = v
		}
	}
	return part
}

// foreign makes a container of somebody else's.
func (w *world) foreign(claims []string) {
	spec := daemon.Container{Image: w.shell, Command: []string{"sleep", "1000"}, Network: "none", Name: dockertest.Name(w)}
	if w.random.IntN(3) > 0 {
		spec.Image = w.images[w.random.IntN(len(w.images))]
	}
	claim := "run-0123456789abcdef"
	if len(claims) > 0 && w.random.IntN(2) == 0 {
		claim = claims[w.random.IntN(len(claims))]
	}
	spec.Labels = w.some(labels(claim))
	id, err := w.docker.Create(context.Background(), spec)
	require.NoError(w, err)
	w.others = append(w.others, id)
	w.state[id] = "created"
	if w.random.IntN(3) == 0 {
		require.NoError(w, w.docker.Start(context.Background(), id))
		w.state[id] = "running"
	}
}

func (w *world) removeForeign() {
	for _, id := range w.others {
		assert.NoError(w, w.docker.Remove(context.Background(), id))
	}
	w.others = nil
}

// commit makes an image of a container, as a person would, with changes.
func (w *world) commit(container string, changes ...string) string {
	args := []string{"commit"}
	for _, c := range changes {
		args = append(args, "--change="+c)
	}
	out, err := exec.Command("docker", append(args, container)...).CombinedOutput()
	require.NoError(w, err, string(out))
	image := strings.TrimSpace(string(out))
	w.Cleanup(func() { assert.NoError(w, w.docker.RemoveImage(context.Background(), image)) })
	return image
}

// notes are the files that say what is whose, below a cache.
func notes(t *testing.T, dir cache.Dir) []string {
	files, err := filepath.Glob(dir.Path("tmp", "*", ".notes"))
	require.NoError(t, err)
	return files
}

// damage changes a file as a failing disk or a careless person may.
func (w *world) damage(name string) string {
	content, err := os.ReadFile(name)
	require.NoError(w, err)
	switch kind := w.random.IntN(5); {
	case kind == 0:
		require.NoError(w, os.Remove(name))
		return "removed"
	case kind == 1 || len(content) == 0:
		require.NoError(w, os.WriteFile(name, append(content, "garbage"...), 0o600))
		return "appended to"
	case kind == 2:
		require.NoError(w, os.WriteFile(name, content[:w.random.IntN(len(content))], 0o600))
		return "cut"
	case kind == 3:
		require.NoError(w, os.Remove(filepath.Dir(name)+".lock"))
		return "without its lock"
	default:
		content[w.random.IntN(len(content))] ^= 1 << w.random.IntN(8)
		require.NoError(w, os.WriteFile(name, content, 0o600))
		return "flipped"
	}
}

// TestOnlyWhatIsOursIsRemoved is a property: whatever labels containers of others
// have, by inheritance or by hand, whatever became of our records, and whenever
// processes of ours were killed, a sweep removes nothing of others and nothing that
// lives; and where the records are whole, everything of the dead.
func TestOnlyWhatIsOursIsRemoved(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many containers")
	}
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	seed, scenarios := rand.Uint64(), 25
	if testenv.Long() {
		scenarios = 1000
	}
	t.Logf("seed %d", seed)
	w := &world{T: t, docker: dockertest.Connect(t), random: rand.New(rand.NewPCG(seed, 0)), shell: dockertest.Shell(t),
		state: map[string]string{}}
	t.Cleanup(w.removeForeign)

	// Images that were committed from a launch inherit its labels; others take some back.
	ours := dockertest.Cache(t)
	launched := start(t, ours, work{Image: w.shell, Name: dockertest.Name(t)})
	<-launched.done
	w.images = append(w.images,
		w.commit(launched.work.Name),
		w.commit(launched.work.Name, "LABEL "+daemon.LabelClaim+"=", "ENV A=b"),
		w.commit(launched.work.Name, "LABEL "+daemon.LabelRole+"=run", "LABEL "+daemon.LabelInputs+"=feed"))
	launched.kill()
	_, err := Sweep(t.Context(), ours, w.docker, true)
	require.NoError(t, err)

	next := make(chan int)
	go func() {
		defer close(next)
		for i := range scenarios {
			next <- i
		}
	}()
	var atOnce sync.WaitGroup
	for range 8 { // they wait for Docker most of the time
		atOnce.Go(func() {
			for i := range next {
				t.Run(fmt.Sprint(i), func(t *testing.T) {
					w := &world{T: t, docker: w.docker, random: rand.New(rand.NewPCG(seed, uint64(i)+1)), shell: w.shell, images: w.images,
						state: map[string]string{}}
					t.Cleanup(w.removeForeign)
					w.runScenario()
				})
			}
		})
	}
	atOnce.Wait()
}

// runScenario runs one random scenario.
func (w *world) runScenario() {
	t := w.T
	dir, err := cache.OpenAt(filepath.Join(t.TempDir(), "cache"))
	require.NoError(t, err)
	var dead, living []*child
	var what []string
	for range w.random.IntN(3) {
		c := start(t, dir, work{Image: w.shell, Name: dockertest.Name(t), Start: w.random.IntN(2) == 0,
			Volume: ifSo(w.random.IntN(4) == 0, dockertest.Name(t))})
		dead = append(dead, c)
		what = append(what, "a dead process")
	}
	if w.random.IntN(2) == 0 {
		c := start(t, dir, work{Image: w.shell, Name: dockertest.Name(t), Start: true})
		living = append(living, c)
		<-c.done
		what = append(what, "a living process")
	}
	for _, c := range dead {
		if w.random.IntN(2) == 0 {
			<-c.done
		} else {
			time.Sleep(time.Duration(w.random.IntN(int(120 * time.Millisecond))))
			what = append(what, "killed while it worked")
		}
		c.kill()
	}
	var claims []string
	for _, n := range notes(t, dir) {
		claims = append(claims, filepath.Base(filepath.Dir(n)))
	}
	for range 1 + w.random.IntN(3) {
		w.foreign(claims)
	}
	whole := true
	sweeping := dir
	switch files := notes(t, dir); w.random.IntN(4) {
	case 0:
		if len(files) > 0 {
			whole = false
			what = append(what, "a record "+w.damage(files[w.random.IntN(len(files))]))
		}
	case 1: // as from a mount namespace that doesn't have it
		whole = false
		what = append(what, "another cache")
		sweeping, err = cache.OpenAt(filepath.Join(t.TempDir(), "cache"))
		require.NoError(t, err)
	case 2:
		whole = false
		what = append(what, "the cache removed")
		require.NoError(t, os.RemoveAll(string(dir)))
	}
	note := strings.Join(what, ", ")

	_, err = Sweep(t.Context(), sweeping, w.docker, true)
	require.NoError(t, err, note)
	for _, id := range w.others {
		s, err := w.docker.Inspect(t.Context(), id)
		if assert.NoError(t, err, note) {
			assert.Equal(t, w.state[id], s.State, note)
		}
	}
	for _, c := range living {
		s, err := w.docker.Inspect(t.Context(), c.work.Name)
		if assert.NoError(t, err, note) {
			assert.Equal(t, "running", s.State, note)
		}
		c.kill()
	}
	if whole {
		_, err = Sweep(t.Context(), dir, w.docker, true)
		require.NoError(t, err, note)
		_, err = cache.OpenAt(string(dir))
		require.NoError(t, err)
		left, err := os.ReadDir(dir.Path("tmp"))
		require.NoError(t, err)
		assert.Empty(t, left, note)
	}
	for _, c := range append(dead, living...) {
		_, err := w.docker.Inspect(t.Context(), c.work.Name)
		if whole {
			assert.ErrorIs(t, err, daemon.ErrNotFound, note)
		}
		assert.NoError(t, w.docker.Remove(context.Background(), c.work.Name))
		if c.work.Volume != "" {
			_, err = w.docker.Volume(t.Context(), c.work.Volume)
			if whole {
				assert.ErrorIs(t, err, daemon.ErrNotFound, note)
			}
			assert.NoError(t, w.docker.RemoveVolume(context.Background(), c.work.Volume))
		}
	}
}

func ifSo(so bool, text string) string {
	if so {
		return text
	}
	return ""
}

// TestAnotherDaemonAtTheAddress keeps the record of what is in a daemon that isn't
// the one that answers now.
func TestAnotherDaemonAtTheAddress(t *testing.T) {
	dir, docker := dockertest.Cache(t), dockertest.Connect(t)
	claim, err := dir.Claim("run")
	require.NoError(t, err)
	defer claim.Release()
	o := object{address: docker.Host(), daemon: "somebody else", container: container{ID: strings.Repeat("a", 64), Name: "x"}}
	_, gone, err := o.remove(t.Context(), docker, "run-0123456789abcdef", true)
	require.NoError(t, err)
	assert.False(t, gone)
	o.daemon, err = docker.ID(t.Context())
	require.NoError(t, err)
	_, gone, err = o.remove(t.Context(), docker, "run-0123456789abcdef", true)
	require.NoError(t, err)
	assert.True(t, gone)
}

func TestObjects(t *testing.T) {
	at := time.Now().UTC()
	lines := func(notes ...note) (all []json.RawMessage) {
		for _, n := range notes {
			data, err := json.Marshal(n)
			require.NoError(t, err)
			all = append(all, data)
		}
		return all
	}
	about, made := container{Name: "n", At: at}, container{ID: "f00", Name: "n", At: at}
	for name, c := range map[string]struct {
		notes []json.RawMessage
		want  []object
	}{
		"nothing":  {nil, nil},
		"about to": {lines(note{Address: "a", Container: &about}), []object{{address: "a", container: about}}},
		"made": {lines(note{Address: "a", Container: &about}, note{Address: "a", Container: &made}),
			[]object{{address: "a", container: made}}},
		"first damaged": {lines(note{Address: "a", Container: &made}), []object{{address: "a", container: made}}},
		"in this daemon": {lines(note{Address: "a", Container: &made}, note{Address: "a", Daemon: "d"}),
			[]object{{address: "a", daemon: "d", container: made}}},
		"volume first": {
			lines(note{Address: "a", Volume: "v"}, note{Address: "a", Container: &about}, note{Address: "a", Container: &made}),
			[]object{{address: "a", container: made}, {address: "a", volume: "v"}},
		},
		"of the future": {[]json.RawMessage{json.RawMessage(`{"address":"a","pod":"x"}`), json.RawMessage(`7`)}, nil},
	} {
		assert.Equal(t, c.want, objects(c.notes), name)
	}
}
