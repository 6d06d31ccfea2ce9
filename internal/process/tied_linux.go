package process

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// RunTied runs a command that gets the signal when this process dies, also by
// SIGKILL: a compiler would go on for minutes, so would a session.
func RunTied(cmd *exec.Cmd, signal syscall.Signal) error {
	// The kernel means the thread that started the command, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
	return cmd.Run()
}

// RunGroup is RunTied for a shell and all that it starts: once the command's context ends,
// each of them is interrupted, and whatever is left after a delay is killed. They are a
// session of their own, without the terminal: no key of it reaches them, and what would ask
// there fails at once instead of waiting.
func RunGroup(cmd *exec.Cmd, delay time.Duration) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	asked := false
	cmd.Cancel = func() error {
		asked = true
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
	}
	cmd.WaitDelay = delay
	err := RunTied(cmd, syscall.SIGTERM)
	if !asked {
		return err
	}
	for end := time.Now().Add(delay); syscall.Kill(-cmd.Process.Pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			break
		}
	}
	return err
}
