package ci

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/gpu/lease"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/trouble"
	"github.com/berthdev/berth/internal/usage"
)

// The exit codes of every target but run, which has those of docker run.
const (
	ExitFailure      = 1
	ExitUsage        = 2
	ExitPrerequisite = 3
	ExitPinsDiffer   = 4
	ExitInterrupted  = 130
)

// Explain is an error as a person reads it, with what can be done about it; berth is
// the command that they typed (see advice.Text). Any part of a build may hit a full
// disk: that is recognized by the text, since go, Docker and the engine have disks as
// well and only say so.
func Explain(err error, berth string) string {
	if strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		err = advice.About(err, trouble.DiskFull)
	}
	return advice.Text(err, berth)
}

// ExitCode is the exit code that an error of this project stands for.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.Is(err, usage.Err):
		return ExitUsage
	case errors.Is(err, daemon.ErrUnavailable), errors.Is(err, engine.ErrUnavailable),
		errors.Is(err, golang.ErrUnavailable), errors.Is(err, gpu.ErrBroken), errors.Is(err, lease.ErrHeld):
		return ExitPrerequisite
	case errors.Is(err, input.ErrPinsDiffer), errors.Is(err, ErrBaseDiffers), errors.Is(err, ErrWorkflowsDiffer):
		return ExitPinsDiffer
	default:
		return ExitFailure
	}
}

// RunExitCode is the exit code of run for an error from before its container
// was there: docker run has one for all of them, and a shell's for signals.
func RunExitCode(err error) int {
	if i := (signals.Interrupt{}); errors.As(err, &i) {
		return i.ExitCode()
	}
	return launch.ExitDaemon
}

// Guard calls do, and turns a panic into an error that says where it happened:
// mage would print the panic's text alone, as if a person could do something
// about it.
func Guard(do func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("this is a bug in Berth. Please report it, with what follows: %v\n%s", cause, debug.Stack())
		}
	}()
	return do()
}
