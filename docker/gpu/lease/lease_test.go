package lease

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestALeaseExcludesOthers(t *testing.T) {
	b := openBook(t)
	first := take(t, b, one("GPU-a", "GPU-b"))
	assert.Equal(t, []string{"GPU-a"}, first.UUIDs())
	second := take(t, b, one("GPU-a", "GPU-b"))
	assert.Equal(t, []string{"GPU-b"}, second.UUIDs(), "the first one is held")
	for _, r := range []Request{one("GPU-a", "GPU-b"), all("GPU-a"), all("GPU-c", "GPU-b")} {
		_, err := b.Acquire(t.Context(), r, Holder{}, noWait)
		assert.ErrorIs(t, err, errWait)
	}
	take(t, b, all("GPU-c")) // of which nothing was kept
	require.NoError(t, second.Close())
	assert.Equal(t, []string{"GPU-b"}, take(t, b, one("GPU-a", "GPU-b")).UUIDs())
	_, err := b.Acquire(t.Context(), all("GPU-a", "GPU-b"), Holder{}, noWait)
	assert.ErrorIs(t, err, errWait)
}

func TestNothingIsLeftInTheFolder(t *testing.T) {
	b := openBook(t)
	l := take(t, b, all("GPU-a"))
	ctx, cancel := context.WithCancel(t.Context())
	gone := queued(t, ctx, b, all("GPU-a"))
	cancel()
	assert.Nil(t, get(t, gone))
	next := queued(t, t.Context(), b, all("GPU-a"))
	require.NoError(t, l.Close())
	require.NoError(t, get(t, next).Close())
	entries, err := os.ReadDir(b.dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.Equal(t, []string{"gate", "gpu.GPU-a"}, names)
}

func TestFirstComeFirstServed(t *testing.T) {
	b := openBook(t)
	gpus := []string{"GPU-a", "GPU-b", "GPU-c", "GPU-d"}
	var held []*Lease
	for _, g := range gpus {
		held = append(held, take(t, b, all(g)))
	}
	four := queued(t, t.Context(), b, all(gpus...))
	after := queued(t, t.Context(), b, one(gpus...))
	elsewhere := take(t, b, all("GPU-e")) // which nobody before it wants
	for _, l := range held[:3] {
		require.NoError(t, l.Close())
	}
	// Three are idle, but promised.
	_, err := b.Acquire(t.Context(), one(gpus...), Holder{}, noWait)
	assert.ErrorIs(t, err, errWait)
	s, err := b.Status()
	require.NoError(t, err)
	require.Len(t, s.Leases, 2, "held without need: %+v", s)
	require.Len(t, s.Queue, 2)
	assert.Equal(t, []int{4, 1}, []int{s.Queue[0].Count, s.Queue[1].Count})

	require.NoError(t, held[3].Close())
	l := get(t, four)
	assert.Equal(t, gpus, l.UUIDs())
	assert.Empty(t, after, "it is behind the one that has them all")
	require.NoError(t, l.Close())
	require.NoError(t, get(t, after).Close())
	require.NoError(t, elsewhere.Close())
}

func TestWhoWaitsForOtherGPUsIsNotInTheWay(t *testing.T) {
	b := openBook(t)
	a := take(t, b, all("GPU-a"))
	first := queued(t, t.Context(), b, all("GPU-a"))
	require.Equal(t, []string{"GPU-b"}, take(t, b, one("GPU-a", "GPU-b")).UUIDs())
	// The third one is behind the first at a, and waits for b's lease as well.
	third := queued(t, t.Context(), b, one("GPU-a", "GPU-b"))
	require.NoError(t, a.Close())
	l := get(t, first)
	assert.Empty(t, third)
	require.NoError(t, l.Close())
	assert.Equal(t, []string{"GPU-a"}, get(t, third).UUIDs())
}

func TestADeadWaiterLeavesTheQueue(t *testing.T) {
	b := openBook(t)
	held := take(t, b, all("GPU-a"))
	c := play("hold", b, "NAME=dead", `REQUEST={"Count":1,"Candidates":["GPU-a"]}`)
	require.NoError(t, c.Start())
	require.Eventually(t, func() bool {
		s, err := b.Status()
		require.NoError(t, err)
		return len(s.Queue) == 1
	}, 10*time.Second, time.Millisecond)
	next := queued(t, t.Context(), b, all("GPU-a"))
	require.NoError(t, held.Close())
	// Whichever of the two moments is first: it waits, or it holds.
	require.NoError(t, c.Process.Kill())
	c.Wait()
	require.NoError(t, get(t, next).Close())
}

func TestTheKernelTakesTheLeaseFromTheDead(t *testing.T) {
	b := openBook(t)
	p := holder(t, b, "dead", all("GPU-a", "GPU-b"), nil)
	got := queued(t, t.Context(), b, all("GPU-b"))
	require.NoError(t, p.Process.Kill())
	l := get(t, got)
	s, err := b.Status()
	require.NoError(t, err)
	require.Len(t, s.Leases, 1)
	assert.Equal(t, os.Getpid(), s.Leases[0].PID)
	take(t, b, all("GPU-c"))
	names, err := b.names(leasePrefix)
	require.NoError(t, err)
	assert.Len(t, names, 2, "the next one removes the dead one's record")
	assert.Contains(t, names, l.name)
}

func TestAnHeirHoldsTheLease(t *testing.T) {
	b := openBook(t)
	l := take(t, b, all("GPU-a"))
	heir := exec.Command("sleep", "100")
	heir.ExtraFiles = l.Files()
	require.NoError(t, heir.Start())
	require.NoError(t, l.Close())
	_, err := b.Acquire(t.Context(), all("GPU-a"), Holder{}, noWait)
	assert.ErrorIs(t, err, errWait)
	s, err := b.Status()
	require.NoError(t, err)
	require.Len(t, s.Leases, 1)
	assert.Equal(t, t.Name(), s.Leases[0].Name)

	got := queued(t, t.Context(), b, all("GPU-a"))
	require.NoError(t, heir.Process.Kill())
	heir.Wait()
	require.NoError(t, get(t, got).Close())
}

func TestALockWithoutARecordCounts(t *testing.T) {
	b := openBook(t)
	require.NoError(t, take(t, b, all("GPU-a")).Close())
	f, err := os.Open(b.path("gpu.GPU-a"))
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	s, err := b.Status()
	require.NoError(t, err)
	assert.Equal(t, []Entry{{UUIDs: []string{"GPU-a"}}}, s.Leases)
	got := queued(t, t.Context(), b, all("GPU-a"))
	require.NoError(t, f.Close())
	require.NoError(t, get(t, got).Close())
}

func TestGPUsThatAreInUseWithoutALease(t *testing.T) {
	b := openBook(t)
	asked := 0
	r := one("GPU-a", "GPU-b")
	r.Busy = func(context.Context) ([]string, error) { asked++; return []string{"GPU-a"}, nil }
	l, err := b.Acquire(t.Context(), r, Holder{}, noWait)
	require.NoError(t, err)
	assert.Equal(t, []string{"GPU-b"}, l.UUIDs())
	r.Candidates = []string{"GPU-a"}
	var told Waiting
	_, err = b.Acquire(t.Context(), r, Holder{}, func(w Waiting) error { told = w; return errWait })
	assert.ErrorIs(t, err, errWait)
	assert.Equal(t, Waiting{Busy: []string{"GPU-a"}}, told)
	assert.Equal(t, 2, asked)

	// It ends, and nobody says so.
	r.Busy = func(context.Context) ([]string, error) {
		if asked++; asked > 3 {
			return nil, nil
		}
		return []string{"GPU-a"}, nil
	}
	a, err := b.Acquire(t.Context(), r, Holder{}, nil)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	unknown := errors.New("nobody knows")
	r.Busy = func(context.Context) ([]string, error) { return nil, unknown }
	_, err = b.Acquire(t.Context(), r, Holder{}, nil)
	assert.ErrorIs(t, err, unknown)
	take(t, b, all("GPU-a"))
}

func TestTheEndOfTheContextEndsTheWait(t *testing.T) {
	b := openBook(t)
	take(t, b, all("GPU-a"))
	late := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Millisecond, late)
	defer cancel()
	_, err := b.Acquire(ctx, all("GPU-a"), Holder{}, nil)
	assert.ErrorIs(t, err, late)
	s, err := b.Status()
	require.NoError(t, err)
	assert.Empty(t, s.Queue)
}

