package commands

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/magefiles/targets"
)

// GPUStatus carries out targets.GPU.Status.
func (c Set) GPUStatus(ctx context.Context, f targets.GPUStatusFlags) error {
	return c.Do(ctx, func(ctx context.Context, _ ci.Project, _ *progress.Reporter) error {
		s, err := ci.ReadGPUs(ctx)
		if err != nil {
			return err
		}
		if f.JSON {
			return printJSON(s)
		}
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		row := func(columns ...string) { fmt.Fprintln(w, strings.Join(columns, "\t")) }
		const since = "2 Jan 15:04:05"
		row("GPU", "UUID", "NAME", "USER", "FOR", "SINCE")
		for _, g := range s.GPUs {
			switch {
			case g.Lease == nil || g.Lease.PID == 0:
				row(g.Index, g.UUID, g.Name, "", g.Use(), "")
			default:
				row(g.Index, g.UUID, g.Name, g.Lease.User, g.Lease.Name, g.Lease.Since.Local().Format(since))
			}
		}
		for _, q := range s.Waiting {
			row("waits", fmt.Sprintf("for %d of %d", q.Count, len(q.UUIDs)), "", q.User, q.Name, q.Since.Local().Format(since))
		}
		return w.Flush()
	})
}
