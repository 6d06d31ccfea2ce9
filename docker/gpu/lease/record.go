package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// What the names of records begin with.
const (
	queuePrefix = "queue-" // and its number: a request that waits
	leasePrefix = "lease-" // and random digits: a lease
)

const textSuffix = ".json"

// textLimit is more than any record has, in bytes.
const textLimit = 64 << 10

// write makes a record, and returns the pipe that says that its process lives. The
// caller has the gate.
func (b Book) write(name string, e Entry) (alive *os.File, err error) {
	defer func() {
		if err != nil {
			b.remove(name)
			err = fmt.Errorf("writing down a lease of GPUs: %w", err)
		}
	}()
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	// Neither of them may be there: whatever is, isn't ours.
	if err := unix.Mkfifo(b.path(name), 0o644); err != nil {
		return nil, &os.PathError{Op: "mkfifo", Path: b.path(name), Err: err}
	}
	// For reading as well, so that it needs no reader.
	if alive, err = os.OpenFile(b.path(name), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0); err != nil {
		return nil, err
	}
	// Who owns the folder could have put something else there since: not even its mode
	// is changed.
	if info, err := alive.Stat(); err != nil || info.Mode().Type() != fs.ModeNamedPipe || owner(info) != os.Geteuid() {
		alive.Close()
		return nil, errors.Join(err, fmt.Errorf("%s isn't the named pipe that was made", alive.Name()))
	}
	if err := errors.Join(alive.Chmod(0o644), b.writeText(name, text)); err != nil {
		alive.Close()
		return nil, err
	}
	return alive, nil
}

func (b Book) writeText(name string, text []byte) error {
	f, err := os.OpenFile(b.path(name+textSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Chmod(0o644), f.Close()) // whatever the umask
}

// remove removes a record, if whoever calls may. Another's stays until its owner, or
// root, comes by: to be dead is enough for it to count no more.
func (b Book) remove(name string) {
	os.Remove(b.path(name + textSuffix))
	os.Remove(b.path(name))
}

// errDead is about a record whose process doesn't live.
var errDead = errors.New("dead")

// pulse returns the pipe of a record, which ends when its process does. The error is
// errDead if it has ended, and fs.ErrNotExist if there is no record. It disturbs
// nobody.
func (b Book) pulse(name string) (*os.File, error) {
	f, err := os.OpenFile(b.path(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	} else if err != nil {
		return nil, errDead // by a hand that isn't Berth's
	}
	if info, err := f.Stat(); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		f.Close()
		return nil, errDead
	}
	conn, err := f.SyscallConn()
	if err == nil {
		if e := conn.Read(func(fd uintptr) bool {
			_, err = unix.Read(int(fd), make([]byte, 1))
			return true
		}); e != nil {
			err = e
		}
	}
	// With nobody to write to it, it would be at its end.
	if !errors.Is(err, unix.EAGAIN) {
		f.Close()
		return nil, errDead
	}
	return f, nil
}

// read returns what a record says, and whether it can be trusted to be its
// process's own: a text of another owner than the pipe's is somebody's joke.
func (b Book) read(name string, pipe *os.File) (Entry, bool) {
	f, err := os.OpenFile(b.path(name+textSuffix), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Entry{}, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return Entry{}, false
	}
	if of, err := pipe.Stat(); err != nil || owner(of) != owner(info) {
		return Entry{}, false
	}
	text, err := io.ReadAll(io.LimitReader(f, textLimit))
	if err != nil {
		return Entry{}, false
	}
	e, ok := parse(text)
	e.UID = owner(info)
	return e, ok
}

// parse reads the text of a record, which anybody may have written: nothing of it
// moves a terminal's cursor.
func parse(text []byte) (Entry, bool) {
	var e Entry
	if json.Unmarshal(text, &e) != nil || len(e.UUIDs) == 0 || e.Count < 0 || e.PID < 0 {
		return Entry{}, false
	}
	if slices.ContainsFunc(e.UUIDs, func(uuid string) bool { return !isUUID(uuid) }) {
		return Entry{}, false
	}
	e.Name, e.User = printable(e.Name), printable(e.User)
	return e, true
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s[:min(len(s), 256)])
}

// recordNames are those that Berth gives.
var recordNames = regexp.MustCompile(`^(queue-[0-8][0-9]{11}|lease-[0-9a-f]{16})$`)

// names lists the records with a prefix, also those of which half is missing.
func (b Book) names(prefix string) ([]string, error) {
	dir, err := os.Open(b.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	var records []string
	for _, n := range all {
		if n := strings.TrimSuffix(n, textSuffix); strings.HasPrefix(n, prefix) && recordNames.MatchString(n) {
			records = append(records, n)
		}
	}
	slices.Sort(records)
	return slices.Compact(records), err
}

// A living record is one whose process lives. Its pipe is open.
type living struct {
	Entry
	name string
	pipe *os.File
}

// living returns the records with a prefix whose processes live. The caller closes
// the pipes.
func (b Book) living(prefix string) ([]living, error) {
	names, err := b.names(prefix)
	if err != nil {
		return nil, fmt.Errorf("reading the leases of GPUs: %w", err)
	}
	var all []living
	for _, n := range names {
		if pipe, err := b.pulse(n); err == nil {
			if e, ok := b.read(n, pipe); ok {
				all = append(all, living{e, n, pipe})
			} else {
				pipe.Close()
			}
		}
	}
	return all, nil
}

// leased returns the GPUs that living leases name.
func (b Book) leased() (uuids []string, err error) {
	all, err := b.living(leasePrefix)
	for _, l := range all {
		l.pipe.Close()
		uuids = append(uuids, l.UUIDs...)
	}
	return uuids, err
}

// look returns the living leases, the oldest first, and requests, the next one
// first. Their pipes are closed.
func (b Book) look() (leases, queue []living, err error) {
	// In this order, so that a request that becomes a lease meanwhile isn't missed.
	if queue, err = b.living(queuePrefix); err != nil {
		return nil, nil, err
	}
	leases, err = b.living(leasePrefix)
	for _, l := range slices.Concat(queue, leases) {
		l.pipe.Close()
	}
	slices.SortStableFunc(leases, func(a, b living) int { return a.Since.Compare(b.Since) })
	return leases, queue, err
}
