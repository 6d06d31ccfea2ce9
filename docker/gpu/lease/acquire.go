package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	busyAgain    = 2 * time.Second // between two questions to Request.Busy, which may take as long itself
	waitingAgain = 5 * time.Second // between two looks at what a person is told

	// passingTime is how long a lock without a record is no reason to speak of a wait: its
	// process is about to write the record, has just died, or has only asked about it.
	passingTime = 16 * time.Millisecond
)

// Acquire waits until the request can be met, and returns the lease. While it
// waits it holds nothing of what it asks for, unless for the moments in which it asks
// Busy. It is met no later than any request that came after it and wants one of the
// same GPUs, unless that one's process came to hold them by other means.
//
// waiting, which may be nil, is called when there is a wait, and whenever it is for
// something else. An error that it returns ends the wait, as does ctx.
func (b Book) Acquire(ctx context.Context, r Request, h Holder, waiting func(Waiting) error) (*Lease, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	h.UID, h.PID = os.Geteuid(), os.Getpid()
	folder, err := b.keep(ctx)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	t, err := b.queue(ctx, r, h)
	if err != nil {
		return nil, err
	}
	defer t.leave()
	t.waiting = waiting
	for {
		l, why, err := t.try(ctx, h)
		if err == nil && l == nil {
			err = t.wait(ctx, why)
		}
		why.close()
		if err != nil || l != nil {
			return l, err
		}
	}
}

// retry is the time between two looks at what has no record to wait for.
type retry time.Duration

// next doubles it, up to a limit.
func (r *retry) next() time.Duration {
	*r = min(max(2**r, retry(time.Millisecond)), retry(250*time.Millisecond))
	return time.Duration(*r)
}

// A turn is a request in the queue.
type turn struct {
	book    Book
	request Request
	number  string // name of its record
	alive   *os.File
	earlier []string // names of the records of requests before it, the nearest first; there will never be more

	waiting func(Waiting) error
	told    *Waiting
	retry   retry
}

// queue gives a request its number.
func (b Book) queue(ctx context.Context, r Request, h Holder) (*turn, error) {
	leave, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := b.sweep(); err != nil {
		return nil, err
	}
	earlier, err := b.names(queuePrefix)
	if err != nil {
		return nil, err
	}
	slices.Reverse(earlier)
	h.Since = time.Now()
	t := &turn{book: b, request: r, earlier: earlier}
	last := 0
	if len(earlier) > 0 {
		last, _ = strconv.Atoi(strings.TrimPrefix(earlier[0], queuePrefix)) // it has digits alone
	}
	t.number = fmt.Sprintf("%s%012d", queuePrefix, last+1)
	t.alive, err = b.write(t.number, Entry{Holder: h, UUIDs: r.Candidates, Count: r.Count})
	return t, err
}

// leave gives the number back, so that whoever waits for it goes on.
func (t *turn) leave() {
	t.book.remove(t.number)
	t.alive.Close()
}

// blocked is what stands between a request and its lease.
type blocked struct {
	ahead   []living // requests before it that want the same
	held    []living // leases of what it may take
	unknown bool     // something is locked that no record names
	busy    []string // is used without a lease
}

func (b blocked) close() {
	for _, l := range slices.Concat(b.ahead, b.held) {
		l.pipe.Close()
	}
}

// try takes the lease if it is the request's turn, or returns what it waits for.
func (t *turn) try(ctx context.Context, h Holder) (*Lease, blocked, error) {
	var why blocked
	var mine []string
	mine, why.ahead = t.front()
	if len(mine) < t.request.Count {
		return nil, why, nil
	}
	locks, taken, err := t.lock(mine)
	if err == nil && len(locks) >= t.request.Count {
		locks, why.busy, err = t.idle(ctx, locks)
		if err == nil && len(locks) >= t.request.Count {
			for _, l := range locks[t.request.Count:] {
				l.file.Close()
			}
			l, err := t.begin(ctx, h, locks[:t.request.Count])
			return l, why, err
		}
	}
	for _, l := range locks {
		l.file.Close()
	}
	if err == nil {
		why.held, why.unknown, err = t.holders(taken)
	}
	return nil, why, err
}

// front returns the candidates that no earlier request wants, and the requests that
// want the others.
func (t *turn) front() (mine []string, ahead []living) {
	mine = slices.Clone(t.request.Candidates)
	t.earlier = slices.DeleteFunc(t.earlier, func(n string) bool {
		if len(mine) == 0 {
			return false // whether it lives makes no difference now
		}
		pipe, err := t.book.pulse(n)
		if err == errDead {
			t.book.remove(n)
		}
		if err != nil {
			return true
		}
		e, ok := t.book.read(n, pipe)
		rest := slices.DeleteFunc(slices.Clone(mine), func(uuid string) bool { return slices.Contains(e.UUIDs, uuid) })
		if !ok || len(rest) == len(mine) {
			pipe.Close()
			return !ok
		}
		mine, ahead = rest, append(ahead, living{e, n, pipe})
		return false
	})
	return mine, ahead
}

// A lock is that of a GPU.
type lock struct {
	uuid string
	file *os.File
}