func TestWhoWaitsIsToldWhatFor(t *testing.T) {
	b := openBook(t)
	p := holder(t, b, "training", all("GPU-a"), nil)
	told := make(chan Waiting, 10)
	done := make(chan error)
	go func() {
		l, err := b.Acquire(t.Context(), all("GPU-a"), Holder{Name: "next", User: "me"}, func(w Waiting) error { told <- w; return nil })
		done <- errors.Join(err, l.Close())
	}()
	w := <-told
	require.Len(t, w.Held, 1)
	assert.Equal(t, "training", w.Held[0].Name)
	assert.Equal(t, "somebody", w.Held[0].User)
	assert.Equal(t, os.Geteuid(), w.Held[0].UID)
	assert.Equal(t, p.Process.Pid, w.Held[0].PID)
	assert.WithinDuration(t, time.Now(), w.Held[0].Since, time.Minute)
	assert.Empty(t, w.Ahead)
	_, err := b.Acquire(t.Context(), all("GPU-a"), Holder{}, func(w Waiting) error {
		require.Len(t, w.Ahead, 1)
		assert.Equal(t, "next", w.Ahead[0].Name)
		assert.Len(t, w.Held, 1)
		return errWait
	})
	assert.ErrorIs(t, err, errWait)
	p.done()
	require.NoError(t, <-done)
}

func TestImpossibleRequests(t *testing.T) {
	b := openBook(t)
	for says, r := range map[string]Request{
		"0 of 1 GPUs":  {Candidates: []string{"GPU-a"}},
		"2 of 1 GPUs":  {Count: 2, Candidates: []string{"GPU-a"}},
		"twice":        all("GPU-a", "GPU-a"),
		"isn't the UU": all("../GPU-a"),
	} {
		_, err := b.Acquire(t.Context(), r, Holder{}, nil)
		assert.ErrorContains(t, err, says)
	}
	assert.NoError(t, (*Lease)(nil).Close())
	assert.Empty(t, (*Lease)(nil).Files())
	take(t, b, all("MIG-GPU-a/1/0", "MIG-b"))
}
