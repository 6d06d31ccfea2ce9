package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/testenv"
)

// TestMain lets the test binary play mage run: a process of its own, with a
// terminal, signals and an exit code.
func TestMain(m *testing.M) {
	KeepIfAsked()
	options, verb := os.Getenv("BERTH_TEST_RUN"), os.Getenv("BERTH_TEST_VERB")
	os.Unsetenv("BERTH_TEST_RUN")
	os.Unsetenv("BERTH_TEST_VERB")
	play := func() (int, error) { return launchWith(options) }
	if verb != "" {
		play = func() (int, error) { return playVerb(verb) }
	} else if options == "" {
		os.Exit(dockertest.Main(m))
	}
	code, err := play()
	if err != nil {
		fmt.Fprintln(os.Stderr, advice.Text(err, "go tool mage"))
	}
	os.Exit(code)
}

func launchWith(options string) (int, error) {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return ExitDaemon, err
	}
	ctx := context.Background()
	d, err := daemon.Connect(ctx)
	if err != nil {
		return ExitDaemon, err
	}
	defer d.Close()
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	h, err := Probe(ctx, d, o, s)
	if err != nil {
		return ExitDaemon, err
	}
	p, err := NewPlan(h, o)
	if err != nil {
		return ExitDaemon, err
	}
	if !o.Detach {
		return Run(ctx, d, p, s)
	}
	var held []*os.File
	if name := os.Getenv("BERTH_TEST_HELD"); name != "" {
		f, err := os.Create(name)
		if err != nil {
			return ExitDaemon, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return ExitDaemon, err
		}
		held = append(held, f)
	}
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	code, err := Detach(ctx, d, p, s, held...)
	if err == nil {
		fmt.Println(p.Container.Name)
	}
	return code, err
}

// A person is someone who launches containers: a checkout, a cache, and who
// they are.
type person struct {
	t       *testing.T
	options Options // for every launch; its Project is in the name of each container
	env     []string
	as      *syscall.Credential // nil is who runs the tests
	program string              // that launches: this test binary
	cache   string
}

// ours are the folders of the home in this checkout.
var ours = Options{Home: "rootfs/home/user", Skeleton: "rootfs/home/skel"}

// newPerson returns who runs the tests, with a separate checkout and cache, and
// an image with a shell. When the test ends, none of their containers may be
// left.
func newPerson(t *testing.T) *person {
	if testing.Short() {
		t.Skip("needs Docker and builds an image")
	}
	p := &person{t: t, program: os.Args[0], options: Options{
		Project: dockertest.Name(t), Image: dockertest.Shell(t), Root: t.TempDir(), GUI: "off", GPUs: "none",
		Home: ours.Home, Skeleton: ours.Skeleton,
	}}
	p.cache = t.TempDir()
	p.env = append(os.Environ(), "BERTH_CACHE="+p.cache, "TERM=xterm-256color")
	skel := filepath.Join(p.options.Root, ours.Skeleton)
	require.NoError(t, os.CopyFS(skel, os.DirFS("../../"+ours.Skeleton)))
	t.Cleanup(func() {
		// A keeper takes its launch away just after it has saved what stop waits for.
		files := func() []string { return entries(t, filepath.Join(p.cache, "tmp")) }
		for late := time.Now().Add(40 * time.Second); len(p.containers())+len(files()) > 0 && time.Now().Before(late); {
			time.Sleep(20 * time.Millisecond)
		}
		assert.Empty(t, p.containers(), "containers were left")
		assert.Empty(t, files(), "files were left")
	})
	return p
}

// become makes the person another one, with the group that may use Docker.
func (p *person) become(uid, gid int, groups ...int) {
	testenv.NeedsRoot(p.t, "become somebody else")
	p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{dockerGroup(p.t)}}
	for _, g := range groups {
		p.as.Groups = append(p.as.Groups, uint32(g))
	}
	// The folders above the checkout are the tests' own, and closed.
	for dir := p.options.Root; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		require.NoError(p.t, os.Chmod(dir, 0o755))
	}
	home, err := os.MkdirTemp(filepath.Dir(p.options.Root), "home")
	require.NoError(p.t, err)
	p.cache = filepath.Join(home, "cache")
	require.NoError(p.t, os.Mkdir(p.cache, 0o755))
	p.env = append(p.env, "BERTH_CACHE="+p.cache, "HOME="+home)
	p.program = filepath.Join(home, "launch")
	program, err := os.ReadFile(os.Args[0])
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(p.program, program, 0o755))
	require.NoError(p.t, exec.Command("chown", "-R", fmt.Sprintf("%d:%d", uid, gid), p.options.Root, home).Run())
}

// asEverybody runs a test as who runs the tests and, where they are root, as a
// user that the machine doesn't know and as one in three groups.
func asEverybody(t *testing.T, test func(t *testing.T, p *person)) {
	t.Run("myself", func(t *testing.T) { test(t, newPerson(t)) })
	for name, groups := range map[string][]int{"unknown": nil, "in three groups": {44, 100, 23458}} {
		t.Run(name, func(t *testing.T) {
			p := newPerson(t)
			p.become(54321, 54322, groups...)
			test(t, p)
		})
	}
}

