package dockertest

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// LiveKeeper is Keeper for a launch that must have one: a signal to process 0 would be one to
// all of the test's own group.
func LiveKeeper(t testing.TB, name string) (pid int) {
	t.Helper()
	pid = Keeper(t, name)
	require.NotZero(t, pid, "nobody keeps %s", name)
	return pid
}

// Keeper returns the process that keeps the detached launch of that name, 0 if there is
// none.
func Keeper(t testing.TB, name string) (pid int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && string(line) == "berth-keeper\x00"+name+"\x00" {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			require.NoError(t, err)
			return pid
		}
	}
	return 0
}
