package cache

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestMain lets the test binary play the process that dies while it holds a
// temporary folder and a lock, or with half a file.
func TestMain(m *testing.M) {
	if name := os.Getenv("BERTH_TEST_HALF"); name != "" {
		panic(Write(name, 0o644, func(w io.Writer) error {
			io.WriteString(w, "half")
			os.Stdout.WriteString("half\n")
			time.Sleep(time.Hour)
			return nil
		}))
	}
	if os.Getenv("BERTH_TEST_HOLD") == "" {
		os.Exit(m.Run())
	}
	d, err := Open()
	if err != nil {
		panic(err)
	}
	path, _, err := d.Temp("held")
	if err != nil {
		panic(err)
	}
	if _, err := d.Lock(context.Background(), "held", nil); err != nil {
		panic(err)
	}
	os.Stdout.WriteString(path + "\n")
	time.Sleep(time.Hour)
}

func open(t *testing.T) Dir {
	t.Setenv("BERTH_CACHE", t.TempDir())
	d, err := Open()
	require.NoError(t, err)
	return d
}

func TestKilledOwnerLeavesNothing(t *testing.T) {
	d := open(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "BERTH_TEST_HOLD=1")
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	held := line[:len(line)-1]

	_, err = Open()
	require.NoError(t, err)
	assert.DirExists(t, held, "a living owner's folder was removed")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	waited := false
	_, err = d.Lock(ctx, "held", func() { waited = true })
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.True(t, waited)

	require.NoError(t, child.Process.Kill())
	child.Wait()
	_, err = Open()
	require.NoError(t, err)
	left, err := os.ReadDir(d.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
	unlock, err := d.Lock(t.Context(), "held", nil)
	require.NoError(t, err)
	unlock()
}

func TestTempIsRemoved(t *testing.T) {
	d := open(t)
	path, remove, err := d.Temp("x")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o644))
	remove()
	left, err := os.ReadDir(d.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestTempSurvivesSweeps(t *testing.T) {
	d := open(t)
	done := make(chan struct{})
	var sweeps sync.WaitGroup
	for range 2 {
		sweeps.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					assert.NoError(t, d.sweep())
				}
			}
		})
	}
	for range 300 {
		path, remove, err := d.Temp("x")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(path, "f"), nil, 0o644), "a sweep took a living owner's folder")
		remove()
	}
	close(done)
	sweeps.Wait()
}

func TestLockExcludes(t *testing.T) {
	d := open(t)
	var group sync.WaitGroup
	var inside atomic.Int32
	for range 8 {
		group.Go(func() {
			unlock, err := d.Lock(context.Background(), "one", nil)
			if !assert.NoError(t, err) {
				return
			}
			defer unlock()
			assert.EqualValues(t, 1, inside.Add(1))
			time.Sleep(time.Millisecond)
			inside.Add(-1)
		})
	}
	group.Wait()
}

func TestWriteFileKeepsTheOldWhenItFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a", "file")
	require.NoError(t, WriteFile(name, []byte("old"), 0o600))
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())

	// A folder can't be replaced by a file.
	dir := filepath.Join(filepath.Dir(name), "dir")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "x"), 0o755))
	assert.Error(t, WriteFile(dir, []byte("new"), 0o644))
	left, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	assert.Len(t, left, 2, "a temporary file was left")
}

func TestKilledWriterLeavesNothing(t *testing.T) {
	open(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	mine := filepath.Join(dir, ".0123456789abcdef"+partSuffix) // somebody's own
	require.NoError(t, os.WriteFile(mine, nil, 0o644))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "BERTH_TEST_HALF="+name)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	halves := func() []string {
		found, err := filepath.Glob(filepath.Join(dir, ".*"+partSuffix))
		require.NoError(t, err)
		return found
	}
	_, err = Open()
	require.NoError(t, err)
	assert.Len(t, halves(), 2, "its writer lives")
	require.NoError(t, child.Process.Kill())
	child.Wait()
	_, err = Open()
	require.NoError(t, err)
	assert.Equal(t, []string{mine}, halves())
}

func TestOpenSaysWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	t.Setenv("BERTH_CACHE", file)
	_, err := Open()
	assert.ErrorContains(t, err, "Name another one in BERTH_CACHE")
}

