package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/gemm"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/report"
)

// InfoOptions are the flags of `trainer info`.
type InfoOptions struct {
	DataDir  string
	Channels int
}

func newInfoCommand() *command {
	var o InfoOptions
	fs := newFlags("info")
	fs.StringVar(&o.DataDir, "data-dir", "", "look for data in folder `DIR` (default: ./data, then "+data.ImageFolder+")")
	fs.IntVar(&o.Channels, "channels", 3, "`N` channels of the images: 1 (gray) or 3 (colour)")
	return &command{
		name: "info", summary: "tell version, devices, data and the network's tensors", flags: fs,
		run: func(_ context.Context, console *report.Console, args []string) error {
			if err := noArguments(args); err != nil {
				return err
			}
			_, err := onDevice(func() error { return runInfo(console, o) })
			return err
		},
	}
}

func runInfo(console *report.Console, o InfoOptions) error {
	if o.Channels != 1 && o.Channels != 3 {
		return usagef("--channels=%d: give 1 or 3", o.Channels)
	}
	network, err := nn.New(nn.Config{Channels: o.Channels, Classes: data.Classes, Dropout: dropout})
	if err != nil {
		return err
	}
	trainer, goVersion := version()
	table := tabwriter.NewWriter(console, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "version\t%s (%s, %s/%s)\n", trainer, goVersion, runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(table, "cpu\t%d cores, kernels %s\n", runtime.NumCPU(), strings.Join(gemm.Kernels(), ", "))
	for _, line := range gpuLines(device.GPUs()) {
		fmt.Fprintf(table, "%s\n", line)
	}
	set, err := data.Find(o.DataDir, false)
	switch {
	case err == nil:
		fmt.Fprintf(table, "data\t%s in %s: %d + %d images of %dx%dx%d\n\tSHA-256 %s\n", set.Name, set.Folder,
			set.Train.Len(), set.Test.Len(), set.Channels, set.Height, set.Width, set.SHA256)
	case errors.Is(err, data.ErrNotFound) && o.DataDir == "":
		fmt.Fprintf(table, "data\tnone in %s\n", strings.Join(data.Defaults(), " or "))
	default:
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	table = tabwriter.NewWriter(console, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\ntensor\tshape\tvalues\t")
	total := 0
	for _, t := range network.State().Tensors {
		if strings.HasPrefix(t.Name, "adam.") || strings.Contains(t.Name, ".running_") {
			continue // not trained
		}
		total += len(t.Data)
		fmt.Fprintf(table, "%s\t%s\t%d\t\n", t.Name, strings.Trim(strings.ReplaceAll(fmt.Sprint(t.Shape), " ", "x"), "[]"), len(t.Data))
	}
	fmt.Fprintf(table, "total\t\t%d\t\n", total)
	return table.Flush()
}

// gpuLines tells which GPUs there are, and why none is used, in two columns.
func gpuLines(driver string, gpus []device.GPU, err error) []string {
	var lines []string
	switch {
	case err != nil:
		lines = append(lines, "cuda\t"+err.Error())
	case gpus[0].Err != nil:
		lines = append(lines, "cuda\t--device=auto doesn't take cuda:0: "+gpus[0].Err.Error())
	default:
		line := "cuda\tavailable: --device=auto takes cuda:0"
		if len(gpus) > 1 && !slices.ContainsFunc(gpus, func(g device.GPU) bool { return g.Err != nil }) {
			line += fmt.Sprintf(", --device=cuda:all all %d", len(gpus))
		}
		lines = append(lines, line)
	}
	if driver != "" {
		lines = append(lines, "driver\t"+driver)
	}
	for i, g := range gpus {
		line := fmt.Sprintf("cuda:%d\t%s, %s, %.1f GiB, compute capability %s", i, g.Name, g.UUID, float64(g.Memory)/(1<<30), g.Capability)
		if g.Err != nil {
			line += ". Can't be used: " + g.Err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}
