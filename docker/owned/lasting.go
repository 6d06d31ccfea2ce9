package owned

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// KeptFor is how long the output and the exit code of a lasting container stay in the
// cache after its end.
const KeptFor = 7 * 24 * time.Hour

// TailLines is how many of the last lines Ended.Tail has.
const TailLines = "5"

// A Lasting is what is known of a container that outlives the command that made it.
type Lasting struct {
	Name  string    `json:"name"`
	Image string    `json:"image"`
	User  string    `json:"user"`           // name of the person
	GPUs  string    `json:"gpus,omitempty"` // as daemon.LabelGPUs has them
	TTY   bool      `json:"tty,omitempty"`
	Since time.Time `json:"since"`
}

// An Ended is a lasting container that has ended and is gone.
type Ended struct {
	Lasting
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
	Code  int       `json:"code"`           // exit code
	Lost  bool      `json:"lost,omitempty"` // somebody else removed it: nobody knows what it wrote, nor its exit code
	Tail  []byte    `json:"tail,omitempty"` // the last lines of the log, in its form

	log string
}

// Log opens what the container wrote, in the form that daemon.Client.Logs has.
func (e Ended) Log() (*os.File, error) {
	f, err := os.Open(e.log)
	if err != nil {
		return nil, fmt.Errorf("reading what %s wrote: %w", e.Name, err)
	}
	return f, nil
}

// endedFolder is the folder of the cache with what ended containers left: for each
// a record and a log, by the name of the claim.
const endedFolder = "launches"

func endedPath(dir cache.Dir, claim string) string {
	_, random, _ := strings.Cut(claim, "-") // as Prune wants names
	return dir.Path(endedFolder, random)
}

// LastingContainer creates a container that outlives this process. Who made it calls
// Save and Close once it has ended or, if the process is killed, another one's Sweep
// does what they do.
func (s *Scope) LastingContainer(ctx context.Context, spec daemon.Container, l Lasting) (id string, err error) {
	return s.container(ctx, spec, &l)
}

// Save saves what a lasting container of the scope that has ended wrote, and its exit
// code.
func (s *Scope) Save(ctx context.Context, id string, l Lasting) error {
	status, err := s.docker.Inspect(ctx, id)
	if err != nil && !errors.Is(err, daemon.ErrNotFound) {
		return err
	}
	return save(ctx, s.dir, s.docker, claimOf(s.claim), Ended{Lasting: l, ID: id}, status)
}

// Leave gives the scope up as it is: a Sweep, of this process or another, does the rest.
func (s *Scope) Leave() {
	s.cancel()
	s.noting.Wait()
	s.claim.Leave()
}

// save writes the log and the record of a container that has ended, or that isn't
// there, which an empty status says.
func save(ctx context.Context, dir cache.Dir, docker *daemon.Client, claim string, e Ended, s daemon.Status) error {
	name := endedPath(dir, claim)
	e.Until, e.Code, e.Lost = s.Finished, s.ExitCode, s.ID == ""
	if e.Lost {
		if cache.ReadRecord(name+".json", &Ended{}) {
			return nil // it was saved, and then removed
		}
		e.Until = time.Now()
	}
	logs := func(w io.Writer, tail string) error {
		if e.Lost {
			return nil
		}
		log, err := docker.Logs(ctx, e.ID, tail, false)
		if err != nil {
			return err
		}
		defer log.Close()
		_, err = io.Copy(w, log)
		return err
	}
	var tail bytes.Buffer
	err := errors.Join(logs(&tail, TailLines), cache.Write(name+".log", 0o600, func(w io.Writer) error { return logs(w, "all") }))
	e.Tail = tail.Bytes()
	if err == nil {
		err = cache.WriteRecord(name+".json", e)
	}
	if err != nil {
		return fmt.Errorf("saving what %s wrote: %w", e.Name, err)
	}
	return dir.Prune(KeptFor, endedFolder)
}

// AllEnded lists the lasting containers that have ended within the time that they are
// kept for, the latest last.
func AllEnded(dir cache.Dir) ([]Ended, error) {
	if err := dir.Prune(KeptFor, endedFolder); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir.Path(endedFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var all []Ended
	for _, entry := range entries {
		base, isRecord := strings.CutSuffix(entry.Name(), ".json")
		e := Ended{log: dir.Path(endedFolder, base+".log")}
		if isRecord && cache.ReadRecord(dir.Path(endedFolder, entry.Name()), &e) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Ended) int { return a.Until.Compare(b.Until) })
	return all, nil
}

// A Made is a container that a claim names, whether its process lives or not.
type Made struct {
	ID      string
	Lasting *Lasting // nil if the container ends with its process
}

// Containers lists the containers on record in claims. They may be gone by now.
func Containers(dir cache.Dir) ([]Made, error) {
	claims, err := dir.Notes()
	var all []Made
	for _, notes := range claims {
		for _, o := range objects(notes) {
			if o.container.ID != "" {
				all = append(all, Made{o.container.ID, o.container.Lasting})
			}
		}
	}
	return all, err
}

// Kept reports whether a living process has a container on record in its claim. One on another
// machine, whose locks can't be seen from here, counts as dead: nothing is removed for that.
func Kept(dir cache.Dir, id string) (bool, error) {
	claims, err := dir.Notes()
	for name, notes := range claims {
		if slices.ContainsFunc(objects(notes), func(o object) bool { return o.container.ID == id }) && dir.Held(name) {
			return true, nil
		}
	}
	return false, err
}

// save saves a lasting container of a dead process that has ended or is gone, and
// reports whether it stays instead: it lives, or isn't in this daemon.
func (o object) save(ctx context.Context, dir cache.Dir, docker *daemon.Client, claim string) (stays bool, err error) {
	if o.container.Lasting == nil || o.container.ID == "" {
		return false, nil
	}
	s, err := docker.Inspect(ctx, o.container.ID)
	switch {
	case errors.Is(err, daemon.ErrNotFound):
		if is, err := docker.ID(ctx); err != nil || o.daemon != "" && o.daemon != is {
			return true, err
		}
	case err != nil:
		return false, err
	case s.State == "created":
		return false, nil // its keeper was killed before it could start it
	case !s.Ended():
		return true, nil
	}
	return false, save(ctx, dir, docker, claim, Ended{Lasting: *o.container.Lasting, ID: o.container.ID}, s)
}
