package launch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/usage"
)

// terminalOf opens a terminal for what a person types.
func (p *person) terminalOf(c *exec.Cmd) *screen {
	tty, err := pty.StartWithAttrs(c, &pty.Winsize{Rows: 24, Cols: 80}, &syscall.SysProcAttr{Credential: p.as, Setsid: true, Setctty: true})
	require.NoError(p.t, err)
	return p.watch(c, tty)
}

// TestAttachAndLeave leaves a lasting shell by its keys, by closing the terminal, and
// for the last time by its end.
func TestAttachAndLeave(t *testing.T) {
	p := newPerson(t)
	name := p.detach("")
	s := p.terminalOf(p.verb("attach " + name))
	before := s.modes()
	s.expect("Ctrl-P Ctrl-Q leaves it")
	s.enter("x=remem; echo 4$((1+1))")
	s.expect("42\r\n")
	s.expect(p.prompt())
	s.resize(31, 91)
	s.enter("until test \"$(stty size)\" = '31 91'; do sleep 0.02; done; echo res''ized")
	s.expect("resized\r\n")
	s.tty.Write([]byte{16, 17}) // Ctrl-P Ctrl-Q
	s.expect("goes on")
	assert.Equal(t, 0, s.code())
	assert.Equal(t, before, s.modes(), "the terminal isn't as it was")

	s = p.terminalOf(p.verb("attach"))
	s.enter("echo ${x}bered")
	s.expect("remembered\r\n")
	require.NoError(t, s.tty.Close())
	s.code()
	require.Len(t, p.containers(), 1, "it ended with a terminal")

	s = p.terminalOf(p.verb("attach " + name[:len(name)-1]))
	s.enter("exit 7")
	assert.Equal(t, 7, s.code())
	l := p.ended(name)
	assert.Equal(t, 7, *l.Code)
	assert.Contains(t, p.say("logs").out, "remembered\r\n")
}

// TestAttachWithoutATerminal shows what a command writes until Ctrl-C, which the command
// never notices.
func TestAttachWithoutATerminal(t *testing.T) {
	p := newPerson(t)
	name := p.detach("trap 'exit 9' INT; until [ -e over ]; do echo tick; sleep 0.02; done")
	c := p.verb("attach " + name)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	_, err = io.ReadFull(out, make([]byte, len("tick\n")))
	require.NoError(t, err)
	require.NoError(t, c.Process.Signal(syscall.SIGINT))
	io.Copy(io.Discard, out)
	c.Wait()
	assert.Equal(t, 130, c.ProcessState.ExitCode())
	assert.Equal(t, "\r\nLeft "+name+", which goes on.\r\n", said.String())
	p.touch("over")
	assert.Equal(t, 0, *p.ended(name).Code)
}

// TestShell opens others in a detached launch, and in one at a terminal.
func TestShell(t *testing.T) { asEverybody(t, anotherShell) }

func anotherShell(t *testing.T, p *person) {
	p.options.Env = "A=b"
	foreground := p.openTerminal(shell("echo ready; read line; echo got $line; exit 3"), 24, 80)
	foreground.expect("ready")
	name := p.containers()[0]
	r := p.say("attach " + name)
	assert.Equal(t, ExitDaemon, r.code)
	assert.Contains(t, r.err, "mage shell -n="+name)
	r = p.say("shell " + name + " id -u; pwd; echo $A; exit 5")
	assert.Equal(t, result{fmt.Sprintf("%s\n%s\nb\n", idOf(p), Workspace), "", 5}, r)

	s := p.terminalOf(p.verb("shell " + name))
	s.enter("stty size; tty >/dev/null && echo at a''t one")
	s.expect("24 80\r\n")
	s.expect("at one\r\n")
	s.enter("sh -c 'echo started; exec sleep 1000'")
	s.expect("started\r\n")
	sleeping := func() string {
		return p.say("shell " + name + " cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep 1000'").out
	}
	assert.Equal(t, "1\n", sleeping())
	require.NoError(t, s.tty.Close())
	assert.Equal(t, 129, s.code())
	var still string
	assert.Eventually(t, func() bool { still = sleeping(); return still == "0\n" }, 30*time.Second, 20*time.Millisecond)
	assert.Equal(t, "0\n", still, "what the shell started goes on")

	foreground.enter("this")
	foreground.expect("got this")
	assert.Equal(t, 3, foreground.code())
}

