package cache

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gofrs/flock"
)

// A Claim is the record of what one process has made and is going to remove: a
// folder of its own in the cache and, by notes, things elsewhere. A lock beside
// the folder is held as long as the process lives. When it dies while it holds
// the claim, others find it by Abandoned, and remove what it names.
//
// A claim is the one proof that something is Berth's: where it is lost, nothing is
// removed.
type Claim struct {
	path  string
	lock  *flock.Flock
	notes []json.RawMessage // of a dead process
	parts []string          // files that it was writing
}

// notesName is the file in the claim's folder with a line for the process, and
// one for each note.
const notesName = ".notes"

// claimNames are the folders that Claim makes, and nobody else.
var claimNames = regexp.MustCompile(`^[a-z]+-[0-9a-f]{16}$`)

const lockSuffix = ".lock"

// Claim makes a folder and the record of it. The prefix is a word of small letters.
func (d Dir) Claim(prefix string) (*Claim, error) {
	for {
		var random [8]byte
		rand.Read(random[:])
		c := &Claim{path: d.Path("tmp", prefix+"-"+hex.EncodeToString(random[:]))}
		// First the lock, which says that its owner lives: a folder without one is
		// nobody's, and never removed.
		c.lock = flock.New(c.path + lockSuffix)
		held, err := c.lock.TryLock()
		if err != nil {
			os.Remove(c.lock.Path())
			return nil, fmt.Errorf("making a temporary folder: %w", explainLock(err))
		}
		// Between the making of the lock's file and the locking, another process may
		// have taken it for a dead one's.
		if held && sameFile(c.lock) {
			if err := errors.Join(os.Mkdir(c.path, 0o700), c.note(thisProcess(), false)); err != nil {
				c.Release()
				return nil, fmt.Errorf("making a temporary folder: %w. Name another place in BERTH_CACHE", err)
			}
			return c, nil
		}
		c.lock.Unlock()
	}
}

// sameFile reports whether the file that is locked is still the one of its name.
func sameFile(l *flock.Flock) bool {
	locked, err := l.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(l.Path())
	return err == nil && os.SameFile(locked, named)
}

// Path is the claim's folder, which nobody else can enter.
func (c *Claim) Path() string { return c.path }

// Note records something that the process is about to make, or has made, outside
// of the folder; v goes through JSON. With lasting, the note is on the disk when
// Note returns: that is for what outlives a crash of the machine.
func (c *Claim) Note(v any, lasting bool) error {
	if err := c.note(v, lasting); err != nil {
		return fmt.Errorf("recording what is being made: %w", err)
	}
	return nil
}

func (c *Claim) note(v any, lasting bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(c.path, notesName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(noteLine(data))
	if err == nil && lasting {
		err = errors.Join(f.Sync(), Sync(c.path))
	}
	return errors.Join(err, f.Close())
}

// noteLine is a line of the notes: a checksum, so that damage doesn't make a name
// into another one, and the note.
func noteLine(data []byte) []byte {
	sum := sha256.Sum256(data)
	return fmt.Appendf(nil, "%x %s\n", sum[:8], data)
}

// parseNotes returns the notes whose lines are whole, in order.
func parseNotes(data []byte) []json.RawMessage {
	var notes []json.RawMessage
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, text, _ := bytes.Cut(lines.Bytes(), []byte{' '})
		if json.Valid(text) && bytes.Equal(noteLine(text), append(bytes.Clone(lines.Bytes()), '\n')) {
			notes = append(notes, json.RawMessage(bytes.Clone(text)))
		}
	}
	return notes
}

// Notes returns what a dead process noted, in order.
func (c *Claim) Notes() []json.RawMessage { return c.notes }

// Release removes the folder and the record. What was noted must be gone by now.
func (c *Claim) Release() {
	for _, p := range c.parts {
		os.Remove(p)
	}
	os.RemoveAll(c.path)
	os.Remove(c.lock.Path())
	c.lock.Unlock()
}

// Leave gives a claim that Abandoned returned back as it is, for another time.
func (c *Claim) Leave() { c.lock.Unlock() }

// Abandoned returns the claims of processes that died with something noted. They
// are the caller's, who calls Release or Leave for each. Claims of which nobody can
// tell from here, because their process was on another machine, aren't among them.
func (d Dir) Abandoned() ([]*Claim, error) {
	return d.dead(func(c *Claim) bool { return len(c.notes) > 0 })
}

// Notes returns what all claims noted, of living processes and of dead ones, by the
// names of their folders. Nothing is locked: what they name may be gone by now.
func (d Dir) Notes() (map[string][]json.RawMessage, error) {
	entries, err := os.ReadDir(d.Path("tmp"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	all := map[string][]json.RawMessage{}
	for _, e := range entries {
		if !claimNames.MatchString(e.Name()) {
			continue
		}
		data, err := os.ReadFile(d.Path("tmp", e.Name(), notesName))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it begins, or ends
		} else if err != nil {
			return nil, err
		}
		if notes := parseNotes(data); len(notes) > 1 {
			_, all[e.Name()] = splitParts(notes[1:])
		}
	}
	return all, nil
}

// Held reports whether a living process has the claim of that name, as far as locks tell: those
// of another machine may not be seen.
func (d Dir) Held(name string) bool {
	lock := flock.New(d.Path("tmp", name+lockSuffix), flock.SetFlag(os.O_RDWR)) // doesn't create the file
	free, err := lock.TryLock()
	if free {
		lock.Unlock()
	}
	return err == nil && !free
}

// sweep removes the temporary folders whose owners are dead and noted nothing.
func (d Dir) sweep() error {
	claims, err := d.dead(func(c *Claim) bool { return len(c.notes) == 0 })
	for _, c := range claims {
		c.Release()
	}
	return err
}

// dead locks and returns the claims of dead processes that are wanted.
func (d Dir) dead(wanted func(*Claim) bool) ([]*Claim, error) {
	entries, err := os.ReadDir(d.Path("tmp"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var claims []*Claim
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock || !claimNames.MatchString(name) {
			continue
		}
		c := &Claim{path: d.Path("tmp", name), lock: flock.New(d.Path("tmp", e.Name()), flock.SetFlag(os.O_RDWR))} // doesn't create the file
		held, err := c.lock.TryLock()
		if err != nil || !held {
			continue // its process lives, or it is gone by now
		}
		if !sameFile(c.lock) || !c.read() || !wanted(c) {
			c.lock.Unlock()
			continue
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// read reads the notes of a claim whose lock is free, and reports whether its
// process is dead for certain. A free lock alone doesn't tell: a file system may be
// shared between machines and its locks not.
func (c *Claim) read() bool {
	data, err := os.ReadFile(filepath.Join(c.path, notesName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	c.notes = parseNotes(data)
	if len(c.notes) == 0 {
		return true // it died before it could make anything
	}
	var p process
	if json.Unmarshal(c.notes[0], &p) != nil || p.PID == 0 {
		return false // damaged: nothing is known of it
	}
	c.parts, c.notes = splitParts(c.notes[1:])
	return !p.mayBeAlive(thisProcess(), startOf)
}

// splitParts returns the half files among notes, and the other notes.
func splitParts(notes []json.RawMessage) (parts []string, others []json.RawMessage) {
	for _, n := range notes {
		var p part
		if json.Unmarshal(n, &p) == nil && filepath.IsAbs(p.Part) && strings.HasSuffix(p.Part, partSuffix) {
			parts = append(parts, p.Part)
		} else {
			others = append(others, n)
		}
	}
	return parts, others
}
