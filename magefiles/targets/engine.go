package targets

import (
	"context"

	"github.com/magefile/mage/mg"
)

// Engine is what becomes of the Dagger engine, which builds start by themselves.
type Engine mg.Namespace

// Status says which engines there are (the one that hands GPUs on is there once it was used), whether they are those that
// would be used, and how large their state is.
func (Engine) Status(
	ctx context.Context,
	json *bool, // print it as JSON
) error {
	return commands().EngineStatus(ctx, EngineStatusFlags{JSON: deref(json)})
}

// EngineStatusFlags are those of Engine.Status.
type EngineStatusFlags struct{ JSON bool }

// Start starts the engine, so that the next build need not wait for it.
func (Engine) Start(ctx context.Context) error { return commands().EngineStart(ctx) }

// Stop stops the engine, and the one that hands GPUs on. Their state stays.
func (Engine) Stop(ctx context.Context) error { return commands().EngineStop(ctx) }

// Logs prints what the engine wrote.
func (Engine) Logs(
	ctx context.Context,
	follow *bool, // go on printing what it writes
	tail *string, // so many of the last lines (default: all)
	gpu *bool, // of the engine that hands GPUs on
) error {
	return commands().EngineLogs(ctx, EngineLogsFlags{Follow: deref(follow), Tail: deref(tail), GPU: deref(gpu)})
}

// EngineLogsFlags are those of Engine.Logs.
type EngineLogsFlags struct {
	Follow, GPU bool
	Tail        string
}

// Prune removes the engine, and the one that hands GPUs on, their state and their images,
// and the image in which pin runs apt. The next build or pin makes them again.
func (Engine) Prune(ctx context.Context) error { return commands().EnginePrune(ctx) }
