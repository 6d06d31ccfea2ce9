package targets

import (
	"context"
	"fmt"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

// Workflows writes .github/workflows/berth.yml and berth-gpu.yml, which call the target
// ci on GitHub's machines and on a runner with GPUs of your own. It overwrites no file that it
// didn't write.
func Workflows(
	ctx context.Context,
	check *bool, // change nothing; exit with 4 unless they are what would be written
	hook *string, // instead, write to this file the script by which such a runner refuses forks
) error {
	return Do(ctx, func(_ context.Context, p ci.Project, _ *progress.Reporter) error {
		switch {
		case deref(check) && hook != nil:
			return fmt.Errorf("-hook: %w: it and -check exclude each other. Give one of them", usage.Err)
		case deref(check):
			return ci.CheckWorkflows(p)
		case hook != nil:
			return ci.WriteRunnerHook(*hook)
		}
		done, err := ci.WriteWorkflows(p)
		for _, line := range done {
			fmt.Println(line)
		}
		return err
	})
}
