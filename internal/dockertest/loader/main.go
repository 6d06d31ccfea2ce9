// Loader loads an image for tests into Docker. It is a program of its own for its
// speed: with the race detector, which tests have, unpacking packages takes ten times as
// long. It is also what knows of packages, so that package debian's own tests, and those of
// all that it imports, can use dockertest.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/berthdev/berth/docker/daemon"
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
	return build(ctx, docker, kind)
}
