// Package stage runs the parts of a pipeline in the order that fails fastest, and
// reports what they found: for a person, as JUnit XML, as JSON, and on GitHub as a page
// and as annotations. It knows nothing of what a stage does, and writes only to the
// folder that it is given.
package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/progress"
)

// A Stage is one part of a pipeline.
type Stage interface {
	Name() string    // a word, which names its log, too
	After() []string // the stages that it waits for, and that must have passed
	// Run does the work and records what it checked. A check that failed needs no error
	// of its own; an error without one is the stage's failure.
	Run(ctx context.Context, r *Recorder) error
}

// New makes a stage of a function.
func New(name string, after []string, run func(context.Context, *Recorder) error) Stage {
	return function{name, after, run}
}

type function struct {
	name  string
	after []string
	run   func(context.Context, *Recorder) error
}

func (f function) Name() string                               { return f.name }
func (f function) After() []string                            { return f.after }
func (f function) Run(ctx context.Context, r *Recorder) error { return f.run(ctx, r) }

// A Recorder takes what a stage finds. Its methods may be called from several goroutines.
type Recorder struct {
	Log    *os.File           // takes the output of what the stage runs
	Report *progress.Reporter // for what it is doing

	mu     sync.Mutex
	result Result
}

// Add records a check.
func (r *Recorder) Add(c Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Checks = append(r.result.Checks, c)
}

// Note records a line that a person should read, whatever became of the stage.
func (r *Recorder) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Notes = append(r.result.Notes, fmt.Sprintf(format, args...))
}

// Curve records the losses of a training.
func (r *Recorder) Curve(c Curve) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Curves = append(r.result.Curves, c)
}

// failedChecks is the error of a stage whose checks failed: the checks say why.
type failedChecks struct{ failed, all int }

func (f failedChecks) Error() string { return fmt.Sprintf("%d of %d checks failed", f.failed, f.all) }

// Run runs stages, each as soon as those that it waits for have passed, side by side,
// and keeps their logs in a folder, which it makes. Where one failed, those that wait for
// it don't run; the others go on, since what they find is worth knowing. The order of
// the results is that of the stages. It fails only where it can't write.
func Run(ctx context.Context, folder string, stages []Stage, report *progress.Reporter) ([]Result, error) {
	if err := check(stages); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	results := make([]Result, len(stages))
	ended := map[string]chan struct{}{}
	at := map[string]int{}
	for i, s := range stages {
		ended[s.Name()], at[s.Name()] = make(chan struct{}), i
	}
	running := &names{report: report}
	var work sync.WaitGroup
	errs := make([]error, len(stages))
	for i, s := range stages {
		work.Go(func() {
			defer close(ended[s.Name()])
			for _, name := range s.After() {
				<-ended[name]
				if before := results[at[name]]; before.State != Passed && results[i].Err == nil {
					results[i] = Result{Stage: s.Name(), State: Skipped, Why: skippedBecause(before)}
				}
			}
			if results[i].State == "" {
				results[i], errs[i] = runOne(ctx, folder, s, running)
			}
			report.Printf("%s", results[i].Line())
		})
	}
	work.Wait()
	return results, errors.Join(errs...)
}

// skippedBecause says why what waits for a stage that didn't pass isn't run.
func skippedBecause(before Result) string {
	if before.State == Skipped {
		return before.Stage + " didn't run"
	}
	return before.Stage + " failed"
}

// runOne runs one stage and returns its result.
func runOne(ctx context.Context, folder string, s Stage, running *names) (Result, error) {
	log, err := os.Create(filepath.Join(folder, s.Name()+".log"))
	if err != nil {
		return Result{}, err
	}
	defer log.Close()
	running.add(s.Name())
	defer running.remove(s.Name())
	r := &Recorder{Log: log, Report: running.report}
	start := time.Now()
	err = s.Run(ctx, r)
	result := r.result
	result.Stage, result.Seconds, result.Log = s.Name(), time.Since(start).Seconds(), log.Name()
	if failed := result.failed(); err == nil && failed > 0 {
		err = failedChecks{failed, len(result.Checks)}
	}
	result.State, result.Err = Passed, err
	if err != nil {
		result.State, result.Why = Failed, advice.Text(err, "go tool mage")
	}
	return result, nil
}

// check refuses stages whose order can't be made out: each waits for earlier ones alone.
func check(stages []Stage) error {
	known := map[string]bool{}
	for _, s := range stages {
		if known[s.Name()] {
			return fmt.Errorf("there are two stages called %s", s.Name())
		}
		for _, name := range s.After() {
			if !known[name] {
				return fmt.Errorf("the stage %s waits for %s, which isn't before it", s.Name(), name)
			}
		}
		known[s.Name()] = true
	}
	return nil
}

// names are the stages at work, for the live line.
type names struct {
	mu     sync.Mutex
	all    []string
	report *progress.Reporter
}

func (n *names) add(name string) { n.change(func() { n.all = append(n.all, name) }) }

func (n *names) remove(name string) {
	n.change(func() {
		for i, s := range n.all {
			if s == name {
				n.all = append(n.all[:i:i], n.all[i+1:]...)
				return
			}
		}
	})
}

func (n *names) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	if len(n.all) > 0 {
		n.report.Update("Running %s", strings.Join(n.all, ", "))
	}
}
