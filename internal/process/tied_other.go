//go:build !linux

package process

import (
	"os/exec"
	"syscall"
)

// RunTied runs a command. Only Linux can tie its life to this process's.
func RunTied(cmd *exec.Cmd, _ syscall.Signal) error { return cmd.Run() }
