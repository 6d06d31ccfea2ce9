package ci

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

// execWithoutLocks runs a program in place of this one, to which the kernel says
// what a file system without locks does: ENOLCK to every flock.
func execWithoutLocks(program string, args []string) error {
	const (
		number = 0 // offset of the system call's number in struct seccomp_data (seccomp(2))
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret    = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_FLOCK, Jt: 0, Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOLCK)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread() // the filter is this thread's, and what it executes
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	list := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&list)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec(program, append([]string{program}, args...), os.Environ())
}

// TestFileSystemWithoutLocks runs each command on a cache whose file system has no
// locks: it says so and what to do, and makes nothing.
func TestFileSystemWithoutLocks(t *testing.T) {
	dockertest.Connect(t)
	if runtime.GOARCH != "amd64" {
		testenv.Skip(t, testenv.AMD64, "this is %s", runtime.GOARCH)
	}
	binary, err := compiled()
	require.NoError(t, err)
	p := checkout(t, 0o022)
	dir := dockertest.Cache(t)
	for _, args := range []string{
		"build", "run -cmd=true -t=" + dockertest.Shell(t), "smoke", "train -epochs=1", "verify",
		"pin", "materials", "data", "engine:start", "engine:prune",
	} {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "BERTH_TEST_NO_LOCKS="+binary+" "+args)
		c.Dir = p.Root
		out, err := c.CombinedOutput()
		assert.Error(t, err, args)
		assert.Contains(t, string(out), "has no locks", args)
		assert.Contains(t, string(out), "BERTH_CACHE", args)
	}
	left, err := os.ReadDir(dir.Path("tmp"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// init plays the program without locks.
func init() {
	if words := strings.Fields(os.Getenv("BERTH_TEST_NO_LOCKS")); len(words) > 0 {
		os.Unsetenv("BERTH_TEST_NO_LOCKS")
		fmt.Fprintln(os.Stderr, execWithoutLocks(words[0], words[1:]))
		os.Exit(1)
	}
}