// lock locks those of some GPUs that are free, and as many as are of use; taken are
// those that aren't. One that a lease names is taken, whatever its lock says: if the
// lock's file was removed, the lease has that of another one.
func (t *turn) lock(uuids []string) (locks []lock, taken []string, err error) {
	leased, err := t.book.leased()
	if err != nil {
		return nil, nil, err
	}
	for _, uuid := range uuids {
		if t.request.Busy == nil && len(locks) == t.request.Count {
			break
		}
		if slices.Contains(leased, uuid) {
			taken = append(taken, uuid)
			continue
		}
		f, err := t.book.tryLock(lockName(uuid))
		if err != nil {
			return locks, nil, err
		}
		if f == nil {
			taken = append(taken, uuid)
		} else {
			locks = append(locks, lock{uuid, f})
		}
	}
	return locks, taken, nil
}

// idle gives back the locks of GPUs that somebody uses without a lease.
func (t *turn) idle(ctx context.Context, locks []lock) (idle []lock, busy []string, err error) {
	if t.request.Busy == nil {
		return locks, nil, nil
	}
	all, err := t.request.Busy(ctx)
	if err != nil {
		return locks, nil, err
	}
	for _, l := range locks {
		if slices.Contains(all, l.uuid) {
			l.file.Close()
			busy = append(busy, l.uuid)
		} else {
			idle = append(idle, l)
		}
	}
	return idle, busy, nil
}

// holders returns the leases of locked GPUs, and whether one of those has none.
func (t *turn) holders(taken []string) (held []living, unknown bool, err error) {
	if len(taken) == 0 {
		return nil, false, nil
	}
	all, err := t.book.living(leasePrefix)
	if err != nil {
		return nil, false, err
	}
	missing := slices.Clone(taken)
	for _, l := range all {
		before := len(missing)
		missing = slices.DeleteFunc(missing, func(uuid string) bool { return slices.Contains(l.UUIDs, uuid) })
		if len(missing) == before {
			l.pipe.Close()
		} else {
			held = append(held, l)
		}
	}
	return held, len(missing) > 0, nil
}

// begin makes a lease of locks, and closes them if it can't.
func (t *turn) begin(ctx context.Context, h Holder, locks []lock) (*Lease, error) {
	l := &Lease{book: t.book}
	for _, k := range locks {
		l.locks = append(l.locks, k.file)
		l.entry.UUIDs = append(l.entry.UUIDs, k.uuid)
	}
	folder, err := t.book.keep(ctx)
	if err == nil {
		l.locks = append(l.locks, folder)
		err = l.write(ctx, h)
	}
	if err != nil {
		closeAll(l.locks)
		return nil, err
	}
	return l, nil
}

// write makes the record of a lease.
func (l *Lease) write(ctx context.Context, h Holder) error {
	leave, err := l.book.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	h.Since = time.Now()
	l.entry.Holder = h
	var random [8]byte
	rand.Read(random[:])
	l.name = leasePrefix + hex.EncodeToString(random[:])
	l.alive, err = l.book.write(l.name, l.entry)
	return err
}

// sweep removes the records of dead processes. The caller has the gate: so none is
// about to be made.
func (b Book) sweep() error {
	names, err := b.names(leasePrefix)
	for _, n := range names {
		if pipe, err := b.pulse(n); err == nil {
			pipe.Close()
		} else {
			b.remove(n)
		}
	}
	return err
}

// wait returns when something has changed of what the request is blocked by, or may
// have. Its reads end when that is closed.
func (t *turn) wait(ctx context.Context, why blocked) error {
	pipes := slices.Concat(why.ahead, why.held)
	if err := t.tell(why); err != nil {
		return err
	}
	ended := make(chan struct{}, len(pipes))
	for _, p := range pipes {
		go func() {
			io.Copy(io.Discard, p.pipe)
			ended <- struct{}{}
		}()
	}
	var again <-chan time.Time
	switch {
	case why.unknown:
		again = time.After(t.retry.next())
	case len(why.busy) > 0:
		again = time.After(busyAgain)
	case t.waiting != nil:
		again = time.After(waitingAgain)
	}
	if !why.unknown {
		t.retry = 0
	}
	select {
	case <-ended:
	case <-again:
	case <-ctx.Done():
		return fmt.Errorf("waiting for GPUs: %w", context.Cause(ctx))
	}
	return nil
}

// tell tells the person what the request waits for, if that isn't what it was. That is
// more than what it is blocked by: also who is before those that are before it.
func (t *turn) tell(why blocked) error {
	passing := why.unknown && len(why.ahead)+len(why.held)+len(why.busy) == 0 && t.retry < retry(passingTime)
	if t.waiting == nil || passing {
		return nil
	}
	leases, queue, err := t.book.look()
	if err != nil {
		return err
	}
	w := Waiting{Busy: why.busy}
	wanted := func(e Entry) bool {
		return slices.ContainsFunc(e.UUIDs, func(uuid string) bool { return slices.Contains(t.request.Candidates, uuid) })
	}
	for _, l := range leases {
		if wanted(l.Entry) {
			w.Held = append(w.Held, l.Entry)
		}
	}
	for _, q := range queue {
		if q.name < t.number && wanted(q.Entry) {
			w.Ahead = append(w.Ahead, q.Entry)
		}
	}
	if t.told != nil && reflect.DeepEqual(*t.told, w) {
		return nil
	}
	t.told = &w
	return t.waiting(w)
}
