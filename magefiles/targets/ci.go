package targets

import "context"

// CI runs lint, the unit tests and the build side by side, then the smoke commands in
// the image, and last verify. Report and logs go to artifacts/ci. On GitHub it adds the
// report to the job's page, and what failed as annotations.
func CI(
	ctx context.Context,
	only *string, // run these stages alone: lint,unit,build,smoke,verify
	in *string, // where the unit tests run: host (default), or image, in the image's test stage without a network
	g *string, // GPUs for the smoke commands: 0 (default: the first, if any), all, none, 2,3, auto, auto:2 (idle ones), UUIDs or their beginnings
	through *string, // how the smoke commands run, as for smoke: docker, dagger or auto
	o *string, // folder for the report and the logs (default: artifacts/ci)
) error {
	return commands().CI(ctx, CIFlags{Only: deref(only), In: deref(in), GPUs: deref(g), Through: deref(through), Output: deref(o)})
}

// CIFlags are those of CI.
type CIFlags struct{ Only, In, GPUs, Through, Output string }

// Lint finds what the project takes from elsewhere without a pin: images without a digest,
// packages without a lock, downloads without a checksum, actions without a commit. It
// fails if there is any.
func Lint(
	ctx context.Context,
	fix *bool, // look up the digests of images and the commits of actions, and write them
	json *bool, // print what was found as JSON
) error {
	return commands().Lint(ctx, LintFlags{Fix: deref(fix), JSON: deref(json)})
}

// LintFlags are those of Lint.
type LintFlags struct{ Fix, JSON bool }

// Workflows writes .github/workflows/berth.yml and berth-gpu.yml, which call the target
// ci on GitHub's machines and on a runner with GPUs of your own. It overwrites no file that it
// didn't write.
func Workflows(
	ctx context.Context,
	check *bool, // change nothing; exit with 4 unless they are what would be written
	hook *string, // instead, write to this file the script by which such a runner refuses forks
) error {
	return commands().Workflows(ctx, WorkflowsFlags{Check: deref(check), Hook: hook})
}

// WorkflowsFlags are those of Workflows.
type WorkflowsFlags struct {
	Check bool
	Hook  *string // nil if it wasn't typed
}
