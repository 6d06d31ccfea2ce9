package golang

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/berthdev/berth/internal/process"
)

// ErrUnavailable is in the chain of errors about a machine without Go.
var ErrUnavailable = errors.New("can't compile Go here")

// A Command is a call of the go command, without cgo and whatever the caller's
// environment says of flags and workspaces.
type Command struct {
	Dir       string // working folder
	Temp      string // for temporary files: go leaves them when it is killed
	OS, Arch  string // to build for
	Args      []string
	Output    io.Writer         // standard output; may be nil
	Complaint func(line string) // each line of standard error; may be nil
}

// Run runs the command. An error has the last of what it said on standard error.
func (c Command) Run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(),
		"GOWORK=off", "GOFLAGS=-mod=readonly", "CGO_ENABLED=0", "GOEXPERIMENT=",
		"GOOS="+c.OS, "GOARCH="+c.Arch, "GOTMPDIR="+c.Temp,
	)
	// Killed with SIGINT, go waits for its children.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	said := process.Tail{Show: c.Complaint}
	cmd.Stdout, cmd.Stderr = c.Output, &said
	err := process.RunTied(cmd, syscall.SIGINT)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: the go command isn't on PATH. Install Go (https://go.dev/doc/install) and open a new shell", ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", c.Args[0], err, said.String())
	}
	return nil
}
