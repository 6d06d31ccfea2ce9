package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
)

// TestMain lets the test binary play a person's command that connects to the
// engine: alone, at the same time as others, as another user, or until it is
// killed.
func TestMain(m *testing.M) {
	sources := os.Getenv("BERTH_TEST_CONNECT")
	if sources == "" {
		os.Exit(dockertest.Main(m))
	}
	if err := connectAsChild(sources); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, ErrUnavailable) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

// embeddedSources are named in BERTH_TEST_CONNECT by a child that builds, if it does,
// from no folder.
const embeddedSources = "embedded"

// connectAsChild connects, says so, and stays connected until standard input ends.
func connectAsChild(sources string) error {
	dir, err := cache.Open()
	if err != nil {
		return err
	}
	o := Options{Cache: dir, Report: progress.New(os.Stderr), Ephemeral: os.Getenv("BERTH_TEST_EPHEMERAL") != ""}
	if sources != embeddedSources {
		o.sources = os.DirFS(sources)
	}
	e, err := Connect(context.Background(), o)
	if err != nil {
		return err
	}
	version, err := e.Version(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("connected to", version)
	io.Copy(io.Discard, os.Stdin)
	return e.Close()
}
