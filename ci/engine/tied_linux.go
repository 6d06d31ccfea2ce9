package engine

import (
	"os/exec"
	"runtime"
	"syscall"
)

// runTied runs a command that is interrupted when this process dies, also by
// SIGKILL: a compiler would go on for minutes.
func runTied(cmd *exec.Cmd) error {
	// The kernel means the thread that started the command, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	return cmd.Run()
}
