package launch

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// TestKilledLaunchesLeaveNothing kills a third of many launches at random
// moments. One normal command later, nothing of theirs is left, and what isn't
// theirs never was touched.
func TestKilledLaunchesLeaveNothing(t *testing.T) {
	inARow, atOnce := 30, 20
	if testenv.Long() {
		inARow, atOnce = 200, 50
	}
	p := newPerson(t)
	d := dockertest.Connect(t)
	others := map[string]map[string]string{
		"without labels":                   nil,
		"of somebody else":                 {daemon.LabelRole: Role, daemon.LabelOwner: "99999", daemon.LabelClaim: "run-0123456789abcdef"},
		"of this person, without a record": {daemon.LabelRole: Role, daemon.LabelOwner: owned.Owner(), daemon.LabelClaim: "run-0123456789abcdef"},
		"of another role":                  {daemon.LabelRole: "engine", daemon.LabelOwner: owned.Owner()},
	}
	ids := map[string]string{}
	for name, labels := range others {
		id, err := d.Create(t.Context(), daemon.Container{
			Name: dockertest.Name(t), Image: p.options.Image, Command: []string{"sleep", "1000"}, Network: "none", Init: true, Labels: labels,
		})
		require.NoError(t, err)
		t.Cleanup(func() { d.Remove(context.Background(), id) })
		require.NoError(t, d.Start(t.Context(), id))
		ids[name] = id
	}

	launch := func(kill bool) {
		c := p.launch(func(o *Options) { o.Network, o.Command = "none", "sleep 0.1" })
		var complaint bytes.Buffer
		c.Stderr = &complaint
		if !assert.NoError(t, c.Start()) {
			return
		}
		if kill {
			time.Sleep(rand.N(700 * time.Millisecond))
			c.Process.Kill()
		}
		c.Wait()
		if code := c.ProcessState.ExitCode(); !kill || code != -1 {
			assert.Equal(t, 0, code, complaint.String())
		}
	}
	for i := range inARow {
		launch(i%3 == 0)
	}
	var wait sync.WaitGroup
	for i := range atOnce {
		wait.Go(func() { launch(i%3 == 0) })
	}
	wait.Wait()

	_, err := owned.Sweep(t.Context(), cache.Dir(p.cache), d, true)
	require.NoError(t, err)
	assert.Empty(t, p.containers(), "containers were left")
	_, err = cache.Open()
	require.NoError(t, err)
	assert.Empty(t, entries(t, filepath.Join(p.cache, "tmp")), "files were left")
	for name, id := range ids {
		s, err := d.Inspect(t.Context(), id)
		if assert.NoError(t, err, name) {
			assert.Equal(t, "running", s.State, name)
		}
	}
}

func TestSweepRemovesWhatAKilledLaunchLeft(t *testing.T) {
	p := newPerson(t)
	c := p.launch(shell("echo ready; sleep 1000"))
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	_, err = out.Read(make([]byte, 8))
	require.NoError(t, err)
	d := dockertest.Connect(t)
	names := p.containers()
	require.Len(t, names, 1)

	dir := cache.Dir(p.cache)
	swept, err := owned.Sweep(t.Context(), dir, d, true)
	require.NoError(t, err)
	assert.Empty(t, swept.Removed, "its launch lives")
	require.NoError(t, c.Process.Kill())
	c.Wait()
	swept, err = owned.Sweep(t.Context(), dir, d, true)
	require.NoError(t, err)
	assert.Equal(t, []string{"container " + names[0]}, swept.Removed)
	assert.Empty(t, p.containers())
	assert.Empty(t, entries(t, filepath.Join(p.cache, "tmp")))
}

func TestSideBySide(t *testing.T) {
	p := newPerson(t)
	var all []*screen
	for range 3 {
		all = append(all, p.openTerminal(shell("echo ready; read line; echo got $line"), 24, 80))
	}
	for _, s := range all {
		s.expect("ready")
	}
	assert.Len(t, p.containers(), 3)
	for i, s := range all {
		s.enter("this")
		s.expect("got this")
		assert.Equal(t, 0, s.code())
		assert.Len(t, p.containers(), 2-i, "one end disturbed another")
	}
}

func hostname(t *testing.T) string {
	name, err := os.Hostname()
	require.NoError(t, err)
	return name
}
