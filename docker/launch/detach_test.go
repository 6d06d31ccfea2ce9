package launch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/display"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestLastsBeyondTheTerminal closes the terminal of a detached launch.
func TestLastsBeyondTheTerminal(t *testing.T) { asEverybody(t, beyondTheTerminal) }

func beyondTheTerminal(t *testing.T, p *person) {
	held := filepath.Join(p.options.Root, "lease")
	p.env = append(p.env, "BERTH_TEST_HELD="+held)
	s := p.openTerminal(func(o *Options) {
		o.Detach, o.Command = true, "seq 20000; echo begun >&2; "+until("over")+"seq 20000; exit 42"
	}, 24, 80)
	name := p.options.Project + "-" + strings.TrimSpace(func() string { s.expect(p.options.Project + "-"); return s.expect("\r\n") }())
	p.stopIfFailed(name)
	require.NoError(t, s.tty.Close())
	s.code() // it may still be about to end, and gets HUP then

	running := p.launches()
	require.Len(t, running, 1)
	assert.Equal(t, "running", running[0].State)
	assert.True(t, running[0].Own && running[0].Lasting)
	eventually(t, func() bool { return p.say("logs").err == "begun\n" }, "no output")
	assert.True(t, locked(t, held), "the lease is lost")
	assert.Equal(t, "[] []\n", p.say("sweep").out, "it lives")
	pid := dockertest.LiveKeeper(t, name)
	session, err := unix.Getsid(pid)
	require.NoError(t, err)
	assert.Equal(t, pid, session)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		require.NoError(t, syscall.Kill(pid, sig))
	}

	// While somebody follows.
	follower := p.verb("logs " + name + " all follow")
	var followed bytes.Buffer
	follower.Stdout = &followed
	require.NoError(t, follower.Start())
	assert.True(t, locked(t, held), "HUP or INT ended the keeper")
	p.touch("over")
	l := p.ended(name)
	assert.False(t, locked(t, held), "the lease outlasts the launch")
	require.NotNil(t, l.Code)
	assert.Equal(t, 42, *l.Code)
	var numbers strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&numbers, i+1)
	}
	require.NoError(t, follower.Wait())
	assert.True(t, numbers.String()+numbers.String() == followed.String(), "%d bytes were followed", followed.Len())
	r := p.say("logs " + name)
	assert.True(t, numbers.String()+numbers.String() == r.out, "%d bytes were kept", len(r.out))
	assert.Equal(t, "begun\n", r.err)
	assert.Equal(t, result{"19999\n20000\n", "", 0}, p.say("logs "+name+" 2"))
	eventually(t, func() bool { return dockertest.Keeper(t, name) == 0 }, "the keeper stays")
}

// TestLastsBeyondAKilledParent kills the command that starts detached launches at random
// moments: there is a launch then, or there is none, and in the end nothing is left.
func TestLastsBeyondAKilledParent(t *testing.T) {
	p := newPerson(t)
	rounds := 8
	if testenv.Long() {
		rounds = 100
	}
	whole := 0
	for i := range rounds {
		name := dockertest.Name(t)
		c := p.launch(func(o *Options) { o.Detach, o.Name, o.Network, o.Command = true, name, "none", "echo whole" })
		require.NoError(t, c.Start())
		delay := rand.N([]time.Duration{200 * time.Millisecond, 1200 * time.Millisecond}[i%2])
		time.Sleep(delay)
		c.Process.Kill()
		c.Wait()
		t.Logf("after %s: %s", delay, c.ProcessState)
		eventually(t, func() bool { return dockertest.Keeper(t, name) == 0 }, "the keeper stays")
		_, err := dockertest.Connect(t).Inspect(t.Context(), name)
		assert.ErrorIs(t, err, daemon.ErrNotFound, "killed after %s", delay)
		dir := cache.Dir(p.cache)
		all, err := owned.AllEnded(dir)
		require.NoError(t, err)
		if i := slices.IndexFunc(all, func(e owned.Ended) bool { return e.Name == name }); i >= 0 {
			whole++
			assert.Equal(t, 0, all[i].Code)
			assert.Equal(t, "whole\n", p.say("logs "+name).out)
		}
		p.say("sweep") // what it had begun before there was a keeper
		assert.Empty(t, entries(t, dir.Path("tmp")), "killed after %s", delay)
	}
	t.Logf("%d of %d launches went on", whole, rounds)
}

