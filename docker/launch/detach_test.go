package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/testenv"
)

// playVerb is what a person types in another terminal: "logs NAME TAIL", for example.
func playVerb(verb string) (int, error) {
	words := append(strings.Split(verb, " "), "", "", "")
	ctx, stop := signals.NotifyContext(context.Background())
	defer stop()
	d, err := daemon.Connect(ctx)
	if err != nil {
		return ExitDaemon, err
	}
	defer d.Close()
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	switch words[0] {
	case "logs":
		return 0, Logs(ctx, d, words[1], words[2], words[3] == "follow", s)
	case "attach":
		return Attach(ctx, d, words[1], s)
	case "shell":
		return Shell(ctx, d, words[1], strings.TrimSpace(strings.Join(words[2:], " ")), s)
	case "stop":
		stopped, err := Stop(ctx, d, words[1], words[1] == "", s)
		for _, l := range stopped {
			fmt.Println(l.Stopped())
		}
		if err != nil {
			return ExitDaemon, err
		}
		return 0, nil
	case "ps":
		all, err := List(ctx, d, words[1] == "all", s)
		if err != nil {
			return ExitDaemon, err
		}
		return 0, json.NewEncoder(os.Stdout).Encode(all)
	case "sweep":
		dir, err := cache.Open()
		if err != nil {
			return ExitDaemon, err
		}
		swept, err := owned.Sweep(ctx, dir, d, true)
		fmt.Println(swept.Removed, swept.Left)
		return 0, err
	}
	return ExitDaemon, fmt.Errorf("nobody types %q", verb)
}

// verb returns the process of what the person types in another terminal.
func (p *person) verb(verb string) *exec.Cmd {
	c := p.launch(nil)
	c.Env = slices.Concat(p.env, []string{"BERTH_TEST_VERB=" + verb})
	return c
}

// say returns what the person gets for it.
func (p *person) say(verb string) result {
	p.t.Helper()
	c := p.verb(verb)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		require.IsType(p.t, &exec.ExitError{}, err)
	}
	return result{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

// launches lists the person's launches of this test.
func (p *person) launches() (ours []Launch) {
	p.t.Helper()
	r := p.say("ps all")
	require.Empty(p.t, r.err)
	var all []Launch
	require.NoError(p.t, json.Unmarshal([]byte(r.out), &all))
	for _, l := range all {
		if strings.HasPrefix(l.Name, p.options.Project) {
			ours = append(ours, l)
		}
	}
	return ours
}

// detach starts a lasting launch and returns its name.
func (p *person) detach(line string) string {
	p.t.Helper()
	r := p.runWith(func(o *Options) { o.Detach, o.Command = true, line }, "")
	require.Equal(p.t, 0, r.code, r.err)
	name := strings.TrimSpace(r.out)
	require.Contains(p.t, p.containers(), name)
	p.stopIfFailed(name)
	return name
}

// stopIfFailed ends a launch that a failed test leaves.
func (p *person) stopIfFailed(name string) {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.say("stop " + name)
		}
	})
}

// touch does what the commands of these tests wait for.
func (p *person) touch(name string) {
	require.NoError(p.t, os.WriteFile(filepath.Join(p.options.Root, name), nil, 0o644))
}

// until waits for the file that touch makes.
func until(name string) string { return "until [ -e " + name + " ]; do sleep 0.02; done; " }

// eventually waits long enough for a busy machine.
func eventually(t *testing.T, is func() bool, what string) {
	t.Helper()
	require.Eventually(t, is, 30*time.Second, 20*time.Millisecond, what)
}

// ended waits until the only launch of that name has ended and is saved.
func (p *person) ended(name string) (l Launch) {
	p.t.Helper()
	eventually(p.t, func() bool {
		all := p.launches()
		i := slices.IndexFunc(all, func(l Launch) bool { return l.Name == name && l.State != "running" })
		if i >= 0 {
			l = all[i]
		}
		return i >= 0 && len(p.containers()) == 0
	}, "the launch doesn't end")
	return l
}

// keeperOf returns the process that keeps a launch, 0 if there is none.
func keeperOf(t *testing.T, name string) int {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && string(line) == "berth-keeper\x00"+name+"\x00" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			require.NoError(t, err)
			return pid
		}
	}
	return 0
}

// locked reports whether somebody holds the lock of a file.
func locked(t *testing.T, name string) bool {
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		require.NoError(t, err)
	}
	return err != nil
}

// TestLastsBeyondTheTerminal closes the terminal of a launch that lasts.
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
	pid := keeperOf(t, name)
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
	eventually(t, func() bool { return keeperOf(t, name) == 0 }, "the keeper stays")
}

// TestLastsBeyondAKilledParent kills the command that starts lasting launches at random
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
		eventually(t, func() bool { return keeperOf(t, name) == 0 }, "the keeper stays")
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

// TestLastsBeyondTheDaemon restarts dockerd under a lasting launch.
func TestLastsBeyondTheDaemon(t *testing.T) {
	host, _, restart := restartableDocker(t, "--live-restore")
	p := newPerson(t)
	p.options.Network = "none"
	held := filepath.Join(p.options.Root, "lease")
	p.env = append(p.env, "DOCKER_HOST="+host, "BERTH_TEST_HELD="+held)
	name := p.detach("seq 1000; echo begun >&2; " + until("over") + "seq 1000; exit 42")
	eventually(t, func() bool { return p.say("logs").err == "begun\n" }, "no output")
	pid := keeperOf(t, name)
	restart()
	eventually(t, func() bool {
		d, err := daemon.ConnectTo(t.Context(), host)
		if err == nil {
			d.Close()
		}
		return err == nil
	}, "dockerd doesn't come back")
	running := p.launches()
	require.Len(t, running, 1)
	assert.Equal(t, "running", running[0].State, "the container ended with dockerd")
	assert.Equal(t, pid, keeperOf(t, name))
	assert.True(t, locked(t, held), "the lease is lost")
	p.touch("over")
	l := p.ended(name)
	require.NotNil(t, l.Code)
	assert.Equal(t, 42, *l.Code)
	assert.False(t, locked(t, held), "the lease outlasts the launch")
	r := p.say("logs " + name)
	assert.Equal(t, 2000, strings.Count(r.out, "\n"))
	assert.Equal(t, "begun\n", r.err)
}

// TestKilledKeeper leaves a launch without a keeper: it goes on, nobody removes it, and
// the next command after its end saves what it wrote.
func TestKilledKeeper(t *testing.T) {
	p := newPerson(t)
	name := p.detach("echo begun; " + until("over") + "echo ended; grep -c ^root: /etc/passwd; exit 9")
	pid := keeperOf(t, name)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	eventually(t, func() bool { return keeperOf(t, name) == 0 }, "it isn't dead")
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
	require.NoError(t, syscall.Kill(keeperOf(t, name), syscall.SIGTERM))
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
	assert.Empty(t, entries(t, filepath.Join(p.cache, "tmp")))
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
