// Package testenv says what a test needs of the machine that it runs on. It
// imports nothing of Berth's, so that the tests of every package can use it.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What a test may need. BERTH_TEST_REQUIRE lists what must be there.
const (
	Docker        = "docker"         // a Docker Engine that answers
	DockerCommand = "docker-command" // its command line
	DockerSocket  = "docker-socket"  // the Engine listens on the usual Unix socket, which root and a group may use
	ClassicStore  = "classic-store"  // the Engine keeps images in a store of its own, not in containerd's
	Dockerd       = "dockerd"        // the Engine's program, which can be started a second time
	Linux         = "linux"          // a Linux machine
	AMD64         = "linux-amd64"    // one that runs the image's programs
	Cgo           = "cgo"            // a C compiler, for the race detector
	Root          = "root"           // the rights to mount, and to become another user
	Namespaces    = "namespaces"     // mounts in a separate user namespace
	Mirror        = "mirror"         // a mirror of Debian, with the archive of now
	Snapshot      = "snapshot"       // the packages as they are locked, also those that the archive has replaced
	JQ            = "jq"             // its command line, as on a runner that refuses forks
	OpenSSL       = "openssl"        // its command line, which makes keys
	Apt           = "apt"            // Debian's own apt-get, to compare with
	DpkgDeb       = "dpkg-deb"       // Debian's own unpacker, to measure against
	Python        = "python3"        // Python, without any more modules
	Pip           = "pip"            // Python with its pip, to compare with
	VectorKernel  = "vector-kernel"  // a processor that the trainer has a kernel for
	Clang         = "clang-19"       // the compiler that makes the kernels' PTX, in the version that made it
	Ptxas         = "ptxas"          // NVIDIA's assembler, of Debian's non-free nvidia-cuda-toolkit
	NoGPU         = "no-gpu"         // neither a GPU nor a Docker that passes one on
)

// A test process that ignores signals, as under nohup, would hand that on to the
// processes that it starts, and they couldn't be tried with those. A handler isn't
// handed on. A test's program that plays another one, under that one's name, is to ignore
// what its parent says.
func init() {
	if !strings.HasSuffix(os.Args[0], ".test") {
		return
	}
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

var needs = []string{
	Docker, DockerCommand, DockerSocket, ClassicStore, Dockerd, Linux, AMD64, Cgo,
	Root, Namespaces, Mirror, Snapshot, JQ, OpenSSL, Apt, DpkgDeb, Python, Pip, VectorKernel, Clang, Ptxas, NoGPU,
}

// envRequire lists, separated by commas, what this machine has: a test that
// doesn't find it fails.
const envRequire = "BERTH_TEST_REQUIRE"

// envLong is set for tests that take their time. `mage test -long` sets it.
const envLong = "BERTH_TEST_LONG"

// Long reports whether tests may take their time: more rounds, more kills.
func Long() bool { return os.Getenv(envLong) != "" }

// Skip skips a test because the machine lacks what it needs, or fails it if
// BERTH_TEST_REQUIRE lists that. Every skip that isn't for the sake of time comes here.
func Skip(t testing.TB, need, format string, args ...any) {
	t.Helper()
	required, err := requires(os.Getenv(envRequire), need)
	switch why := fmt.Sprintf(format, args...); {
	case err != nil:
		t.Fatal(err)
	case required:
		t.Fatalf("%s lists %s, but %s", envRequire, need, why)
	default:
		t.Skipf("needs %s: %s", need, why)
	}
}

// requires reports whether a list of needs has one of them. That any of them is
// unknown is an error: a word that is spelled wrong requires nothing.
func requires(list, need string) (bool, error) {
	asked := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	for _, word := range append(asked, need) {
		if !slices.Contains(needs, word) {
			return false, fmt.Errorf("no test needs %q. Give %s some of: %s", word, envRequire, strings.Join(needs, ", "))
		}
	}
	return slices.Contains(asked, need), nil
}

// NeedsRoot skips a test unless root runs it.
func NeedsRoot(t testing.TB, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		Skip(t, Root, "only root can %s", why)
	}
}

// NeedsCommand returns the path of a program, without which the test is skipped.
func NeedsCommand(t testing.TB, need, command string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		Skip(t, need, "%v", err)
	}
	return path
}
