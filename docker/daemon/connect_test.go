package daemon

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// A daemon that hangs takes connections, for the kernel does, and never answers.
func TestDaemonThatNeverAnswers(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	t.Setenv("DOCKER_HOST", "unix://"+socket)

	_, err = connect(t.Context(), 200*time.Millisecond)
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "can't use Docker: the daemon at unix://"+socket+
		" takes connections, but gave no answer within 200ms: ")
	assert.Same(t, trouble.DockerSilent, advice.Row(err))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = connect(ctx, time.Minute)
	assert.ErrorIs(t, err, context.DeadlineExceeded, "the caller's own")
	assert.NotErrorIs(t, err, ErrUnavailable)
}
