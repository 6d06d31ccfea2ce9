package lease

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/usage"
)

// someone makes a command another user's, with a strict umask.
func someone(t *testing.T, uid uint32, program string) func(*exec.Cmd) {
	return func(c *exec.Cmd) {
		c.Path, c.Args = "/bin/sh", []string{"sh", "-c", "umask 077; exec " + program}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
}

// openPlace makes a folder that everybody may enter, with a copy of the test binary.
func openPlace(t *testing.T) (dir, program string) {
	dir, err := os.MkdirTemp("", "berth-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777|os.ModeSticky))
	program = filepath.Join(dir, "program")
	data, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, data, 0o755))
	return dir, program
}

// TestPeopleShareTheFolder has two users and root, each the first in turn.
func TestPeopleShareTheFolder(t *testing.T) {
	testenv.NeedsRoot(t, "become somebody else")
	for _, first := range []uint32{0, 54321} {
		dir, program := openPlace(t)
		b := Book{filepath.Join(dir, name)}
		alice := holder(t, b, "alice's", all("GPU-a"), someone(t, first, program))
		info, err := os.Stat(b.dir)
		require.NoError(t, err)
		assert.Equal(t, shared, info.Mode()&(os.ModePerm|os.ModeSticky))
		assert.EqualValues(t, first, owner(info))

		holder(t, b, "bob's", one("GPU-a", "GPU-b"), someone(t, 54322, program))
		_, err = OpenAt(b.dir)
		require.NoError(t, err)
		s, err := b.Status()
		require.NoError(t, err)
		require.Len(t, s.Leases, 2)
		assert.Equal(t, []int{int(first), 54322}, []int{s.Leases[0].UID, s.Leases[1].UID})
		assert.Equal(t, []string{"alice's", "bob's"}, []string{s.Leases[0].Name, s.Leases[1].Name})
		assert.Equal(t, [][]string{{"GPU-a"}, {"GPU-b"}}, [][]string{s.Leases[0].UUIDs, s.Leases[1].UUIDs})

		got := queued(t, t.Context(), b, one("GPU-a", "GPU-b"))
		require.NoError(t, alice.Process.Kill())
		l := get(t, got)
		assert.Equal(t, []string{"GPU-a"}, l.UUIDs())
		require.NoError(t, l.Close())
		// The lock's file is alice's, and she is dead: a third one needs only to read it.
		holder(t, b, "carol's", all("GPU-a"), someone(t, 54323, program))
	}
}

// TestNobodyTakesTheLeaseOfAnother lets a user try what they can with the files.
func TestNobodyTakesTheLeaseOfAnother(t *testing.T) {
	testenv.NeedsRoot(t, "become somebody else")
	dir, program := openPlace(t)
	b, err := OpenAt(filepath.Join(dir, name))
	require.NoError(t, err)
	l := take(t, b, all("GPU-a"))
	for _, try := range []string{
		"rm -f *", "mv gpu.GPU-a x", "echo {} >gpu.GPU-a", "echo >" + l.name, "echo {} >" + l.name + ".json", "chmod 777 *",
	} {
		c := exec.Command("sh", "-c", try)
		c.Dir = b.dir
		someone(t, 54321, "")(c)
		c.Args[2] = try
		assert.Error(t, c.Run(), try)
	}
	_, err = b.Acquire(t.Context(), all("GPU-a"), Holder{}, noWait)
	assert.ErrorIs(t, err, errWait)

	// A record that says it is somebody else's, or whose halves have two owners.
	holder(t, b, "somebody's", all("GPU-b"), someone(t, 54321, program))
	fake := filepath.Join(b.dir, "lease-0123456789abcdef")
	require.NoError(t, unix.Mkfifo(fake, 0o644))
	f, err := os.OpenFile(fake, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.WriteFile(fake+".json", []byte(`{"name":"fake","uid":0,"uuids":["GPU-c"]}`), 0o644))
	require.NoError(t, os.Chown(fake+".json", 54321, 54321))
	s, err := b.Status()
	require.NoError(t, err)
	require.Len(t, s.Leases, 2)
	assert.Equal(t, 54321, s.Leases[1].UID)
}