func idOf(p *person) string {
	if p.as != nil {
		return fmt.Sprint(p.as.Uid)
	}
	out, err := exec.Command("id", "-u").Output()
	require.NoError(p.t, err)
	return strings.TrimSpace(string(out))
}

// TestStop ends what ignores that it is asked to, all at once.
func TestStop(t *testing.T) {
	p := newPerson(t)
	stubborn := p.detach("trap '' TERM; echo begun; while :; do sleep 0.1; done")
	shells := p.detach("")
	pid := dockertest.LiveKeeper(t, shells)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	r := p.say("stop " + p.options.Project)
	assert.NotEqual(t, 0, r.code)
	assert.Contains(t, r.err, "which one?")
	assert.Contains(t, r.err, stubborn+" (")
	r = p.say("stop ")
	assert.Equal(t, 0, r.code, r.err)
	assert.Contains(t, r.out, "stopped "+stubborn+": exit code 137\n")
	assert.Contains(t, r.out, "stopped "+shells+": exit code 129\n")
	assert.Equal(t, "begun\n", p.say("logs "+stubborn).out)
}

// TestSavingTakesItsTime suspends a keeper at the end of its launch, as a long log would
// keep it, and kills another.
func TestSavingTakesItsTime(t *testing.T) {
	defer func(before time.Duration) { saveTimeout = before }(saveTimeout)
	saveTimeout = time.Second // more than a pause: what is saved between two looks is seen
	p := newPerson(t)
	t.Setenv("BERTH_CACHE", p.cache)
	d := dockertest.Connect(t)
	detached := func(line string) (l Launch, keeper int) {
		name := p.detach(line)
		l, err := find(t.Context(), d, name, false, Streams{Err: os.Stderr})
		require.NoError(t, err)
		return l, dockertest.LiveKeeper(t, name)
	}
	l, keeper := detached(until("over") + "exit 3")
	require.NoError(t, syscall.Kill(keeper, syscall.SIGSTOP))
	p.touch("over")
	time.AfterFunc(2*saveTimeout, func() { syscall.Kill(keeper, syscall.SIGCONT) })
	l, err := l.saved(t.Context(), d)
	require.NoError(t, err)
	assert.Equal(t, 3, *l.Code)

	l, killed := detached("sleep 1000")
	require.NoError(t, syscall.Kill(killed, syscall.SIGKILL))
	eventually(t, func() bool { return dockertest.Keeper(t, l.Name) == 0 }, "it isn't dead")
	_, err = l.saved(t.Context(), d)
	assert.ErrorContains(t, err, "couldn't be saved")
	assert.Equal(t, 0, p.say("stop "+l.Name).code)
}

// TestLaunchesOfOthers are seen and left alone: labels prove nothing.
func TestLaunchesOfOthers(t *testing.T) {
	testenv.NeedsRoot(t, "become somebody else")
	alice, bob := newPerson(t), newPerson(t)
	bob.options.Project = alice.options.Project
	alice.become(54321, 54322)
	bob.become(54323, 54324)
	name := alice.detach("echo alice was here; " + until("over"))
	eventually(t, func() bool { l := bob.launches(); return len(l) == 1 && l[0].LastLine == "alice was here" }, "bob doesn't see it")
	l := bob.launches()[0]
	assert.Equal(t, name, l.Name)
	assert.False(t, l.Own)
	assert.Equal(t, alice.launches()[0].User, l.User)
	for _, verb := range []string{"stop ", "attach ", "shell "} {
		r := bob.say(verb + name)
		assert.Equal(t, ExitDaemon, r.code, verb)
		assert.Contains(t, r.err, "is a launch of "+l.User, verb)
	}
	assert.Contains(t, bob.say("attach").err, "none of the launches is yours")
	assert.Equal(t, "[] []\n", bob.say("sweep").out)

	// What is committed from a launch has its labels, and is none.
	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	image, err := exec.Command("docker", "commit", name).Output()
	require.NoError(t, err)
	d := dockertest.Connect(t)
	t.Cleanup(func() { d.RemoveImage(context.Background(), strings.TrimSpace(string(image))) })
	id, err := d.Create(t.Context(), daemon.Container{
		Name: dockertest.Name(t), Image: strings.TrimSpace(string(image)), Command: []string{"sleep", "99"}, Network: "none",
	})
	require.NoError(t, err)
	t.Cleanup(func() { d.Remove(context.Background(), id) })
	require.NoError(t, d.Start(t.Context(), id))
	all, err := List(t.Context(), d, false, Streams{Err: nil})
	require.NoError(t, err)
	for _, l := range all {
		assert.NotEqual(t, id, l.status.ID)
	}
	alice.touch("over")
	alice.ended(name)
	assert.Empty(t, bob.launches(), "what ended is the person's own")
}

