// Loader loads an image for tests into Docker. It is a program of its own for its
// speed: with the race detector, which tests have, unpacking packages takes ten times as
// long.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/dockertest"
)

func main() {
	if err := load(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(ctx context.Context, kind string) error {
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return err
	}
	defer docker.Close()
	return dockertest.Build(ctx, docker, kind)
}
