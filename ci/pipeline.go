package ci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/docker/launch"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/signals"
	"github.com/berthdev/berth/internal/usage"
)

// The variables by which a command of the project's can say more than its exit code.
// Each names a file, which isn't there before, in a folder that is.
const (
	envJUnit  = "BERTH_JUNIT"  // takes JUnit XML with a case for each check
	envLosses = "BERTH_LOSSES" // takes lines of a step and a loss
)

// The stages, in the order of a report.
const (
	stageLint   = "lint"
	stageUnit   = "unit"
	stageBuild  = "build"
	stageSmoke  = "smoke"
	stageVerify = "verify"
)

// reportFolder is the default folder for the report and the logs.
const reportFolder = "artifacts/ci"

// PipelineOptions says how to run the stages.
type PipelineOptions struct {
	Folder  string             // for the report and the logs, relative to the root; artifacts/ci by default
	Only    string             // stages to run, separated by commas; all by default
	InImage bool               // unit tests run in the project's test stage, without a network, instead of on this machine
	GPUs    string             // for the smoke commands, as in launch.Options
	Through string             // for the smoke commands, as in SmokeOptions
	Report  *progress.Reporter // may be nil
}

// Pipeline runs lint, the unit tests and the build side by side, then the smoke
// commands in the image that was built, and last, because it takes longest, verify. It
// writes what they found into the folder: report.json, junit.xml, summary.md and a log
// of each stage. Its error says which stages failed, and is, for the exit code, that of
// the first.
func Pipeline(ctx context.Context, p Project, o PipelineOptions) (stage.Report, error) {
	folder := p.Path(cmp.Or(o.Folder, reportFolder))
	if filepath.IsAbs(o.Folder) {
		folder = o.Folder
	}
	report := stage.Report{Project: p.Name, Started: time.Now().UTC()}
	l := &pipeline{project: p, options: o, folder: folder, report: &report}
	stages, err := choose(l.stages(), o.Only)
	if err != nil {
		return report, err
	}
	report.Stages, err = stage.Run(ctx, folder, stages, o.Report)
	report.Seconds = time.Since(report.Started).Seconds()
	if err != nil {
		return report, err
	}
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	files, err := report.Files(folder)
	if err != nil {
		return report, err
	}
	for name, data := range files {
		if err := cache.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
			return report, err
		}
	}
	return report, stagesFailed(report.Stages)
}

