package commands

import (
	"context"
	"fmt"
	"os"

	"github.com/magefile/mage/mg"
	"golang.org/x/term"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/doctor"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/trouble"
	"github.com/berthdev/berth/internal/usage"
	"github.com/berthdev/berth/magefiles/targets"
)

// Doctor carries out targets.Doctor. It needs no project: it works, too, where that is
// what is broken.
func (c Set) Doctor(ctx context.Context, f targets.DoctorFlags) error {
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	worst := trouble.OK
	err := signals.Explain(ctx, ci.Guard(func() error {
		page := doctorPage()
		if f.Row != "" {
			row, err := trouble.Find(f.Row)
			if err != nil {
				return fmt.Errorf("-row: %w: %w", usage.Err, err)
			}
			return page.Row(os.Stdout, row)
		}
		host := doctor.Probe(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		found := doctor.Examine(host)
		worst = doctor.Worst(found)
		if f.JSON {
			return page.JSON(os.Stdout, host, found)
		}
		return page.Text(os.Stdout, host, found)
	}))
	if err != nil {
		return mg.Fatal(ci.ExitCode(err), ci.Explain(err, typedCommand()))
	}
	if worst == trouble.Fault {
		return exit(ci.ExitPrerequisite)
	}
	return nil
}

// widest is how wide a report is where there is no terminal, or a wider one.
const widest = 100

// doctorPage fits standard output.
func doctorPage() doctor.Page {
	p := doctor.Page{System: trouble.Here(), Berth: typedCommand(), Width: widest}
	if columns, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		p.Width = max(60, min(columns, widest))
		p.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return p
}
