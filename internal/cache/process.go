package cache

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
)

// A process is one of all that ever ran: a number alone is given out again.
type process struct {
	PID     int    `json:"pid"`
	Start   string `json:"start,omitempty"`   // in the kernel's clock ticks since the machine started
	Boot    string `json:"boot,omitempty"`    // id of that start of the machine
	Machine string `json:"machine,omitempty"` // id of the machine
	Space   string `json:"space,omitempty"`   // that the number counts in: the PID namespace
}

// thisProcess is this process. What a system doesn't tell is empty.
var thisProcess = sync.OnceValue(func() process {
	return process{
		PID: os.Getpid(), Start: startOf(os.Getpid()),
		Boot: firstLine("/proc/sys/kernel/random/boot_id"), Machine: firstLine("/etc/machine-id"), Space: link("/proc/self/ns/pid"),
	}
})

// mayBeAlive reports whether a process whose lock is free may be alive nevertheless.
// start returns when the process of a number started, "" if there is none.
func (p process) mayBeAlive(self process, start func(pid int) string) bool {
	switch {
	case p.Machine != self.Machine:
		return true // nobody here can tell
	case p.Boot != self.Boot:
		return false // the machine was restarted since
	case p.Space != self.Space || p.Start == "":
		return false // the same kernel keeps the lock, and it is free
	default:
		return start(p.PID) == p.Start
	}
}

// startOf returns when a process started, as the 22nd field of /proc/PID/stat has
// it (proc(5)), or "" if there is no such process, or no such file system.
func startOf(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second field, the program's name, is in parentheses and may have any in it.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 20 || fields[0] == "Z" {
		return "" // a zombie has released everything
	}
	return fields[19]
}

func firstLine(name string) string {
	data, _ := os.ReadFile(name)
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func link(name string) string {
	target, _ := os.Readlink(name)
	return target
}
