package lease

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Status is everything that a book says.
type Status struct {
	Leases []Entry // the oldest first; one without a PID is a GPU that is locked by other means than Acquire
	Queue  []Entry // requests that wait, the next one first
}

// Status returns who holds which GPUs, and who waits, of all people.
func (b Book) Status() (Status, error) {
	leases, queue, err := b.look()
	if err != nil {
		return Status{}, err
	}
	locked, err := b.unexplained(leases, queue)
	if err == nil && len(locked) > 0 {
		// Or by somebody who came in this moment, and is on record by now.
		if leases, queue, err = b.look(); err == nil {
			locked, err = b.unexplained(leases, queue)
		}
	}
	var s Status
	for _, l := range leases {
		s.Leases = append(s.Leases, l.Entry)
	}
	for _, q := range queue {
		s.Queue = append(s.Queue, q.Entry)
	}
	for _, uuid := range locked {
		s.Leases = append(s.Leases, Entry{UUIDs: []string{uuid}})
	}
	return s, err
}

// unexplained returns the GPUs that are locked though no record names them. (A
// request may have a lock for the moment in which it asks whether the GPU is idle.)
func (b Book) unexplained(leases, queue []living) (locked []string, err error) {
	known := map[string]bool{}
	for _, l := range slices.Concat(leases, queue) {
		for _, uuid := range l.UUIDs {
			known[lockName(uuid)] = true
		}
	}
	files, err := os.ReadDir(b.dir)
	for _, f := range files {
		if uuid, ok := strings.CutPrefix(f.Name(), lockPrefix); ok && !known[f.Name()] && b.locked(f.Name()) {
			locked = append(locked, uuid)
		}
	}
	return locked, err
}

// locked reports whether somebody has a lock. Who would take it in this very moment
// asks again a moment later.
func (b Book) locked(name string) bool {
	f, err := os.OpenFile(b.path(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	free, err := flock(f, unix.LOCK_SH|unix.LOCK_NB)
	return err == nil && !free
}
