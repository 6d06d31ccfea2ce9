// Package commands does what people type: a method of Set for each function of package
// targets. They do nothing by themselves: flags in, one call of another package, a line out.
package commands

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/magefile/mage/mg"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/magefiles/targets"
)

// A Set is the commands of a project.
type Set struct{ project ci.Project }

var _ targets.Commands = Set{}

// Of returns the commands of a project. It is for a magefile's variable, which is set
// before any target runs: in a process that run -d started to keep a launch it doesn't return.
func Of(p ci.Project) Set {
	launch.KeepIfAsked()
	return Set{p}
}

// Do finds the project and runs do until it ends or a signal asks it to, with progress
// on standard error. Its error is as mage wants it, with its exit code. It is for
// custom targets.
func (c Set) Do(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	if err := c.session(ctx, do); err != nil {
		return mg.Fatal(ci.ExitCode(err), ci.Explain(err, typedCommand()))
	}
	return nil
}

func (c Set) session(ctx context.Context, do func(context.Context, ci.Project, *progress.Reporter) error) error {
	ctx, stop := signals.NotifyContext(ctx)
	defer stop()
	p, err := c.project.At(".")
	if err != nil {
		return err
	}
	report := progress.New(os.Stderr)
	defer report.Close()
	return signals.Explain(ctx, ci.Guard(func() error { return do(ctx, p, report) }))
}

// typedCommand is the command that a person typed to call a target: mage keeps the program
// that it compiles from magefiles in a folder of its own.
func typedCommand() string {
	program, err := filepath.Abs(os.Args[0])
	if err == nil && !strings.HasPrefix(program, mg.CacheDir()+string(filepath.Separator)) {
		return os.Args[0]
	}
	return "go tool mage"
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