// TestPortsAnswerOnLoopback reaches a server in a container by its published port, and
// not from outside of the machine.
func TestPortsAnswerOnLoopback(t *testing.T) {
	p := newPerson(t)
	l, err := net.Listen("tcp", loopback+":0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	taken := p.runWith(func(o *Options) { o.Detach, o.Command, o.Ports = true, "true", fmt.Sprint(port) }, "")
	assert.Equal(t, ExitDaemon, taken.code)
	assert.Contains(t, taken.err, "-p: Docker can't publish a port: it is taken on the host")
	require.NoError(t, l.Close())
	assert.Empty(t, entries(t, filepath.Join(p.cache, "tmp")))

	serve := func(o *Options) {
		o.Detach, o.Ports = true, fmt.Sprintf("%d:8000", port)
		o.Command = `exec perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die; ` +
			`while ($c = $s->accept) { print $c "HTTP/1.0 200 OK\r\n\r\nhello"; close $c }'`
	}
	r := p.runWith(serve, "")
	for try := 0; strings.Contains(r.err, "taken on the host") && try < 5; try++ { // by somebody else meanwhile
		port++
		r = p.runWith(serve, "")
	}
	require.Equal(t, 0, r.code, r.err)
	name := strings.TrimSpace(r.out)
	p.stopIfFailed(name)
	var body []byte
	eventually(t, func() bool {
		r, err := http.Get(fmt.Sprintf("http://%s:%d", loopback, port))
		if err != nil {
			return false
		}
		defer r.Body.Close()
		body, err = io.ReadAll(r.Body)
		return err == nil
	}, "nothing answers")
	assert.Equal(t, "hello", string(body))
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addresses {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() && ip.To4() != nil {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), fmt.Sprint(port)), time.Second)
			if assert.Error(t, err, "it answers at %s", ip) {
				continue
			}
			c.Close()
		}
	}
	assert.Equal(t, 0, p.say("stop "+name).code)
}

func TestParsePorts(t *testing.T) {
	got, err := parsePorts("8888,80:8080,0.0.0.0:1:2/udp,[::1]:3:4,192.168.0.1:65535:1/tcp", "")
	require.NoError(t, err)
	var shown []string
	for _, p := range got {
		shown = append(shown, fmt.Sprintf("%s:%d/%s", publishedAt(p), p.Container, p.Protocol))
	}
	assert.Equal(t, []string{"127.0.0.1:8888:8888/tcp", "127.0.0.1:80:8080/tcp", "0.0.0.0:1:2/udp", "[::1]:3:4/tcp",
		"192.168.0.1:65535:1/tcp"},
		shown)
	for _, bad := range []string{",", "0", "65536", "80:", ":80", "a:80", "80:80:80", "::1:80:80", "localhost:80:80", "80/", "80/sctp",
		"80-90", "-1", "80,80", "80:1,127.0.0.1:80:2", "[::1%lo]:80:80", "1.2.3.4:80"} {
		_, err := parsePorts(bad, "")
		assert.ErrorIs(t, err, usage.Err, bad)
	}
	for _, network := range []string{"host", "none"} {
		_, err := parsePorts("80", network)
		assert.ErrorIs(t, err, usage.Err)
		assert.ErrorContains(t, err, "-net="+network)
	}
}

// What is shown of a port means the same port.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"", "80", "80:81", "0.0.0.0:80:81/udp", "[::1]:1:2", "a:b:c/d", "[", "[]:1:2", "::::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, item string) {
		p, ok := parsePort(item)
		if !ok {
			return
		}
		again, ok := parsePort(fmt.Sprintf("%s:%d/%s", publishedAt(p), p.Container, p.Protocol))
		if !ok || again != p {
			t.Fatalf("%q: %v, then %v", item, p, again)
		}
	})
}