// stagesFailed is the error of a run, nil if every stage passed.
func stagesFailed(results []stage.Result) error {
	var failed []string
	var first error
	for _, r := range results {
		if r.State == stage.Failed {
			failed = append(failed, r.Stage)
			first = cmp.Or(first, r.Err)
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d stages failed: %s. The first: %w", len(failed), len(results), strings.Join(failed, ", "), first)
}

// choose picks the stages that are asked for. Those that are left out hold nothing up.
func choose(all []stage.Stage, only string) ([]stage.Stage, error) {
	if only == "" {
		return all, nil
	}
	wanted := strings.Split(only, ",")
	var names []string
	for _, s := range all {
		names = append(names, s.Name())
	}
	for _, name := range wanted {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-only: %w: there is no stage %q. The stages are %s", usage.Err, name, strings.Join(names, ", "))
		}
	}
	var chosen []stage.Stage
	for _, s := range all {
		if slices.Contains(wanted, s.Name()) {
			after := slices.DeleteFunc(slices.Clone(s.After()), func(name string) bool { return !slices.Contains(wanted, name) })
			chosen = append(chosen, stage.New(s.Name(), after, s.Run))
		}
	}
	return chosen, nil
}

// A pipeline is one run of a project's stages.
type pipeline struct {
	project Project
	options PipelineOptions
	folder  string
	report  *stage.Report
}

func (l *pipeline) stages() []stage.Stage {
	all := []stage.Stage{
		stage.New(stageLint, nil, l.lint),
		stage.New(stageUnit, nil, l.unit),
		stage.New(stageBuild, nil, l.build),
		stage.New(stageSmoke, []string{stageBuild}, l.smoke),
		stage.New(stageVerify, []string{stageLint, stageUnit, stageSmoke}, l.verify),
	}
	for i, s := range all {
		all[i] = stage.New(s.Name(), s.After(), func(ctx context.Context, r *stage.Recorder) error {
			return signals.Explain(ctx, Guard(func() error { return s.Run(ctx, r) }))
		})
	}
	return all
}

// lint checks the pins, looks for what has none, and runs the project's own linters.
func (l *pipeline) lint(ctx context.Context, r *stage.Recorder) error {
	start := time.Now()
	pins := CheckPins(l.project)
	check := stage.Check{Name: "pins", Seconds: time.Since(start).Seconds()}
	if pins != nil {
		check.Failure = pins.Error()
	}
	r.Add(check)
	if err := l.unpinned(ctx, r); err != nil {
		return err
	}
	for _, c := range l.project.Lint {
		if err := l.try(ctx, r, c, l.onHost); err != nil {
			return err
		}
	}
	return pins
}

// unit runs the project's tests.
func (l *pipeline) unit(ctx context.Context, r *stage.Recorder) error {
	run := l.onHost
	if l.options.InImage {
		run = l.inImage
	}
	for _, c := range l.project.Test {
		if err := l.try(ctx, r, c, run); err != nil {
			return err
		}
	}
	return nil
}

func (l *pipeline) build(ctx context.Context, r *stage.Recorder) error {
	result, err := Build(ctx, l.project, BuildOptions{Report: r.Report})
	if err != nil {
		return err
	}
	l.report.Image, l.report.Digest = result.Image, result.Digest
	for _, d := range result.Drift {
		r.Note("drifted from the lock: %s", d)
	}
	fmt.Fprintf(r.Log, "%s %s\n", result.Image, result.Digest)
	r.Add(stage.Check{Name: result.Image, Seconds: result.Seconds})
	return nil
}

func (l *pipeline) verify(ctx context.Context, r *stage.Recorder) error {
	result, err := Verify(ctx, l.project, VerifyOptions{Report: r.Report})
	if err != nil {
		return err
	}
	fmt.Fprintf(r.Log, "%s twice, bit for bit\n", result.Digest)
	r.Add(stage.Check{Name: "bit for bit"})
	return nil
}

// A trial is how a command ran.
type trial struct {
	command string
	code    int
	seconds float64
	output  []byte
	junit   []byte // nil if the command wrote none
}

// files are where a command may say more, as it sees them.
type files struct{ junit, losses string }

func (f files) env() []string { return []string{envJUnit + "=" + f.junit, envLosses + "=" + f.losses} }

// A runner runs a command with its output going to a stage's log, and returns the exit
// code. It fails only where the command couldn't be run, or a person ended it.
type runner func(ctx context.Context, r *stage.Recorder, command string, f files) (code int, err error)

// try runs a command and records what it checked.
func (l *pipeline) try(ctx context.Context, r *stage.Recorder, command string, run runner) error {
	temp, err := os.MkdirTemp(l.folder, "command-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	f := files{filepath.Join(temp, "junit.xml"), filepath.Join(temp, "losses")}
	begin, err := r.Log.Seek(0, 2)
	if err != nil {
		return err
	}
	start := time.Now()
	t := trial{command: command}
	if t.code, err = run(ctx, r, command, f); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	t.seconds = time.Since(start).Seconds()
	text, err := os.ReadFile(r.Log.Name())
	if err != nil {
		return err
	}
	t.output = text[min(begin, int64(len(text))):]
	if t.junit, err = os.ReadFile(f.junit); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, c := range t.checks() {
		r.Add(c)
	}
	if losses, err := os.ReadFile(f.losses); err == nil {
		if c := stage.ReadLosses(command, losses); len(c.Steps) > 0 {
			r.Curve(c)
		}
	}
	return nil
}

// checks are what the command says of itself, in JUnit XML or as go test -json does, and
// the command itself where that doesn't tell why it failed, or nothing is said.
func (t trial) checks() []stage.Check {
	checks := stage.ReadGoTest(t.output)
	self := stage.Check{Name: t.command, Seconds: t.seconds}
	if t.junit != nil {
		var err error
		if checks, err = stage.ReadJUnit(t.junit); err != nil {
			self.Failure = fmt.Sprintf("what it wrote to %s can't be read: %v", envJUnit, err)
			return []stage.Check{self}
		}
	}
	failed := slices.ContainsFunc(checks, func(c stage.Check) bool { return c.Failure != "" })
	switch {
	case t.code != 0 && !failed:
		var tail process.Tail
		tail.Write(bytes.ReplaceAll(t.output, []byte{0}, nil))
		self.Failure = fmt.Sprintf("exit code %d\n%s", t.code, tail.String())
	case t.code == 0 && failed:
		self.Failure = "it ended with 0, though checks of its own failed"
	case len(checks) > 0:
		return checks
	}
	return append(checks, self)
}

// smoke runs the project's smoke commands in the image, and before them, with GPUs, a
// check of those.
func (l *pipeline) smoke(ctx context.Context, r *stage.Recorder) (err error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer nothing.Close()
	streams := launch.Streams{In: nothing, Out: r.Log, Err: r.Log}
	place, err := openSmoke(ctx, l.project, SmokeOptions{
		Through: l.options.Through, GPUs: l.options.GPUs, For: "ci of " + l.project.Name, Streams: streams, Report: r.Report,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.close()) }()
	check, note, err := place.checkGPUs(ctx)
	if err != nil {
		return err
	}
	if check == nil {
		r.Note("NO GPU: the smoke commands ran without one")
	} else {
		r.Note("%s. %s", place.way, note)
		r.Add(*check)
		if check.Failure != "" {
			for _, c := range l.project.Smoke {
				r.Add(stage.Check{Name: c, Skipped: errOtherGPUs.Error()})
			}
			return nil
		}
	}
	for _, c := range l.project.Smoke {
		if err := l.try(ctx, r, c, func(ctx context.Context, _ *stage.Recorder, command string, f files) (int, error) {
			return place.run(ctx, command, f, streams)
		}); err != nil {
			return err
		}
	}
	return nil
}

// containerEnv is the option that tells a command in a container where its files are;
// "" if they aren't in the workspace, which is all that it sees.
func containerEnv(root string, f files) string {
	var items []string
	for _, v := range f.env() {
		name, path, _ := strings.Cut(v, "=")
		rel, err := filepath.Rel(root, path)
		if err != nil || !filepath.IsLocal(rel) {
			return ""
		}
		value := launch.Workspace + "/" + filepath.ToSlash(rel)
		items = append(items, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name+"="+value)+`"`)
	}
	return strings.Join(items, ",")
}
