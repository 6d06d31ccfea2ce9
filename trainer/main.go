// Command trainer trains a small residual CNN on Fashion-MNIST, CIFAR-10 or data
// of your own: the demo workload. It reads files and writes files; it downloads
// nothing, and knows nothing of images and containers. docs/trainer.md is its
// manual.
//
// The rooms: nn and gemm compute, data reads, loop puts the steps in order,
// checkpoint keeps them, device says what computes, report shows. This package
// has the commands: each turns flags into values, and calls the rooms.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/report"
)

// The exit codes. Interrupted runs exit with 128 and the signal's number.
const (
	exitFailure      = 1
	exitUsage        = 2
	exitPrerequisite = 3
	exitSignal       = 128
)

const exitHelp = `Exit codes:
  0    done
  1    failed
  2    the command line is wrong
  3    something is missing on this machine: the data, or the device asked for
  130  interrupted by Ctrl-C; 143: by SIGTERM; 129: by a terminal that was closed
`

// errUsage is in the chain of errors about what a person typed.
var errUsage = errors.New("usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string {
	if i.signal == syscall.SIGINT {
		return "interrupted"
	}
	return "stopped by signal: " + i.signal.String()
}

// A command is a subcommand. run gets the arguments that are left after the
// flags.
type command struct {
	name     string
	synopsis string // arguments, as in a usage line
	summary  string
	flags    *flag.FlagSet
	run      func(ctx context.Context, console *report.Console, args []string) error
}

func commands() []*command {
	return []*command{newTrainCommand(), newSmokeCommand(), newBenchCommand(), newInfoCommand(), newPlotCommand()}
}

func main() {
	ctx, stop := signals()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// signals returns a context that the first SIGINT, SIGTERM or SIGHUP ends, with
// that as its cause. A second SIGINT or SIGTERM kills the process, as by default.
//
// Signals that are ignored at the start, as nohup ignores SIGHUP and a shell
// without job control SIGINT for what it starts in the background, stay ignored.
// (Not SIGTERM: Go's runtime has undone that before it can be asked for.)
func signals() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	caught := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // Notify would end that
			signal.Notify(caught, s)
		}
	}
	stop := func() { signal.Stop(caught) }
	go func() {
		s := (<-caught).(syscall.Signal)
		// The checkpoint is still to be written. A closed terminal sends SIGHUP more
		// than once, and what reads the output may be gone with it, or by the same
		// Ctrl-C.
		signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
		stop()
		cancel(interrupted{s})
	}()
	return ctx, stop
}

// run is the command line as a function: it prints, and returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	err := dispatch(ctx, args, out, errs)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	fmt.Fprintln(errs, "trainer:", err)
	return exitCode(err)
}

func exitCode(err error) int {
	var signal interrupted
	switch {
	case errors.As(err, &signal):
		return exitSignal + int(signal.signal)
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, data.ErrNotFound), errors.Is(err, device.ErrUnavailable):
		return exitPrerequisite
	default:
		return exitFailure
	}
}

func dispatch(ctx context.Context, args []string, out, errs io.Writer) error {
	if len(args) == 0 || args[0] == "help" && len(args) == 1 || args[0] == "-h" || args[0] == "--help" {
		help(out)
		if len(args) == 0 {
			return usagef("no command given")
		}
		return nil
	}
	if args[0] == "help" {
		args = []string{args[1], "--help"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.invoke(ctx, args[1:], out, errs)
		}
	}
	return usagef("there is no command %q. `trainer help` lists them", args[0])
}

func help(out io.Writer) {
	fmt.Fprint(out, "trainer trains a small CNN, with the same bits on any number of cores.\n\nUsage: trainer COMMAND [flags]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(out, "  %-6s %s\n", c.name, c.summary)
	}
	fmt.Fprint(out, "\n`trainer help COMMAND` lists its flags.\n\n"+exitHelp)
}

// newFlags returns a flag set that prints nothing by itself.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

func (c *command) invoke(ctx context.Context, args []string, out, errs io.Writer) error {
	err := c.flags.Parse(dashed(args))
	if errors.Is(err, flag.ErrHelp) {
		c.help(out)
		return err
	}
	if err != nil {
		return usagef("%w. `trainer help %s` lists the flags", err, c.name)
	}
	console := report.NewConsole(out, errs, os.Getenv)
	defer console.Clear()
	return c.run(ctx, console, c.flags.Args())
}

func (c *command) help(out io.Writer) {
	fmt.Fprintf(out, "trainer %s: %s\n\nUsage: trainer %s [flags]%s\n\nFlags (--batch-size is also --batch_size, and so on):\n", c.name, c.summary, c.name, c.synopsis)
	c.flags.VisitAll(func(f *flag.Flag) {
		kind, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			usage += " (default: " + f.DefValue + ")"
		}
		fmt.Fprintf(out, "  %-26s %s\n", strings.TrimSpace("--"+f.Name+" "+kind), usage)
	})
	fmt.Fprint(out, "\n"+exitHelp)
}

// onDevice does what may wait for a device, and reports whether that hangs: then nothing that
// do uses may be touched any more, and the command must end.
func onDevice(do func() error) (hangs bool, err error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return false, err
	case err := <-device.Hung():
		return true, err
	}
}

// noArguments refuses what is left after the flags.
func noArguments(args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// dashed spells flags with dashes, as they are defined: train.py had
// underscores. Values stay as they are.
func dashed(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		if strings.HasPrefix(arg, "-") {
			name, value, found := strings.Cut(arg, "=")
			arg = strings.ReplaceAll(name, "_", "-")
			if found {
				arg += "=" + value
			}
		}
		out[i] = arg
	}
	return out
}

// version is that of the module or, of a build in a checkout, the commit.
func version() (trainer, goVersion string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "unknown"
	}
	trainer = info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (trainer == "" || trainer == "(devel)") {
			trainer = s.Value
		}
	}
	if trainer == "" {
		trainer = "(devel)"
	}
	return trainer, info.GoVersion
}