// TestLastsBeyondTheDaemon restarts dockerd under a detached launch.
func TestLastsBeyondTheDaemon(t *testing.T) {
	host, _, restart := dockertest.RestartableDocker(t, "--live-restore")
	p := newPerson(t)
	p.options.Network = "none"
	held := filepath.Join(p.options.Root, "lease")
	p.env = append(p.env, "DOCKER_HOST="+host, "BERTH_TEST_HELD="+held)
	name := p.detach("seq 1000; echo begun >&2; " + until("over") + "seq 1000; exit 42")
	eventually(t, func() bool { return p.say("logs").err == "begun\n" }, "no output")
	pid := dockertest.LiveKeeper(t, name)
	follower := p.verb("logs " + name + " 10 follow")
	var complaint bytes.Buffer
	follower.Stderr = &complaint
	followed, err := follower.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, follower.Start())
	_, err = io.ReadFull(followed, make([]byte, 5)) // it has begun: a number, and the end of its line
	require.NoError(t, err)
	restart()
	running := p.launches()
	require.Len(t, running, 1)
	assert.Equal(t, "running", running[0].State, "the container ended with dockerd")
	assert.Equal(t, pid, dockertest.Keeper(t, name))
	assert.True(t, locked(t, held), "the lease is lost")
	p.touch("over")
	l := p.ended(name)
	require.NotNil(t, l.Code)
	assert.Equal(t, 42, *l.Code)
	assert.False(t, locked(t, held), "the lease outlasts the launch")
	rest, err := io.ReadAll(followed)
	require.NoError(t, err)
	require.NoError(t, follower.Wait(), complaint.String())
	assert.GreaterOrEqual(t, bytes.Count(rest, []byte{'\n'}), 1008, "a follower stays, too")
	assert.True(t, bytes.HasSuffix(rest, []byte("\n999\n1000\n")))
	r := p.say("logs " + name)
	assert.Equal(t, 2000, strings.Count(r.out, "\n"))
	assert.Equal(t, "begun\n", r.err)
}

// TestEndsWithTheDaemon restarts a dockerd that takes its containers along.
func TestEndsWithTheDaemon(t *testing.T) {
	host, _, restart := dockertest.RestartableDocker(t)
	p := newPerson(t)
	p.options.Network = "none"
	p.env = append(p.env, "DOCKER_HOST="+host)
	name := p.detach("trap 'exit 6' TERM; echo begun; while :; do sleep 0.05; done")
	eventually(t, func() bool { return p.say("logs").out == "begun\n" }, "no output")
	restart()
	eventually(t, func() bool { return dockertest.Keeper(t, name) == 0 }, "the keeper doesn't end")
	l := p.ended(name)
	require.NotNil(t, l.Code)
	assert.Equal(t, 6, *l.Code)
	assert.Equal(t, "begun\n", p.say("logs").out)
}