func TestPrune(t *testing.T) {
	d := open(t)
	long := time.Now().Add(-48 * time.Hour)
	const entry, used, fresh = "0123456789abcdef", "1123456789abcdef.tar", "2123456789abcdef"
	for _, name := range []string{"layers/" + entry, "layers/" + used, "layers/" + fresh, "contexts/context-" + entry + "/deep/file",
		"other/" + entry, "layers/thesis"} {
		require.NoError(t, WriteFile(d.Path(name), nil, 0o644))
	}
	for _, name := range []string{"layers/" + entry, "layers/" + used, "contexts/context-" + entry, "other/" + entry, "layers/thesis"} {
		require.NoError(t, os.Chtimes(d.Path(name), long, long))
	}
	assert.True(t, Use(d.Path("layers", used)))
	assert.False(t, Use(d.Path("layers/missing")))
	require.NoError(t, d.Prune(24*time.Hour, "layers", "contexts", "missing"))
	assert.NoFileExists(t, d.Path("layers", entry))
	assert.NoDirExists(t, d.Path("contexts", "context-"+entry))
	for _, name := range []string{"layers/" + used, "layers/" + fresh, "other/" + entry, "layers/thesis"} {
		assert.FileExists(t, d.Path(name))
	}
}

func TestUseRarelyChangesTheTime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, nil, 0o644))
	for _, c := range []struct {
		age  time.Duration
		kept bool
	}{{time.Hour, true}, {25 * time.Hour, false}} {
		before := time.Now().Add(-c.age).Truncate(time.Second)
		require.NoError(t, os.Chtimes(name, before, before))
		require.True(t, Use(name))
		info, err := os.Stat(name)
		require.NoError(t, err)
		assert.Equal(t, c.kept, info.ModTime().Equal(before), c.age)
	}
}

func TestKeepAndFind(t *testing.T) {
	d := open(t)
	temp, remove, err := d.Temp("x")
	require.NoError(t, err)
	defer remove()
	name := d.Path("deeper", "0123-1.tar.zst")
	write := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			io.WriteString(w, text)
			return err
		}
	}
	found, err := Find(name)
	require.NoError(t, err)
	assert.Empty(t, found)
	kept, err := Keep(name, temp, 0o644, write("content", nil))
	require.NoError(t, err)
	_, err = Keep(name, temp, 0o644, write("half", io.ErrShortWrite))
	require.ErrorIs(t, err, io.ErrShortWrite)
	assert.Equal(t, []string{notesName}, names(t, temp))
	for _, stranger := range []string{"0123-1.tar.zst", "0123-1.txt", "0123-1." + "ab" + ".tar.zst", "0123-12.tar.zst"} {
		require.NoError(t, os.WriteFile(d.Path("deeper", stranger), []byte("x"), 0o644))
	}
	found, err = Find(name)
	require.NoError(t, err)
	assert.Equal(t, kept, found)
	text, err := os.ReadFile(found)
	require.NoError(t, err)
	assert.Equal(t, "content", string(text))

	for what, damaged := range damages(text) {
		_, err := Keep(name, temp, 0o644, write("content", nil))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(kept, damaged, 0o644))
		found, err := Find(name)
		require.NoError(t, err)
		assert.Empty(t, found, what)
		assert.NoFileExists(t, kept, what)
	}
	assert.Len(t, names(t, d.Path("deeper")), 4, "strangers' files stay")
}

// damages are the ways in which a file can be damaged.
func damages(content []byte) map[string][]byte {
	flipped := append([]byte{}, content...)
	flipped[len(content)/2] ^= 1
	return map[string][]byte{
		"flipped": flipped, "cut": content[:len(content)-1], "emptied": {}, "appended to": append(append([]byte{}, content...), 'x'),
	}
}

func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestRecords(t *testing.T) {
	d := open(t)
	name := d.Path("x", "record.json")
	require.NoError(t, WriteRecord(name, map[string]string{"a": "b\nc"}))
	var have map[string]string
	require.True(t, ReadRecord(name, &have))
	assert.Equal(t, map[string]string{"a": "b\nc"}, have)
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	for what, damaged := range damages(content) {
		require.NoError(t, os.WriteFile(name, damaged, 0o644))
		assert.False(t, ReadRecord(name, &have), what)
	}
	assert.False(t, ReadRecord(d.Path("missing"), &have))
}

// TestStrangersFiles opens, fills and prunes caches in folders with files of others,
// which stay.
func TestStrangersFiles(t *testing.T) {
	files := []string{"tmp/thesis/chapter", "tmp/run-0123456789abcdef/x", "tmp/notes.lock", "layers/0123456789abcdef", "letter"}
	fill := func(root string) {
		old := time.Now().Add(-1000 * time.Hour)
		for _, f := range files {
			name := filepath.Join(root, f)
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(t, os.WriteFile(name, []byte(f), 0o644))
			require.NoError(t, os.Chtimes(name, old, old))
			require.NoError(t, os.Chtimes(filepath.Dir(name), old, old))
		}
	}
	t.Run("before it is a cache", func(t *testing.T) {
		root := t.TempDir()
		fill(root)
		t.Setenv("BERTH_CACHE", root)
		before := names(t, root)
		info, err := os.Stat(root)
		require.NoError(t, err)
		_, err = Open()
		assert.ErrorContains(t, err, "isn't Berth's cache")
		assert.ErrorContains(t, err, "export BERTH_CACHE=")
		assert.Equal(t, before, names(t, root))
		after, err := os.Stat(root)
		require.NoError(t, err)
		assert.Equal(t, info.Mode(), after.Mode())
		for _, f := range files {
			assert.FileExists(t, filepath.Join(root, f))
		}
	})
	t.Run("in what is a cache", func(t *testing.T) {
		d := open(t)
		fill(string(d))
		_, err := Open()
		require.NoError(t, err)
		for _, f := range files {
			assert.FileExists(t, d.Path(f))
		}
		require.NoError(t, d.Prune(time.Hour, "tmp"))
		assert.FileExists(t, d.Path("tmp/thesis/chapter"))
		assert.FileExists(t, d.Path("tmp/run-0123456789abcdef/x"))
	})
}

