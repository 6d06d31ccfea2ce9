// Berth sets itself up in a repository of yours:
//
//	go run github.com/berthdev/berth@latest
//
// writes what is missing there for reproducible containers, and overwrites nothing.
// From then on, `go tool mage -l` lists what you can type.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/setup"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/usage"
)

func main() {
	ctx, stop := signals.NotifyContext(context.Background())
	err := signals.Explain(ctx, run(ctx, os.Args[1:], os.Stdout))
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err == nil:
	default:
		fmt.Fprintln(os.Stderr, "Error:", advice.Text(err, "go tool mage"))
		os.Exit(exitCode(err))
	}
}

// exitCode is the one of an error, as the targets have it.
func exitCode(err error) int {
	if errors.As(err, new(signals.Interrupt)) {
		return 130
	} else if errors.Is(err, usage.Err) {
		return 2
	}
	return 1
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("berth", flag.ContinueOnError)
	template := flags.String("template", "shell", "what to begin with: "+strings.Join(setup.Templates(), ", "))
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: go run github.com/berthdev/berth@latest [-template=NAME] [FOLDER]\n\n"+
			"Sets Berth up in a repository, the current folder by default. It overwrites nothing.")
		flags.PrintDefaults()
		fmt.Fprintln(flags.Output(), "\nExit codes: 0; 1 failure; 2 usage; 130 interrupted.")
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: %w", usage.Err, err)
	}
	if flags.NArg() > 1 {
		return fmt.Errorf("%w: one folder at most, not %s", usage.Err, strings.Join(flags.Args(), " "))
	}
	o := setup.Options{Dir: ".", Template: *template, Version: version()}
	if flags.NArg() == 1 {
		o.Dir = flags.Arg(0)
	}
	err := setup.Run(ctx, o, func(r setup.Result) {
		why := ""
		if r.Why != "" {
			why = " (" + r.Why + ")"
		}
		fmt.Fprintf(out, "%-8s %s%s\n", r.Done, r.File, why)
	})
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\nNow type\n")
	if flags.NArg() == 1 {
		fmt.Fprintf(out, "\tcd %s\n", o.Dir)
	}
	fmt.Fprint(out, "\tgo tool mage pin\n\tgo tool mage run\n")
	return nil
}

// version is that of this module as it runs here, so that a repository gets what it
// was set up by.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" && !strings.Contains(v, "+") {
			return v
		}
	}
	return "latest"
}
