package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/report"
	"github.com/berthdev/berth/trainer/smoke"
)

// SmokeOptions are the flags of `trainer smoke`.
type SmokeOptions struct {
	Device    string
	Precision string
	JUnit     string
	Losses    string
}

func newSmokeCommand() *command {
	var o SmokeOptions
	fs := newFlags("smoke")
	fs.StringVar(&o.Device, "device", "auto", "check `DEVICE`: cpu, cuda, cuda:N, several GPUs as cuda:N,M, cuda:all, or auto for the CPU and, if there is one, a GPU")
	fs.StringVar(&o.Precision, "precision", "fp32", "convolutions on a GPU multiply in `P`: fp32, or tf32 on tensor cores")
	fs.StringVar(&o.JUnit, "junit", "", "write the outcome to `FILE` as JUnit XML, too")
	fs.StringVar(&o.Losses, "losses", "", "write the losses of the training to `FILE`, a step and its loss on each line")
	return &command{
		name: "smoke", summary: "check in seconds that this machine computes what it should", flags: fs,
		run: func(ctx context.Context, console *report.Console, args []string) error {
			if err := noArguments(args); err != nil {
				return err
			}
			_, err := onDevice(func() error { return runSmoke(ctx, console, o) })
			return err
		},
	}
}

// runSmoke runs the checks and prints a line for each.
func runSmoke(ctx context.Context, console *report.Console, o SmokeOptions) error {
	spec, err := device.Parse(o.Device, o.Precision)
	if err != nil {
		return usagef("%w", err)
	}
	if err := errors.Join(checkOutput("junit", o.JUnit), checkOutput("losses", o.Losses)); err != nil {
		return err
	}
	checks, notice, err := chooseChecks(spec)
	if err != nil {
		return err
	}
	if notice != "" {
		console.Printf(report.Info, "%s", notice)
	}
	var cases []report.Case
	failed := 0
	for _, check := range checks {
		start := time.Now()
		results := check(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, c := range results {
			c.Took = time.Since(start) / time.Duration(len(results))
			word := "ok  "
			if c.Err != nil {
				word = "FAIL"
				failed++
			}
			line := fmt.Sprintf("%s %6.2fs  %s", word, c.Took.Seconds(), c.Name)
			for _, more := range slices.DeleteFunc([]string{c.Detail, errorText(c.Err)}, func(s string) bool { return s == "" }) {
				line += ": " + more
			}
			console.Printf(report.Info, "%s", line)
			cases = append(cases, c)
		}
	}
	var errs []error
	if failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d checks failed: this machine doesn't compute as it should. Don't trust what it trains", failed, len(cases)))
	}
	if o.JUnit != "" {
		errs = append(errs, report.WriteJUnit(o.JUnit, "trainer smoke", cases))
	}
	if o.Losses != "" {
		trained := slices.IndexFunc(cases, func(c report.Case) bool { return c.Losses != nil }) // the CPU's, if both were checked
		if trained >= 0 {
			errs = append(errs, report.WriteLosses(o.Losses, cases[trained].Losses))
		}
	}
	return errors.Join(errs...)
}

// chooseChecks returns those of a device, and what to say if that isn't all.
func chooseChecks(spec device.Spec) (checks []smoke.Check, notice string, err error) {
	if spec.Kind != "cuda" {
		checks = smoke.Checks()
	}
	if spec.Kind == "cpu" {
		return checks, "", nil
	}
	gpu, err := smoke.GPU(spec)
	if spec.Kind == "auto" && errors.Is(err, device.ErrUnavailable) {
		return checks, "No GPU is checked: " + err.Error(), nil
	}
	return append(checks, gpu...), "", err
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
