package dockertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// Process begins the name of everything that this test process makes in Docker.
var Process = prefix + random()

// Main runs a package's tests apart from the builds of whoever works here: with
// a separate engine, removed at the end with everything else that has this
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
	// Builds sweep the claims of the cache that they work in, and don't know these.
	records, err := cache.OpenAt(dir.Path("tests"))
	if err != nil {
		return nil, err
	}
	if err := sweep(ctx, dir, records); err != nil {
		return nil, err
	}
	claim, err := records.Claim("test")
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := remove(context.Background(), dir, Process); err != nil {
			claim.Leave()
			return err
		}
		claim.Release()
		return nil
	}, claim.Note(Process, false)
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

// sweep removes what dead test processes left, as their records have it.
func sweep(ctx context.Context, dir, records cache.Dir) error {
	claims, err := records.Abandoned()
	for _, c := range claims {
		var process string
		cerr := json.Unmarshal(c.Notes()[0], &process)
		if cerr == nil && strings.HasPrefix(process, prefix) {
			cerr = remove(ctx, dir, process)
		}
		if cerr != nil {
			err = errors.Join(err, cerr)
			c.Leave()
		} else {
			c.Release()
		}
	}
	return err
}

// remove removes what has the name of a test process. Where there is no Docker
// there is nothing.
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
			err = errors.Join(err, retryWhileBusy(func() error { return docker.Remove(ctx, c.ID) }))
		}
	}
	volumes, verr := docker.Volumes(ctx)
	err = errors.Join(err, verr)
	for _, v := range volumes {
		if ours(v) {
			err = errors.Join(err, retryWhileBusy(func() error { return docker.RemoveVolume(ctx, v) }))
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
				err = errors.Join(err, retryWhileBusy(func() error { return docker.RemoveImage(ctx, tag) }))
			}
		}
	}
	sockets, _ := filepath.Glob(dir.Path("engine", "sockets", process+"-*"))
	for _, s := range sockets {
		err = errors.Join(err, os.RemoveAll(s))
	}
	return err
}

// retryWhileBusy retries while Docker is busy with the same object: a removal goes on
// in the daemon when the process that asked for it is killed. (Package owned, whose
// tests use this one, has the same.)
func retryWhileBusy(do func() error) error {
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
