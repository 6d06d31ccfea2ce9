package launch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// Role is the value of the role label on every container that this package
// makes.
const Role = "run"

// labelLock, on a container, names the machine and the file whose lock the
// launching process holds as long as it lives.
const labelLock = "dev.berth.lock"

// A scratch is a folder for the files of one launch. What is left of it, and of
// the containers that carry its labels, when the process is killed, is removed
// by the next command.
type scratch struct {
	path   string
	remove func()
}

func newScratch(dir cache.Dir) (scratch, error) {
	path, remove, err := dir.Temp("run")
	return scratch{path, remove}, err
}

func (s scratch) labels() map[string]string {
	host, _ := os.Hostname()
	return map[string]string{
		daemon.LabelRole:  Role,
		daemon.LabelOwner: owner(),
		labelLock:         host + ":" + s.path + ".lock",
	}
}

func owner() string { return strconv.Itoa(os.Getuid()) }

// abandoned lists the caller's containers whose launching process is dead.
func abandoned(ctx context.Context, d *daemon.Client) ([]daemon.Status, error) {
	all, err := d.Containers(ctx, daemon.LabelRole+"="+Role, daemon.LabelOwner+"="+owner())
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	var dead []daemon.Status
	for _, c := range all {
		// Of a launch on another machine that shares the daemon nothing is known.
		if on, lock, ok := strings.Cut(c.Labels[labelLock], ":"); ok && on == host && free(lock) {
			dead = append(dead, c)
		}
	}
	return dead, nil
}

// free says that no process holds the lock.
func free(lock string) bool {
	l := flock.New(lock, flock.SetFlag(os.O_RDONLY)) // doesn't create the file
	held, err := l.TryLock()
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer l.Unlock()
	return held
}

// Reap removes what killed launches of the caller left in Docker, and returns
// the names of the containers. It touches none without Berth's labels, none of
// another person, and none whose launch lives. (cache.Open removes their files.)
func Reap(ctx context.Context, d *daemon.Client) ([]string, error) {
	dead, err := abandoned(ctx, d)
	if err != nil {
		return nil, err
	}
	return reap(ctx, d, dead)
}

func reap(ctx context.Context, d *daemon.Client, dead []daemon.Status) ([]string, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var names []string
	for _, c := range dead {
		names = append(names, c.Name)
		g.Go(func() error {
			err := d.Remove(ctx, c.ID)
			if errors.Is(err, daemon.ErrConflict) {
				return nil // another launch or the daemon itself is removing it
			}
			return err
		})
	}
	return names, g.Wait()
}
