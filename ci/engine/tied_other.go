//go:build !linux

package engine

import "os/exec"

// runTied runs a command. Only Linux can tie its life to this process's.
func runTied(cmd *exec.Cmd) error { return cmd.Run() }