func TestFoldersThatAreNotFit(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	for _, mode := range []os.FileMode{0o700, 0o755, 0o777 | os.ModeSticky, 0o770 | os.ModeSticky} {
		path := make("fit"+mode.String(), mode)
		_, err := OpenAt(path)
		assert.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode()&(os.ModePerm|os.ModeSticky), "it isn't Berth's to change")
	}
	for _, mode := range []os.FileMode{0o777, 0o775} {
		_, err := OpenAt(make("open"+mode.String(), mode))
		assert.ErrorIs(t, err, usage.Err)
		assert.ErrorContains(t, err, "can't share it safely")
		assert.Contains(t, advice.Text(err, ""), "mkdir -m 1777")
	}
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := OpenAt(file)
	assert.ErrorContains(t, err, "isn't a folder")

	// In the place that everybody shares, a link isn't followed.
	defer func(before []string) { places = before }(places)
	places = []string{filepath.Join(dir, "nowhere"), make("public", shared)}
	t.Setenv(envFolder, "")
	require.NoError(t, os.Symlink(make("trap", 0o777), filepath.Join(places[1], name)))
	_, err = Open()
	assert.ErrorContains(t, err, "isn't a folder")
	assert.Empty(t, entries(t, filepath.Join(dir, "trap")))
	require.NoError(t, os.Remove(filepath.Join(places[1], name)))
	b, err := Open()
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(places[1], name), b.dir)
	// One that was killed before it gave the folder its mode.
	require.NoError(t, os.Chmod(b.dir, 0o700))
	_, err = Open()
	require.NoError(t, err)
	info, err := os.Stat(b.dir)
	require.NoError(t, err)
	assert.Equal(t, shared, info.Mode()&(os.ModePerm|os.ModeSticky))
	require.NoError(t, os.Chmod(b.dir, 0o755))
	_, err = Open()
	assert.ErrorContains(t, err, "has the mode 0755", "others couldn't share it")
	places = []string{make("private", 0o755)}
	_, err = Open()
	assert.ErrorContains(t, err, "none of")
}

func entries(t *testing.T, dir string) (names []string) {
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// TestTraps lays in the folder what somebody might, to have files changed or
// processes wait.
func TestTraps(t *testing.T) {
	for _, name := range []string{gate, "gpu.GPU-a"} {
		for kind, lay := range map[string]func(path, victim string) error{
			"a link":               func(path, victim string) error { return os.Symlink(victim, path) },
			"a link to nothing":    func(path, victim string) error { return os.Symlink(victim+"-none", path) },
			"a pipe":               func(path, _ string) error { return unix.Mkfifo(path, 0o644) },
			"a folder":             func(path, _ string) error { return os.Mkdir(path, 0o755) },
			"a folder with a file": func(path, _ string) error { return os.MkdirAll(path+"/file", 0o755) },
		} {
			dir := t.TempDir()
			victim := filepath.Join(dir, "victim")
			require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
			b, err := OpenAt(filepath.Join(dir, "book"))
			require.NoError(t, err)
			require.NoError(t, lay(b.path(name), victim))
			_, err = b.Acquire(t.Context(), all("GPU-a"), Holder{}, noWait)
			require.Error(t, err, kind)
			assert.Contains(t, err.Error(), b.path(name), kind)
			assert.Contains(t, err.Error(), "belongs to user", kind)
			assert.Contains(t, advice.Text(err, ""), "root may remove it", kind)
			_, err = b.Status()
			assert.NoError(t, err, kind)
			text, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, "precious", string(text))
			info, err := os.Stat(victim)
			require.NoError(t, err)
			assert.EqualValues(t, 0o600, info.Mode())
			assert.NoFileExists(t, victim+"-none")
		}
	}
	// A hard link is a regular file. It can be locked, and keeps its mode and content.
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	b, err := OpenAt(filepath.Join(dir, "book"))
	require.NoError(t, err)
	require.NoError(t, os.Link(victim, b.path("gpu.GPU-a")))
	take(t, b, all("GPU-a"))
	info, err := os.Stat(victim)
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode())

	// Somebody's file that isn't readable for others is as good as locked for good: it
	// says so. Root reads everything.
	if os.Getuid() == 0 {
		dir, program := openPlace(t)
		b, err := OpenAt(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(b.path("gpu.GPU-a"), nil, 0o600))
		c := play("hold", b, "NAME=x", `REQUEST={"Count":1,"Candidates":["GPU-a"]}`)
		someone(t, 54321, program)(c)
		c.Stderr = nil
		out, err := c.CombinedOutput()
		assert.Error(t, err)
		assert.Contains(t, string(out), "permission denied (it belongs to user 0)")
	}
}

