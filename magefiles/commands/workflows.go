package commands

import (
	"context"
	"fmt"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
	"github.com/berthdev/berth/magefiles/targets"
)

// Workflows carries out targets.Workflows.
func (c Set) Workflows(ctx context.Context, f targets.WorkflowsFlags) error {
	return c.Do(ctx, func(_ context.Context, p ci.Project, _ *progress.Reporter) error {
		switch {
		case f.Check && f.Hook != nil:
			return fmt.Errorf("-hook: %w: it and -check exclude each other. Give one of them", usage.Err)
		case f.Check:
			return ci.CheckWorkflows(p)
		case f.Hook != nil:
			return ci.WriteRunnerHook(*f.Hook)
		}
		done, err := ci.WriteWorkflows(p)
		for _, line := range done {
			fmt.Println(line)
		}
		return err
	})
}
