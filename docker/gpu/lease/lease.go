// Package lease shares the GPUs of a machine between people, shells and CI
// runners: a lease gives one launch whole GPUs, or MIG instances, for its life. It
// knows UUIDs and processes, neither nvidia-smi nor Docker.
//
// A GPU is held by whoever has the lock (flock(2)) on the file of its UUID. The
// kernel gives the lock back when the last process that has the file open ends, in
// whatever way, so nothing has to be cleaned up before the next one may go on. Who
// wants GPUs takes a number. A request may take a GPU only once no request with a
// smaller number wants that GPU, and takes all that it asks for at once. So a request
// for four isn't overtaken by a stream of requests for one, and no two can wait for
// each other: one waits for smaller numbers and for leases alone, and a lease waits
// for nothing.
//
// Next to the locks the folder has two files for each lease and each waiting
// request: NAME.json says whose it is, and NAME is a named pipe that its process
// keeps open for writing. Whoever waits for it opens the pipe for reading, and
// reads its end in the moment in which it ends: no polling, no thread in a
// blocking system call, and, other than with a lock, trying whether it lives
// disturbs nobody. What isn't on record, such as a GPU that somebody locks with
// flock(1), is honoured too; it alone is asked for again and again.
package lease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// ErrHeld is in the chain of errors about GPUs that others held for too long.
var ErrHeld = errors.New("held by others")

// A Holder is who has a lease or waits for one.
type Holder struct {
	Name  string    `json:"name"`  // of what runs, such as the container's
	User  string    `json:"user"`  // as the holder says: only UID is proven
	UID   int       `json:"uid"`   // owner of the record's files; set by Acquire
	PID   int       `json:"pid"`   // of the process that asked for the lease; set by Acquire; 0 if unknown
	Since time.Time `json:"since"` // of the lease or, for one who waits, of the request; set by Acquire
}

// A Request asks for Count of the Candidates, which are UUIDs in order of
// preference. A Count of all of them asks for exactly these.
type Request struct {
	Count      int
	Candidates []string

	// Busy returns those candidates that somebody uses without a lease, which aren't
	// taken then. It is asked when enough of the others are free, and every now and
	// then while it says that they aren't. Nil leaves only leases to count.
	Busy func(context.Context) ([]string, error) `json:"-"`
}

func (r Request) check() error {
	if r.Count < 1 || r.Count > len(r.Candidates) {
		return fmt.Errorf("%d of %d GPUs can't be leased", r.Count, len(r.Candidates))
	}
	for i, uuid := range r.Candidates {
		if !isUUID(uuid) {
			return fmt.Errorf("%q isn't the UUID of a GPU", uuid)
		}
		if slices.Contains(r.Candidates[:i], uuid) {
			return fmt.Errorf("the GPU %s is asked for twice", uuid)
		}
	}
	return nil
}

// An Entry is a lease, or a request that waits for one.
type Entry struct {
	Holder
	UUIDs []string `json:"uuids"`           // that the lease has, or of which the request wants some
	Count int      `json:"count,omitempty"` // how many the request wants; 0 in a lease
}

// Waiting is what a request waits for.
type Waiting struct {
	Ahead []Entry  // requests that came before and want some of the same GPUs
	Held  []Entry  // leases of GPUs that the request wants
	Busy  []string // UUIDs that no lease has, but that Request.Busy returned
}

// A Lease holds GPUs until it is closed. A nil Lease holds none.
type Lease struct {
	book  Book
	name  string // of its record
	entry Entry
	alive *os.File   // the record's named pipe
	locks []*os.File // of the GPUs, and the folder's (see Book.keep)
}

// UUIDs returns the GPUs that the lease holds, in the order of the request.
func (l *Lease) UUIDs() []string {
	if l == nil {
		return nil
	}
	return l.entry.UUIDs
}

// Since returns when the lease began.
func (l *Lease) Since() time.Time {
	if l == nil {
		return time.Time{}
	}
	return l.entry.Since
}

// Files returns the open files that the lease consists of. A process that inherits
// all of them, as by exec.Cmd.ExtraFiles, holds the lease as well, for as long as it
// lives or until it has closed them.
func (l *Lease) Files() []*os.File {
	if l == nil {
		return nil
	}
	return append(slices.Clone(l.locks), l.alive)
}

// Close gives up this process's share of the lease. The GPUs are free once every
// process that inherited the files has done so, too.
func (l *Lease) Close() error {
	if l == nil {
		return nil
	}
	// Closed and not unlocked: unlocking would take the lock from heirs, too. The pipe
	// comes last, since its end says that the locks are free.
	err := closeAll(l.locks)
	l.locks = nil
	err = errors.Join(err, l.alive.Close())
	if p, e := l.book.pulse(l.name); e == nil {
		p.Close() // an heir's from now on
	} else {
		l.book.remove(l.name)
	}
	if err != nil {
		return fmt.Errorf("giving back GPUs: %w", err)
	}
	return nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
