package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/berthdev/berth/trainer/report"
)

// PlotOptions are the flags of `trainer plot`.
type PlotOptions struct {
	Curve string
}

func newPlotCommand() *command {
	var o PlotOptions
	fs := newFlags("plot")
	fs.StringVar(&o.Curve, "curve", "", "draw into `FILE` (PNG), too")
	return &command{
		name: "plot", synopsis: " RECORD.json…", summary: "draw the curves of runs, several to compare them", flags: fs,
		run: func(_ context.Context, console *report.Console, args []string) error {
			return runPlot(console, o, args)
		},
	}
}

// runPlot draws the records in the named files.
func runPlot(console *report.Console, o PlotOptions, files []string) error {
	if len(files) == 0 {
		return usagef("name the records to draw, as `trainer train --json=FILE` wrote them")
	}
	var runs []*report.Record
	var names []string
	for _, file := range files {
		r, err := report.ReadFile(file)
		if err != nil {
			return err
		}
		if len(r.Epochs) == 0 {
			return fmt.Errorf("record %s: no epoch was finished, so there is nothing to draw", file)
		}
		runs = append(runs, r)
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	charts := report.Charts(runs, names)
	fmt.Fprint(console, report.Draw(charts, console.Screen))
	table := tabwriter.NewWriter(console, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "run\tdata\tepochs\tbatch\tlr\tseed\tdevice\timages/s\tbest test accuracy\tstate\t")
	for i, r := range runs {
		best, _ := r.Best()
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%g\t%d\t%s\t%.0f\t%.4f (epoch %d)\t%.12s\t\n", names[i], r.Data.Name, len(r.Epochs), r.Options.BatchSize,
			r.Options.LR, r.Options.Seed, r.Device.Name, r.ImagesPerSecond, best.TestAccuracy, best.Number, r.CheckpointSHA256)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if o.Curve == "" {
		return nil
	}
	return report.WritePNG(o.Curve, charts)
}
