// Package targets has what people type. A magefile imports it, and says what carries it
// out, and over which project:
//
//	//mage:import
//	"github.com/berthdev/berth/magefiles/targets"
//
//	var _ = targets.Use(commands.Of(ci.Project{}))
//
// A target has a description, flags and one call: of the method of Commands that has its
// name. Package magefiles/commands has these methods. It is another package because mage has the
// go command load this one, with all that it imports, twice whenever somebody types a
// target. So this one imports next to nothing.
//
// Exit codes: 0; 1 failure; 2 usage; 3 a prerequisite is missing; 4 pins or workflows
// differ; 130 interrupted; for run, those of docker run.
package targets

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Commands are what the targets do, by their flags. A flag that wasn't typed is the zero
// value.
type Commands interface {
	Build(context.Context, BuildFlags) error
	Verify(context.Context, VerifyFlags) error
	Publish(context.Context, PublishFlags) error
	Pin(context.Context, PinFlags) error
	Why(ctx context.Context, name string) error
	Materials(context.Context, MaterialsFlags) error
	Clean(context.Context) error

	CI(context.Context, CIFlags) error
	Lint(context.Context, LintFlags) error
	Workflows(context.Context, WorkflowsFlags) error

	Run(context.Context, RunFlags) error
	Smoke(context.Context, SmokeFlags) error
	Ps(context.Context, PsFlags) error
	Logs(context.Context, LogsFlags) error
	Attach(context.Context, AttachFlags) error
	Shell(context.Context, ShellFlags) error
	Stop(context.Context, StopFlags) error

	EngineStatus(context.Context, EngineStatusFlags) error
	EngineStart(context.Context) error
	EngineStop(context.Context) error
	EngineLogs(context.Context, EngineLogsFlags) error
	EnginePrune(context.Context) error

	GPUStatus(context.Context, GPUStatusFlags) error

	Doctor(context.Context, DoctorFlags) error
}

var used Commands

// Use has the targets carried out by these commands, and returns them, for targets of a
// magefile's own. It is for a magefile's variable, which is set before any target runs.
func Use[C Commands](c C) C {
	used = c
	return c
}

// commands are those that the magefile uses. Mage reports what is thrown here as the
// target's error.
func commands() Commands {
	if used == nil {
		panic(mg.Fatal(2, "the magefile doesn't say what is built. Add to it:\n\n\tvar _ = targets.Use(commands.Of(ci.Project{}))"))
	}
	return used
}

// deref is the value that an optional flag points to, or the zero value.
func deref[T any](flag *T) T {
	if flag == nil {
		var zero T
		return zero
	}
	return *flag
}
