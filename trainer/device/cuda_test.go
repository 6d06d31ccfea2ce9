//go:build cuda && cgo && linux && amd64

package device

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPatience(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 2 * time.Minute, "90s": 90 * time.Second} {
		t.Setenv(timeoutVariable, text)
		got, err := patience()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, text := range []string{"90", "-1s", "0s", "soon"} {
		t.Setenv(timeoutVariable, text)
		_, err := patience()
		assert.ErrorContains(t, err, "BERTH_GPU_TIMEOUT="+text+" is no time to wait for a GPU. Give one such as 90s or 10m")
	}
}
