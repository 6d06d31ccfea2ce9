package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/signals"
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

// detach starts a detached launch and returns its name.
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
