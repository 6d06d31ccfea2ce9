//go:build !linux

package engine

import (
	"os/exec"
	"syscall"
)

// runTied runs a command. Only Linux can tie its life to this process's.
func runTied(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Run() }