// TestKilledKeeper leaves a launch without a keeper: it goes on, nobody removes it, and
// the next command after its end saves what it wrote.
func TestKilledKeeper(t *testing.T) {
	p := newPerson(t)
	name := p.detach("echo begun; " + until("over") + "echo ended; grep -c ^root: /etc/passwd; exit 9")
	pid := dockertest.LiveKeeper(t, name)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return dockertest.Keeper(t, name) == 0 }, "it isn't dead")
	assert.Equal(t, "[] []\n", p.say("sweep").out, "it lives")
	assert.Equal(t, result{code: 0}, p.run("true", ""), "another launch disturbs nothing")
	assert.Equal(t, []string{name}, p.containers())
	p.touch("over")
	d := dockertest.Connect(t)
	eventually(t, func() bool {
		s, err := d.Inspect(t.Context(), name)
		require.NoError(t, err)
		return s.Ended()
	}, "it doesn't end")
	assert.Equal(t, "[container "+name+"] []\n", p.say("sweep").out)
	l := p.ended(name)
	require.NotNil(t, l.Code)
	assert.Equal(t, 9, *l.Code)
	assert.Equal(t, "begun\nended\n1\n", p.say("logs").out)
	assert.Equal(t, "[] []\n", p.say("sweep").out)
}

// TestKeeperEndsTheLaunch sends the keeper TERM, as a machine that goes down does.
func TestKeeperEndsTheLaunch(t *testing.T) {
	p := newPerson(t)
	name := p.detach("trap 'echo asked; exit 3' TERM; echo begun; while :; do sleep 0.05; done")
	eventually(t, func() bool { return p.launches()[0].LastLine == "begun" }, "no last line")
	require.NoError(t, syscall.Kill(dockertest.LiveKeeper(t, name), syscall.SIGTERM))
	l := p.ended(name)
	require.NotNil(t, l.Code)
	assert.Equal(t, 3, *l.Code)
	assert.Equal(t, "begun\nasked\n", p.say("logs").out)
}

// TestRemovedByOthers has the container removed without Berth.
func TestRemovedByOthers(t *testing.T) {
	p := newPerson(t)
	name := p.detach("sleep 1000")
	require.NoError(t, dockertest.Connect(t).Remove(t.Context(), name))
	l := p.ended(name)
	assert.Equal(t, "lost", l.State)
	assert.Nil(t, l.Code)
}

func TestDetachReportsWhatIsWrong(t *testing.T) {
	p := newPerson(t)
	for what, c := range map[string]struct {
		change func(*Options)
		code   int
		says   string
	}{
		"the network": {func(o *Options) { o.Network = "no-such-network" }, ExitDaemon, "docker network ls"},
		"the mount":   {func(o *Options) { o.Mounts = "/no/such/folder:/data" }, ExitDaemon, "no such file or folder on the host"},
	} {
		r := p.runWith(func(o *Options) {
			o.Detach = true
			c.change(o)
		}, "")
		assert.Equal(t, c.code, r.code, what)
		assert.Contains(t, r.err, c.says, what)
		assert.Empty(t, r.out, what)
	}
	name := p.detach("sleep 1000")
	r := p.runWith(func(o *Options) { o.Detach, o.Name = true, name }, "")
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "the name "+name+" is taken")
	assert.Equal(t, "stopped "+name+": exit code 143\n", p.say("stop").out)
}

// TestOrderIsWhole sends plans through JSON, as keepers get them: with the host's
// secrets, which the plan's own JSON leaves out.
func TestOrderIsWhole(t *testing.T) {
	h, o := workstation(), options()
	o.Env, o.Ports, o.Mounts, o.GPUs, o.Detach, o.Command = "A=1,TOKEN", "8888,0.0.0.0:53:53/udp", "/mnt/data:/data:ro", "all", true, "true"
	h.User.Gecos = "Andr\xe9"
	h.Display.X11 = h.Display.X11.WithCookie([]byte("cookie"))
	for _, gui := range []string{"x11", "wayland", "off"} {
		o.GUI = gui
		p, err := NewPlan(h, o)
		require.NoError(t, err)
		text, err := json.Marshal(newOrder(p, 2))
		require.NoError(t, err)
		var back order
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, p, back.plan())
		assert.Equal(t, 2, back.Held)
		if gui == "x11" {
			assert.Equal(t, display.X11, back.plan().Display.Kind)
			assert.Equal(t, []byte("cookie"), back.plan().Display.Cookie())
		}
	}
}
