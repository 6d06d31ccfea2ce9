package signals

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestExplainNamesTheSignalOnce(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	assert.Equal(t, context.Canceled, Explain(ctx, context.Canceled), "the work's own")
	cancel(Interrupt{syscall.SIGHUP})
	err := Explain(ctx, Explain(ctx, fmt.Errorf("building: %w", ctx.Err())))
	assert.EqualError(t, err, "interrupted by signal: hangup: building: context canceled")
	assert.EqualError(t, Explain(ctx, context.Cause(ctx)), "interrupted by signal: hangup")
	assert.EqualError(t, Explain(ctx, fmt.Errorf("asking: %w", context.Cause(ctx))), "interrupted by signal: hangup: asking: interrupted by signal: hangup")

	mages, stop := context.WithCancel(t.Context())
	stop()
	assert.ErrorIs(t, Explain(mages, mages.Err()), Interrupt{syscall.SIGINT})
}
