package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

var eight = []string{"GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5", "GPU-6", "GPU-7"}

// An observer sees that no two processes have one GPU, by files of its own: for each
// GPU one that its process makes, and must not find, and one to which each adds a
// line. It uses no lock, and believes nothing of the package.
type observer struct{ dir string }

func (o observer) marker(gpu string) string { return filepath.Join(o.dir, gpu+".marker") }

func (o observer) note(gpu, what string) error {
	f, err := os.OpenFile(filepath.Join(o.dir, gpu+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, what, os.Getpid())
	return errors.Join(err, f.Close())
}

// enter says that this process has a GPU now. Whoever had it before has said that
// they haven't, or they are dead or dying: the kernel releases a lock shortly before it
// calls a process dead.
func (o observer) enter(gpu string) error {
	for late := time.Now().Add(20 * time.Second); ; {
		f, err := os.OpenFile(o.marker(gpu), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			_, err = fmt.Fprint(f, os.Getpid())
			return errors.Join(err, f.Close(), o.note(gpu, "enter"))
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
		text, err := os.ReadFile(o.marker(gpu))
		if err != nil {
			return fmt.Errorf("VIOLATION: whoever had %s when process %d entered has just left it", gpu, os.Getpid())
		}
		// Killed before it had written its number? Then nobody can tell who it was.
		pid, err := strconv.Atoi(string(text))
		if len(text) > 0 && (err != nil || !alive(pid)) || len(text) == 0 && time.Now().After(late) {
			if err := os.Remove(o.marker(gpu)); err != nil {
				return err
			}
		} else if time.Now().After(late) {
			return fmt.Errorf("VIOLATION: processes %d and %d both have %s", pid, os.Getpid(), gpu)
		}
		time.Sleep(time.Millisecond)
	}
}

func (o observer) leave(gpu string) error {
	text, err := os.ReadFile(o.marker(gpu))
	if err == nil && string(text) != strconv.Itoa(os.Getpid()) {
		err = fmt.Errorf("VIOLATION: %s has the mark of %s, when %d leaves it", gpu, text, os.Getpid())
	}
	return errors.Join(err, o.note(gpu, "leave"), os.Remove(o.marker(gpu)))
}

// alive reports whether a process is neither gone nor a zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := strings.TrimSpace(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return rest[0] != 'Z' && rest[0] != 'X'
}

// A contest is what a process that contended for GPUs saw: moments of now.
type contest struct {
	Count          int
	Called, Waited int64 // of Acquire: when it was called, and when it said that it waits; 0 if it didn't
	Got            int64 // when the lease began
}

// playContender gets some of eight GPUs, holds them for a while, and says what it saw
// as soon as it holds them. With DIE set it holds them until it is killed.
func playContender() error {
	b, err := Open()
	if err != nil {
		return err
	}
	o := observer{os.Getenv("OBSERVER")}
	c := contest{Called: now()}
	if c.Count, err = strconv.Atoi(os.Getenv("COUNT")); err != nil {
		return err
	}
	candidates := slices.Clone(eight)
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	l, err := b.Acquire(context.Background(), Request{Count: c.Count, Candidates: candidates}, Holder{Name: "contender"}, func(Waiting) error {
		if c.Waited == 0 {
			c.Waited = now()
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Two clocks, until they are read at nearly the same moment.
	for tight := false; !tight; {
		before := now()
		held := time.Since(l.Since())
		c.Got, tight = before-held.Nanoseconds(), now()-before < int64(500*time.Microsecond)
	}
	for _, gpu := range l.UUIDs() {
		if err := o.enter(gpu); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		return err
	}
	if os.Getenv("DIE") != "" {
		select {}
	}
	time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	for _, gpu := range l.UUIDs() {
		if err := o.leave(gpu); err != nil {
			return err
		}
	}
	return l.Close()
}

// TestContention lets many processes contend for eight GPUs, one to four each. A
// tenth of them are killed while they hold some, and a tenth at any moment.
func TestContention(t *testing.T) {
	processes := 40
	if testenv.Long() {
		processes = 200
	}
	b, o := openBook(t), observer{t.TempDir()}
	var mu sync.Mutex
	var seen []contest
	var work sync.WaitGroup
	for i := range processes {
		c := play("contend", b, "OBSERVER="+o.dir, fmt.Sprintf("COUNT=%d", 1+i%4))
		if i%10 == 9 {
			c.Env = append(c.Env, "DIE=1")
		}
		if i%10 == 4 {
			c.Env = append(c.Env, "DIE=1") // if it gets so far
			work.Go(func() { assert.NoError(t, killAnyTime(c)) })
			continue
		}
		work.Go(func() {
			saw, err := contend(c, i%10 == 9)
			mu.Lock()
			defer mu.Unlock()
			if assert.NoError(t, err) {
				seen = append(seen, saw)
			}
		})
	}
	work.Wait()
	assert.Len(t, seen, processes*9/10, "not all of them got their GPUs")
	waited := 0
	for _, a := range seen {
		if a.Waited == 0 {
			continue
		}
		waited++
		for _, z := range seen {
			// z came when a was waiting already. Both clocks are read around the same moment;
			// a millisecond is for the two readings.
			assert.False(t, z.Called > a.Waited && z.Got < a.Got-int64(time.Millisecond), "%+v was overtaken by %+v", a, z)
		}
	}
	t.Logf("%d of %d waited", waited, len(seen))
	assert.NotZero(t, waited, "there was no contention")
	for _, gpu := range eight {
		checkLog(t, o, gpu)
	}
}

// contend runs a contender, and kills it once it holds its GPUs if it is to die.
func contend(c *exec.Cmd, die bool) (saw contest, err error) {
	out, err := c.StdoutPipe()
	if err != nil {
		return saw, err
	}
	if err := c.Start(); err != nil {
		return saw, err
	}
	err = json.NewDecoder(out).Decode(&saw)
	if die {
		c.Process.Kill()
		c.Wait()
		return saw, err
	}
	return saw, errors.Join(err, c.Wait())
}

// killAnyTime kills a contender, which may be starting, waiting or holding GPUs.
func killAnyTime(c *exec.Cmd) error {
	if err := c.Start(); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	err := c.Process.Kill()
	c.Wait()
	return err
}

// checkLog checks the lines about a GPU: each process leaves before the next enters,
// unless it was killed.
func checkLog(t *testing.T, o observer, gpu string) {
	text, err := os.ReadFile(filepath.Join(o.dir, gpu+".log"))
	require.NoError(t, err)
	var has string
	for line := range strings.Lines(string(text)) {
		what, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "leave" {
			assert.Equal(t, has, pid, "%s: one left that didn't have it", gpu)
		}
		has = pid
	}
}
