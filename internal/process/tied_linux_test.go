package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGroupEndsWhole interrupts a shell: what it waits for ends, and so does what it has
// started in the background, which ignores that.
func TestGroupEndsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", `sleep 1000 & echo $! >"$0.new"; sh -c 'echo $$ >>"$0.new"; mv "$0.new" "$0"; exec sleep 1000' "$0"; true`, file)
	ended := make(chan error, 1)
	go func() { ended <- RunGroup(c, 100*time.Millisecond) }()
	var pids []string
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(file)
		pids = strings.Fields(string(text))
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	require.Len(t, pids, 2)
	cancel()
	assert.Error(t, <-ended)
	for _, pid := range pids {
		assert.Eventually(t, func() bool {
			// Whoever inherited it may not have asked how it ended.
			text, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", pid))
			return err != nil || strings.Contains(string(text), ") Z ")
		}, 30*time.Second, 10*time.Millisecond, "process %s goes on", pid)
	}
}
