package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// ErrLate is about a program that gave no answer in time.
var ErrLate = errors.New("no answer")

// lingering is how long what a program started may keep its output open after its end.
const lingering = time.Second

// Ask returns what a program writes that answers within a limit. It ends the program
// with ctx, and waits no longer than that: neither for one that the kernel doesn't let go,
// as in a driver that hangs, nor for others that the program, a script, has started.
func Ask(ctx context.Context, limit time.Duration, program string, args ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %s", ErrLate, limit))
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, program, args...)
	c.Stdout, c.Stderr, c.WaitDelay = &out, &errs, lingering
	ended := make(chan error, 1)
	go func() { ended <- c.Run() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // of the two, this one is the cause
		return nil, nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the program itself ended well
	}
	return out.Bytes(), errs.Bytes(), err
}
