package launch

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// commit makes an image of what a script leaves of the person's image, with
// another entry point unless that is "", and returns its tag.
func (p *person) commit(script, entrypoint string) string {
	t := p.t
	d := dockertest.Connect(t)
	id, err := d.Create(t.Context(), daemon.Container{
		Image: p.options.Image, Command: []string{"sh", "-ec", script}, Network: "none", Labels: map[string]string{daemon.LabelRole: "test"},
	})
	require.NoError(t, err)
	defer d.Remove(context.Background(), id)
	require.NoError(t, d.Start(t.Context(), id))
	var ended daemon.Status
	require.Eventually(t, func() bool {
		ended, err = d.Inspect(t.Context(), id)
		return err == nil && ended.State == "exited"
	}, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, 0, ended.ExitCode, logs(t, d, id))

	// The client has no call for it, as Berth never commits.
	socket, local := strings.CutPrefix(d.Host(), "unix://")
	if !local {
		testenv.Skip(t, testenv.DockerSocket, "Docker is at %s", d.Host())
	}
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer web.CloseIdleConnections()
	repository := dockertest.Name(t)
	query := url.Values{"container": {id}, "repo": {repository}, "tag": {"1"}, "changes": {`CMD ["bash"]`}}
	if entrypoint != "" {
		query.Add("changes", "ENTRYPOINT "+entrypoint)
	}
	r, err := web.Post("http://docker/commit?"+query.Encode(), "application/json", nil)
	require.NoError(t, err)
	defer r.Body.Close()
	var answer struct{ ID, Message string }
	require.NoError(t, json.NewDecoder(r.Body).Decode(&answer))
	require.Equal(t, http.StatusCreated, r.StatusCode, answer.Message)
	t.Cleanup(func() {
		d, err := daemon.Connect(context.Background())
		require.NoError(t, err)
		defer d.Close()
		assert.NoError(t, d.RemoveImage(context.Background(), repository+":1"))
	})
	return repository + ":1"
}

// What -dry prints of an image's users, and of a command, is data to the shell
// that it is pasted or piped into.
func TestHostileUsersAreData(t *testing.T) {
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	p := newPerson(t)
	p.options.Network = "none"
	mark := filepath.Join(t.TempDir(), "executed-on-the-host")
	touch := "touch " + mark
	lines := strings.NewReplacer("TOUCH", touch).Replace(strings.Join([]string{
		"", "END", "TOUCH", "EN\\000D", "TOUCH", "'", "TOUCH", "' >/dev/null; TOUCH",
		"a:x:70:70:'; TOUCH; ':/:/bin/sh", "b:x:71:71:$(TOUCH)`TOUCH`:/:/bin/sh", `c:x:72:72:\\'; TOUCH; \\':/:/bin/sh`,
		"d:x:73:73:\\033]0;title\\007:/:/bin/sh", "",
	}, "\\n"))
	p.options.Image = p.commit("printf %b "+word(lines)+" | tee -a /etc/passwd >> /etc/group; grep -c touch /etc/passwd", "")
	p.options.Command = touch + "; getent passwd a b c | grep -c touch; exit 7"
	plan, err := NewPlan(hostOf(t, p), p.options)
	require.NoError(t, err)
	require.NoError(t, plan.Home.seed(t.Context()))
	printed := plan.Table() + "\n" + strings.Replace(plan.Shell(), "rm -r \"$dir\"\n", "code=$?\nrm -r \"$dir\"\nexit $code\n", 1)
	assert.NotContains(t, printed, "\x1b")
	assert.NotContains(t, printed, "\x00")
	c := exec.Command("sh")
	c.Args = append(c.Args, "-c", printed)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "%s", out)
	assert.Equal(t, 7, exit.ExitCode(), "%s", out)
	assert.Contains(t, string(out), "\n3\n", "the entries are there")
	assert.NoFileExists(t, mark)

	r := p.run("getent passwd a b c d | grep -c touch", "")
	assert.Equal(t, result{out: "3\n"}, r, "and in the launch itself")
}

func TestUsersBehindLinks(t *testing.T) {
	p := newPerson(t)
	p.options.Network = "none"
	p.options.Image = p.commit("mv /etc/passwd /usr/share/users && ln -s people /usr/share/passwd && "+
		"ln -s users /usr/share/people && ln -s ../usr/share/passwd /etc/passwd && "+
		"mkdir -p /opt/etc && mv /etc/group /opt/etc && ln -s /opt/etc/group /etc/group", "")
	r := p.run("getent passwd www-data | cut -d: -f1,3; getent group www-data | cut -d: -f1,3; id -un", "")
	assert.Equal(t, result{out: "www-data:33\nwww-data:33\n" + hostOf(t, p).User.Name + "\n"}, r)
}

func TestEntryPoint(t *testing.T) {
	p := newPerson(t)
	p.options.Network = "none"
	p.options.Image = p.commit("true", `["bash"]`)
	r := p.run("echo works", "")
	assert.Equal(t, result{code: ExitDaemon, err: "-cmd: usage: the entry point of the image, bash, " +
		"would take the command for its own arguments and not run it. Add -entrypoint=bash\n"}, r)
	for entrypoint, want := range map[string]string{"sh": "works\n", "/usr/bin/env": "works\n"} {
		r := p.runWith(func(o *Options) { o.Entrypoint, o.Command = entrypoint, "echo works" }, "")
		assert.Equal(t, result{out: want}, r, entrypoint)
	}
	r = p.runWith(func(o *Options) { o.Entrypoint = "uname" }, "")
	assert.Equal(t, result{out: "Linux\n"}, r)
	r = p.runWith(func(o *Options) { o.Entrypoint = "no-such-program" }, "")
	assert.Equal(t, ExitNotFound, r.code)

	s := p.openTerminal(func(o *Options) { o.Entrypoint, o.Command = "sh", "stty size; exit 3" }, 33, 77)
	s.expect("33 77\r\n")
	assert.Equal(t, 3, s.code())
}

// A read-only mount is read-only all the way down.
func TestMountBelowAReadOnlyOne(t *testing.T) {
	testenv.NeedsRoot(t, "mount")
	p := newPerson(t)
	p.options.Network = "none"
	folder := t.TempDir()
	sub := filepath.Join(folder, "a b")
	require.NoError(t, os.Mkdir(sub, 0o755))
	require.NoError(t, exec.Command("mount", "-t", "tmpfs", "none", sub).Run())
	t.Cleanup(func() { assert.NoError(t, exec.Command("umount", sub).Run()) })
	require.NoError(t, os.WriteFile(filepath.Join(sub, "f"), []byte("there\n"), 0o644))

	write := "touch '/data/x' '/data/a b/x' 2>/dev/null && echo written; true"
	r := p.runWith(func(o *Options) { o.Mounts, o.Command = folder+":/data:ro", write }, "")
	assert.Equal(t, 0, r.code)
	assert.Empty(t, r.out)
	if !atLeast(dockertest.Connect(t).APIVersion(), 1, 44) {
		assert.Equal(t, "-v: Docker before 25 can't make what is mounted below "+folder+" read-only, so the container doesn't get "+sub+
			". Mount it by itself if you need it\n", r.err)
	}
	r = p.runWith(func(o *Options) {
		o.Mounts, o.Command = folder+":/data:ro,"+sub+":/data/a b:ro", "cat '/data/a b/f';"+write
	}, "")
	assert.Equal(t, "there\n", r.out, r.err)
	assert.Equal(t, []string{"f"}, entries(t, sub))
	assert.Equal(t, []string{"a b"}, entries(t, folder))
}