// TestFirstOpenedAtOnce opens new caches many times at once: each call is the first
// to look, and one of them is the first to make the folder.
func TestFirstOpenedAtOnce(t *testing.T) {
	parent := t.TempDir()
	for n := range 200 {
		root := filepath.Join(parent, strconv.Itoa(n))
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				_, err := OpenAt(root)
				return err
			})
		}
		require.NoError(t, group.Wait())
	}
}

func TestCacheIsPrivate(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "b")
	t.Setenv("BERTH_CACHE", root)
	for _, mode := range []os.FileMode{0, 0o755} {
		if mode != 0 {
			require.NoError(t, os.Chmod(root, mode))
		}
		_, err := Open()
		require.NoError(t, err)
		info, err := os.Stat(root)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	}
}

func TestWriteFollowsLinksAndKeepsDevices(t *testing.T) {
	open(t)
	dir := t.TempDir()
	for link, target := range map[string]string{"link": "file", "dangling": "new"} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("old"), 0o644))
	for link, target := range map[string]string{"link": "file", "dangling": "new"} {
		require.NoError(t, WriteFile(filepath.Join(dir, link), []byte(link), 0o644))
		text, err := os.ReadFile(filepath.Join(dir, target))
		require.NoError(t, err)
		assert.Equal(t, link, string(text))
		_, err = os.Readlink(filepath.Join(dir, link))
		assert.NoError(t, err, "the link was replaced")
	}
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	assert.Error(t, WriteFile(filepath.Join(dir, "loop"), nil, 0o644))

	// A link that leads up, from a folder that is a link.
	other := filepath.Join(t.TempDir(), "deeper")
	require.NoError(t, os.Mkdir(other, 0o755))
	require.NoError(t, os.Symlink(other, filepath.Join(dir, "folder")))
	require.NoError(t, os.Symlink("../up", filepath.Join(other, "link")))
	require.NoError(t, WriteFile(filepath.Join(dir, "folder", "link"), []byte("up"), 0o644))
	assert.FileExists(t, filepath.Join(filepath.Dir(other), "up"))

	null := filepath.Join(dir, "null")
	require.NoError(t, os.Symlink(os.DevNull, null))
	require.NoError(t, WriteFile(null, []byte("gone"), 0o644))
	info, err := os.Stat(null)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeDevice, "the device was replaced")
	assert.ErrorIs(t, Write("/dev/full", 0o644, func(w io.Writer) error {
		_, err := w.Write([]byte("x"))
		return err
	}), syscall.ENOSPC)
	assert.Len(t, names(t, dir), 7)
}

func TestMayLive(t *testing.T) {
	me := process{PID: 7, Start: "100", Boot: "b", Machine: "m", Space: "s"}
	start := func(pid int) string { return map[int]string{7: "100", 8: "200"}[pid] }
	for name, c := range map[string]struct {
		change func(*process)
		may    bool
	}{
		"alive":                            {func(p *process) {}, true},
		"ended":                            {func(p *process) { p.PID = 9 }, false},
		"its number is another's":          {func(p *process) { p.PID, p.Start = 8, "100" }, false},
		"before the machine was restarted": {func(p *process) { p.Boot = "a" }, false},
		"on another machine":               {func(p *process) { p.Machine, p.Boot = "n", "a" }, true},
		"in another container":             {func(p *process) { p.Space = "t" }, false},
	} {
		p := me
		c.change(&p)
		assert.Equal(t, c.may, p.mayBeAlive(me, start), name)
	}
	assert.NotEmpty(t, startOf(os.Getpid()))
	assert.Empty(t, startOf(1<<30))
}

func FuzzParseNotes(f *testing.F) {
	f.Add([]byte("x"))
	f.Add(append(noteLine([]byte(`{"pid":1}`)), noteLine([]byte(`{"container":{"id":"x"}}`))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var all []byte
		for _, n := range parseNotes(data) {
			all = append(all, noteLine(n)...)
		}
		assert.Equal(t, len(parseNotes(data)), len(parseNotes(all)))
	})
}
