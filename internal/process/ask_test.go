package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sleeper returns a line of a script that leaves a process which has its output and, once
// that runs, makes a file. The test's end ends it.
func sleeper(t *testing.T) (line, runs string) {
	runs = filepath.Join(t.TempDir(), "pid")
	t.Cleanup(func() {
		text, err := os.ReadFile(runs)
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		assert.NoError(t, syscall.Kill(pid, syscall.SIGKILL), "it was waited for")
	})
	return "sleep 1000 & echo $! >" + runs + ".part; mv " + runs + ".part " + runs + "; ", runs
}

func TestAsk(t *testing.T) {
	out, errs, err := Ask(t.Context(), time.Minute, "sh", "-c", "echo out; echo err >&2; exit 3")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 3, exit.ExitCode())
	assert.Equal(t, "out\nerr\n", string(out)+string(errs))
	_, _, err = Ask(t.Context(), time.Minute, "no-such-program")
	assert.ErrorIs(t, err, exec.ErrNotFound)
}

func TestAskWaitsForNobodyElse(t *testing.T) {
	line, _ := sleeper(t)
	out, _, err := Ask(t.Context(), time.Minute, "sh", "-c", line+"echo said")
	assert.NoError(t, err)
	assert.Equal(t, "said\n", string(out))

	line, runs := sleeper(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if _, err := os.Stat(runs); err == nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, _, err = Ask(ctx, time.Hour, "sh", "-c", line+"wait")
	assert.Equal(t, context.Canceled, err)

	_, _, err = Ask(t.Context(), time.Millisecond, "sleep", "1000")
	assert.ErrorIs(t, err, ErrLate)
	assert.EqualError(t, err, "no answer within 1ms")
}