// prompt is the end of the shell's. Who changes the size of a terminal waits for it:
// just before, readline reads the size and sets the same again, and undoes what came
// in between.
func (p *person) prompt() string {
	if p.root() {
		return "# "
	}
	return "$ "
}

// root says that the person is.
func (p *person) root() bool { return os.Getuid() == 0 && (p.as == nil || p.as.Uid == 0) }

// dockerGroup is the group that may use the daemon's socket.
func dockerGroup(t *testing.T) uint32 {
	info, err := os.Stat("/var/run/docker.sock")
	if err != nil {
		testenv.Skip(t, testenv.DockerSocket, "%v", err)
	}
	return info.Sys().(*syscall.Stat_t).Gid
}

// launch returns the process of a launch with some options changed, not yet
// started.
func (p *person) launch(change func(*Options)) *exec.Cmd {
	o := p.options
	if change != nil {
		change(&o)
	}
	data, err := json.Marshal(o)
	require.NoError(p.t, err)
	c := exec.Command(p.program)
	c.Env = slices.Concat(p.env, []string{"BERTH_TEST_RUN=" + string(data)})
	c.Dir = p.options.Root
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	return c
}

func shell(line string) func(*Options) { return func(o *Options) { o.Command = line } }

// A result is what a launch without a terminal gave.
type result struct {
	out, err string
	code     int
}

// run runs a command in a container, without a terminal.
func (p *person) run(line, stdin string) result {
	return p.runWith(shell(line), stdin)
}

func (p *person) runWith(change func(*Options), stdin string) result {
	c := p.launch(change)
	var out, err bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &err
	if e := c.Run(); e != nil && c.ProcessState == nil {
		require.NoError(p.t, e)
	}
	return result{out.String(), err.String(), c.ProcessState.ExitCode()}
}

// containers lists the names of the person's containers.
func (p *person) containers() []string {
	d, err := daemon.Connect(context.Background())
	require.NoError(p.t, err)
	defer d.Close()
	all, err := d.Containers(context.Background(), daemon.LabelRole+"="+Role)
	require.NoError(p.t, err)
	var names []string
	for _, c := range all {
		if strings.HasPrefix(c.Name, p.options.Project) {
			names = append(names, c.Name)
		}
	}
	return names
}

func entries(t *testing.T, dir string) []string {
	list, err := os.ReadDir(dir)
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// A screen is a launch in a terminal, as a person sits before it.
type screen struct {
	t     *testing.T
	cmd   *exec.Cmd
	tty   *os.File
	seen  chan string
	shown string // all that was written and not yet expected
}

// openTerminal starts a launch in a terminal of that size.
func (p *person) openTerminal(change func(*Options), rows, columns uint16) *screen {
	c := p.launch(change)
	tty, err := pty.StartWithAttrs(c, &pty.Winsize{Rows: rows, Cols: columns},
		&syscall.SysProcAttr{Credential: p.as, Setsid: true, Setctty: true})
	require.NoError(p.t, err)
	return p.watch(c, tty)
}

// watch reads what is written to a terminal.
func (p *person) watch(c *exec.Cmd, tty *os.File) *screen {
	tty = closable(p.t, tty)
	s := &screen{t: p.t, cmd: c, tty: tty, seen: make(chan string, 1024)}
	go func() {
		defer close(s.seen)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			if n > 0 {
				s.seen <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	p.t.Cleanup(func() {
		tty.Close()
		c.Process.Kill()
	})
	return s
}

// closable returns a terminal of which a read ends when it is closed. (The pty
// package asks for its file descriptor, which makes reads block permanently.)
func closable(t *testing.T, tty *os.File) *os.File {
	fd, err := unix.FcntlInt(tty.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, tty.Close())
	require.NoError(t, unix.SetNonblock(fd, true))
	return os.NewFile(uintptr(fd), "terminal")
}

// control does something with the terminal's file descriptor.
func (s *screen) control(do func(fd int) error) {
	conn, err := s.tty.SyscallConn()
	require.NoError(s.t, err)
	var failed error
	require.NoError(s.t, conn.Control(func(fd uintptr) { failed = do(int(fd)) }))
	require.NoError(s.t, failed)
}

// modes are the terminal's settings, such as echo.
func (s *screen) modes() (modes unix.Termios) {
	s.control(func(fd int) error {
		m, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		modes = *m
		return err
	})
	return modes
}

func (s *screen) resize(rows, columns uint16) {
	s.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
}

// expect waits until the text is on the screen, and returns what came before it.
func (s *screen) expect(text string) string {
	s.t.Helper()
	late := time.After(20 * time.Second)
	for {
		if before, after, ok := strings.Cut(s.shown, text); ok {
			s.shown = after
			return before
		}
		select {
		case more, ok := <-s.seen:
			if !ok {
				require.Fail(s.t, "the launch ended", "before it showed %q it showed %q", text, s.shown)
			}
			s.shown += more
		case <-late:
			require.Fail(s.t, "nothing more came", "%q isn't in %q", text, s.shown)
		}
	}
}

func (s *screen) enter(line string) {
	_, err := s.tty.WriteString(line + "\r")
	require.NoError(s.t, err)
}

// code waits for the end of the launch and returns its exit code.
func (s *screen) code() int {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.cmd.Wait()
	}()
	select {
	case <-done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		require.Fail(s.t, "the launch didn't end", "on the screen: %q", s.shown)
		return 0
	}
}