// TestNonsenseInTheFolder has records that no Berth wrote.
func TestNonsenseInTheFolder(t *testing.T) {
	b := openBook(t)
	for name, text := range map[string]string{
		"queue-000000000001":          "", // in the place of a pipe
		"queue-000000000002.json":     `{"uuids":["GPU-a"],"count":1}`,
		"queue-999999999999":          "",
		"queue-x":                     "",
		"lease-0000000000000000":      "",
		"lease-0000000000000000.json": `{"uuids":["GPU-a"]}`,
		"lease-y":                     "",
		"stranger":                    "",
	} {
		require.NoError(t, os.WriteFile(b.path(name), []byte(text), 0o644))
	}
	require.NoError(t, os.Symlink("/etc/passwd", b.path("queue-000000000003")))
	l := take(t, b, all("GPU-a"))
	s, err := b.Status()
	require.NoError(t, err)
	require.Len(t, s.Leases, 1)
	assert.Empty(t, s.Queue)
	require.NoError(t, l.Close())
	assert.Contains(t, entries(t, b.dir), "stranger")

	// It lives, and talks: whoever waits for its end isn't misled, and what it says
	// doesn't get to a terminal as it is.
	e, ok := parse([]byte(`{"name":"` + `\u001b[2J` + strings.Repeat("x", 300) + `","uuids":["GPU-a"]}`))
	require.True(t, ok)
	assert.Len(t, e.Name, 256)
	assert.True(t, strings.HasPrefix(e.Name, "?[2Jx"), e.Name)
}

// TestALockWhoseFileIsGone has somebody remove the files, as a cleaner of temporary
// folders does.
func TestALockWhoseFileIsGone(t *testing.T) {
	b := openBook(t)
	waits := holder(t, b, "old", all("GPU-a"), nil)
	got := queued(t, t.Context(), b, all("GPU-a"))
	for _, n := range entries(t, b.dir) {
		require.NoError(t, os.Remove(b.path(n)))
	}
	waits.done()
	require.NoError(t, get(t, got).Close())
	require.NoError(t, take(t, b, all("GPU-a")).Close())
}

// TestALeaseOutlivesItsLocksFile has somebody remove that alone: a new file of the name
// can be locked, but the GPU is taken.
func TestALeaseOutlivesItsLocksFile(t *testing.T) {
	b := openBook(t)
	l := take(t, b, all("GPU-a"))
	require.NoError(t, os.Remove(b.path("gpu.GPU-a")))
	for _, r := range []Request{all("GPU-a"), {Count: 1, Candidates: []string{"GPU-a"}, Busy: idle}} {
		_, err := b.Acquire(t.Context(), r, Holder{}, noWait)
		assert.ErrorIs(t, err, errWait)
	}
	assert.Equal(t, []string{"GPU-b"}, take(t, b, one("GPU-a", "GPU-b")).UUIDs())
	got := queued(t, t.Context(), b, all("GPU-a"))
	require.NoError(t, l.Close())
	require.NoError(t, get(t, got).Close())
}

func idle(context.Context) ([]string, error) { return nil, nil }

// TestNobodyCleansTheFolderUnderALease plays systemd-tmpfiles, which leaves alone what it
// can't lock.
func TestNobodyCleansTheFolderUnderALease(t *testing.T) {
	b := openBook(t)
	cleans := func() bool {
		f, err := os.Open(b.dir)
		require.NoError(t, err)
		defer f.Close()
		locked, err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		require.NoError(t, err)
		return locked
	}
	l := take(t, b, all("GPU-a"))
	assert.False(t, cleans())
	heir := exec.Command("sleep", "100")
	heir.ExtraFiles = l.Files()
	require.NoError(t, heir.Start())
	require.NoError(t, l.Close())
	assert.False(t, cleans(), "a keeper holds the lease")
	require.NoError(t, heir.Process.Kill())
	heir.Wait()
	assert.True(t, cleans())

	// Who waits alone is known by files there, too.
	f, err := os.Open(b.path("gpu.GPU-a"))
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	got := queued(t, t.Context(), b, all("GPU-a"))
	assert.False(t, cleans())
	require.NoError(t, f.Close())
	require.NoError(t, get(t, got).Close())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"a","user":"b","uid":1,"pid":2,"since":"2026-01-01T00:00:00Z","uuids":["GPU-a"],"count":1}`))
	f.Add([]byte(`{"uuids":["../x"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, ok := parse(text)
		if !ok {
			return
		}
		if strings.ContainsAny(e.Name+e.User+strings.Join(e.UUIDs, ""), "\x1b\n\r\x00") || len(e.UUIDs) == 0 || e.PID < 0 {
			t.Fatalf("%q gives %+v", text, e)
		}
	})
}
