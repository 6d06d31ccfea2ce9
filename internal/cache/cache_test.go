package cache

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary play the process that dies with a temporary
// folder and a lock in its hands, or with half a file.
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
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	mine := filepath.Join(dir, ".file-1") // somebody's own
	require.NoError(t, os.WriteFile(mine, nil, 0o644))
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "BERTH_TEST_HALF="+name)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	halves, err := filepath.Glob(filepath.Join(dir, "*"+partSuffix))
	require.NoError(t, err)
	require.Len(t, halves, 1)
	require.NoError(t, child.Process.Kill())
	child.Wait()

	require.NoError(t, WriteFile(name, []byte("whole"), 0o644))
	assert.FileExists(t, halves[0], "its writer might live")
	long := time.Now().Add(-2 * partAge)
	for _, name := range []string{halves[0], mine} {
		require.NoError(t, os.Chtimes(name, long, long))
	}
	require.NoError(t, WriteFile(name, []byte("whole"), 0o644))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, left, 2)
	assert.FileExists(t, mine)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "whole", string(text))
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
	for _, name := range []string{"layers/old", "layers/used", "layers/new", "contexts/old/deep/file", "other/old"} {
		require.NoError(t, WriteFile(d.Path(name), nil, 0o644))
	}
	for _, name := range []string{"layers/old", "layers/used", "contexts/old", "other/old"} {
		require.NoError(t, os.Chtimes(d.Path(name), long, long))
	}
	assert.True(t, Use(d.Path("layers/used")))
	assert.False(t, Use(d.Path("layers/missing")))
	require.NoError(t, d.Prune(24*time.Hour, "layers", "contexts", "missing"))
	assert.NoFileExists(t, d.Path("layers/old"))
	assert.NoDirExists(t, d.Path("contexts/old"))
	for _, name := range []string{"layers/used", "layers/new", "other/old"} {
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

func TestMakeKeepsTheOldWhenItFails(t *testing.T) {
	d := open(t)
	temp, remove, err := d.Temp("x")
	require.NoError(t, err)
	name := d.Path("deeper", "file")
	write := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			io.WriteString(w, text)
			return err
		}
	}
	require.NoError(t, Make(name, temp, write("old", nil)))
	require.ErrorIs(t, Make(name, temp, write("new", io.ErrShortWrite)), io.ErrShortWrite)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left)
	remove()
}
