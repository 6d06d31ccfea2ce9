package dockertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// Process begins the name of everything that this test process makes in Docker.
var Process = prefix + random()

// Main runs a package's tests apart from the builds of whoever works here: with
// an engine of their own, removed at the end with all else that bears this
// process's name, and with the cache of all tests. That one lasts, so that what
// is downloaded or compiled once serves every package; a test that looks into
// its cache takes one of its own (Cache). What killed test processes left in
// Docker goes first. Main returns the exit code.
func Main(m *testing.M) int {
	cleanUp, err := begin(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "preparing Docker for the tests:", err)
		return 1
	}
	code := m.Run()
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "removing what the tests made in Docker:", err)
		return max(code, 1)
	}
	return code
}

func begin(ctx context.Context) (cleanUp func() error, err error) {
	root, err := root(os.Getenv(envCache), os.UserCacheDir)
	if err != nil {
		return nil, err
	}
	os.Setenv(envCache, root)
	os.Setenv("BERTH_ENGINE", Process+"-engine")
	dir, err := cache.Open()
	if err != nil {
		return nil, err
	}
	unlock, err := dir.Lock(ctx, "tests", nil)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(ctx, dir); err != nil {
		return nil, err
	}
	release, err := dir.Lock(ctx, claim(Process), nil)
	return func() error {
		defer release()
		return remove(context.Background(), dir, Process)
	}, err
}

// root returns the folder of the tests' cache: beside the person's, that of the
// same name and -test.
func root(own string, userCache func() (string, error)) (string, error) {
	if own == "" {
		user, err := userCache()
		if err != nil {
			return "", fmt.Errorf("looking for a cache folder: %w. Name one in %s", err, envCache)
		}
		own = filepath.Join(user, "berth")
	}
	return strings.TrimSuffix(filepath.Clean(own), "-test") + "-test", nil
}

// claim is the name of the lock that a test process holds as long as it lives.
// Its file is there as long as anything else may be.
func claim(process string) string { return "test-" + process }

// sweep removes what dead test processes left. The caller holds the lock under
// which names are claimed.
func sweep(ctx context.Context, dir cache.Dir) error {
	claims, err := filepath.Glob(dir.Path("locks", claim(prefix+"*")))
	if err != nil {
		return err
	}
	for _, path := range claims {
		l := flock.New(path)
		if held, err := l.TryLock(); err != nil || !held {
			continue // it lives
		}
		err := remove(ctx, dir, strings.TrimPrefix(filepath.Base(path), claim("")))
		l.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// remove removes what bears the name of a test process, and then its claim.
// Where Docker doesn't answer both are left for later.
func remove(ctx context.Context, dir cache.Dir, process string) error {
	docker, err := daemon.Connect(ctx)
	if errors.Is(err, daemon.ErrUnavailable) {
		return nil
	} else if err != nil {
		return err
	}
	defer docker.Close()
	ours := func(name string) bool { return strings.HasPrefix(name, process+"-") }

	containers, err := docker.Containers(ctx)
	if err != nil {
		return err
	}
	for _, c := range containers {
		if ours(c.Name) {
			err = errors.Join(err, again(func() error { return docker.Remove(ctx, c.ID) }))
		}
	}
	volumes, verr := docker.Volumes(ctx)
	err = errors.Join(err, verr)
	for _, v := range volumes {
		if ours(v) {
			err = errors.Join(err, again(func() error { return docker.RemoveVolume(ctx, v) }))
		}
	}
	images, ierr := docker.Images(ctx)
	err = errors.Join(err, ierr)
	for _, id := range images {
		image, ierr := docker.Image(ctx, id)
		if errors.Is(ierr, daemon.ErrNotFound) {
			continue // somebody has removed it meanwhile
		}
		err = errors.Join(err, ierr)
		for _, tag := range image.Tags {
			if ours(tag) {
				err = errors.Join(err, again(func() error { return docker.RemoveImage(ctx, tag) }))
			}
		}
	}
	sockets, _ := filepath.Glob(dir.Path("engine", "sockets", process+"-*"))
	for _, s := range sockets {
		err = errors.Join(err, os.RemoveAll(s))
	}
	if err != nil {
		return err
	}
	return os.Remove(dir.Path("locks", claim(process)))
}

// again does something anew while Docker is busy with the same: a removal goes on
// in the daemon when the process that asked for it is killed.
func again(do func() error) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := do()
		if errors.Is(err, daemon.ErrNotFound) {
			return nil
		}
		if !errors.Is(err, daemon.ErrConflict) || time.Now().After(end) {
			return err
		}
	}
}
