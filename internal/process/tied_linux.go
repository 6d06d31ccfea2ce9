package process

import (
	"os/exec"
	"runtime"
	"syscall"
)

// RunTied runs a command that gets the signal when this process dies, also by
// SIGKILL: a compiler would go on for minutes, so would a session.
func RunTied(cmd *exec.Cmd, signal syscall.Signal) error {
	// The kernel means the thread that started the command, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: signal}
	return cmd.Run()
}