func TestChoose(t *testing.T) {
	old, older := &owned.Ended{Code: 1}, &owned.Ended{Code: 2}
	all := []Launch{
		{Name: "train", Own: true, ended: older}, {Name: "train", Own: true, ended: old}, {Name: "train-2", Own: true, State: "running"},
		{Name: "notebook", User: "bob", State: "running"}, {Name: "eval", Own: true, ended: old}, {Name: "evals", Own: true, ended: old},
	}
	for typed, want := range map[string]string{"": "train-2", "train": "train", "trai": "train-2", "n": "notebook", "eval": "eval",
		"evals": "evals"} {
		l, err := choose(typed, all)
		if assert.NoError(t, err, typed) {
			assert.Equal(t, want, l.Name, typed)
		}
	}
	l, err := choose("train", all)
	require.NoError(t, err)
	assert.Same(t, old, l.ended, "the latest")
	l, err = choose("train", append(all, Launch{Name: "train", User: "bob", State: "running"}))
	require.NoError(t, err)
	assert.Same(t, old, l.ended, "the person's own, though another one's runs")
	for typed, says := range map[string]string{"eva": "which one?", "x": `begins with "x"`, "trains": "There are\n\ttrain"} {
		_, err := choose(typed, all)
		assert.ErrorIs(t, err, usage.Err)
		assert.ErrorContains(t, err, says, typed)
	}
	_, err = choose("", nil)
	assert.ErrorContains(t, err, "there is no launch")
	_, err = choose("", all[3:4])
	assert.ErrorContains(t, err, "none of the launches is yours")
}

func TestLastLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "\n\n": "", "a\nb\n": "b", "a\r\nb\r\n\r\n": "b", "10%\r20%\r": "20%", "\x1b[01;33mbold\x1b[0m": "bold",
		"\x1b]0;title\x07$ ": "$", "a\x1b[2J\x1b[Hb\tc": "ab c", "\x1b]52;c;aGk=\x1b\\ü\x00\x9b31m": "ü\ufffd31m", "a\u202eb": "ab",
	} {
		assert.Equal(t, want, lastLine(text), "%q", text)
	}
}

func TestSkipper(t *testing.T) {
	for _, text := range []string{"", "\n", "a", "a\n", "a\nb", "a\nb\n\nc\n"} {
		lines := strings.SplitAfter(text, "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		for tail := range 6 {
			var count lineCounter
			var out bytes.Buffer
			count.Write([]byte(text))
			require.Equal(t, len(lines), count.lines(), "%q", text)
			skip := max(0, count.lines()-tail)
			for i := range len(text) {
				(&skipper{&out, &skip}).Write([]byte(text[i : i+1]))
			}
			assert.Equal(t, strings.Join(lines[max(0, len(lines)-tail):], ""), out.String(), "%q %d", text, tail)
		}
	}
}

func TestResumer(t *testing.T) {
	var out bytes.Buffer
	r := &resumer{w: &out}
	for _, until := range []int{0, 3, 1, 3, 7, 10} { // a stream that breaks off, and begins anew
		r.resume()
		for i := 0; i < until; i += 2 {
			n, err := r.Write([]byte("0123456789")[i:min(i+2, until)])
			require.NoError(t, err)
			require.Equal(t, min(2, until-i), n)
		}
	}
	assert.Equal(t, "0123456789", out.String())
}

func TestTable(t *testing.T) {
	code, since := 1, time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	assert.Equal(t, ""+
		"NAME   WHO    GPUS  SINCE             STATE                            LAST LINE\n"+
		"train  alice  0,1   2026-01-02 03:04  running                          "+strings.Repeat("x", 59)+"…\n"+
		"eval   bob    none  2026-01-02 03:04  exit code 1 at 2026-01-02 03:05  \n", Table([]Launch{
		{Name: "train", User: "alice", GPUs: "0,1", Since: since, State: "running", LastLine: strings.Repeat("x", 100)},
		{Name: "eval", User: "bob", Since: since, Until: since.Add(time.Minute), State: "exited", Code: &code},
	}))
}
