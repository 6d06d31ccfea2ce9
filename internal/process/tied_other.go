//go:build !linux

package process

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// RunTied runs a command. Only Linux can tie its life to this process's.
func RunTied(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Run() }

// RunGroup runs a command, and interrupts it once its context ends. Only on Linux does that
// reach what it has started.
func RunGroup(cmd *exec.Cmd, delay time.Duration) error {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = delay
	return cmd.Run()
}
