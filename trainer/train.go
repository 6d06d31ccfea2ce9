package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/internal/atomic"
	"github.com/berthdev/berth/trainer/loop"
	"github.com/berthdev/berth/trainer/nn"
	"github.com/berthdev/berth/trainer/report"
)

// dropout is the probability with which the network drops channels, as in the
// program that this one replaces.
const dropout = 0.5

// TrainOptions are the flags of `trainer train`.
type TrainOptions struct {
	Epochs        int
	BatchSize     int
	LR            float64
	Workers       int
	Seed          uint64
	DataDir       string
	Fashion       bool
	Device        string
	Precision     string
	CheckpointDir string
	Every         int64
	Resume        bool
	JSON          string
	Curve         string
	LogLevel      string
}

func newTrainCommand() *command {
	var o TrainOptions
	fs := newFlags("train")
	fs.IntVar(&o.Epochs, "num-epochs", 50, "train for `N` epochs")
	fs.IntVar(&o.BatchSize, "batch-size", 500, "`N` images in a step")
	fs.Float64Var(&o.LR, "lr", 1e-3, "learning rate `X`")
	fs.IntVar(&o.Workers, "num-workers", 0, "compute with `N` goroutines (default: one a core); the result is the same")
	fs.Uint64Var(&o.Seed, "seed", 0, "`N` gives initial values, order, flips and dropout")
	fs.StringVar(&o.DataDir, "data-dir", "", "find the data in folder `DIR` (default: ./data, then "+data.ImageFolder+")")
	fs.BoolVar(&o.Fashion, "fashion", false, "insist on Fashion-MNIST; else CIFAR-10 if it is there, else what is there")
	fs.StringVar(&o.Device, "device", "auto", "`DEVICE`: auto, cpu, cuda, cuda:N, several GPUs as cuda:N,M, or cuda:all")
	fs.StringVar(&o.Precision, "precision", "fp32", "convolutions on a GPU multiply in `P`: fp32, or tf32 on tensor cores")
	fs.StringVar(&o.CheckpointDir, "checkpoint-dir", "checkpoints", "keep the checkpoint in folder `DIR`; empty: none is kept")
	fs.Int64Var(&o.Every, "checkpoint-every", 0, "save also every `N` steps, beside every epoch")
	fs.BoolVar(&o.Resume, "resume", false,
		"continue from the checkpoint, to the same bits, with its --batch-size, --lr and --seed; the other flags are to be given again")
	fs.StringVar(&o.JSON, "json", "", "write a record of the run to `FILE`")
	fs.StringVar(&o.Curve, "curve", "", "draw loss and accuracy into `FILE` (PNG)")
	fs.StringVar(&o.LogLevel, "log-level", "info", "`LEVEL`: debug (every step), info, warning or error")
	return &command{
		name: "train", summary: "train the network, with checkpoints, curves and a record", flags: fs,
		run: func(ctx context.Context, console *report.Console, args []string) error {
			if err := noArguments(args); err != nil {
				return err
			}
			given := map[string]bool{}
			fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
			return runTrain(ctx, console, o, given)
		},
	}
}

// check refuses options that can't be, before anything is read or written.
func (o *TrainOptions) check() error {
	lr := float32(o.LR)
	switch {
	case o.Epochs < 1 || o.Epochs > 100_000:
		return usagef("--num-epochs=%d: give 1 to 100000", o.Epochs)
	case o.BatchSize < 1 || o.BatchSize > 65536:
		return usagef("--batch-size=%d: give 1 to 65536", o.BatchSize)
	case !(lr > 0) || math.IsInf(float64(lr), 0):
		return usagef("--lr=%v: give a positive number, such as 0.001", o.LR)
	case o.Workers < 0 || o.Workers > 4096:
		return usagef("--num-workers=%d: give 1 to 4096, or 0 for one a core", o.Workers)
	case o.Every < 0:
		return usagef("--checkpoint-every=%d: give a number of steps, or 0", o.Every)
	case o.Resume && o.CheckpointDir == "":
		return usagef("--resume needs a --checkpoint-dir to resume from")
	case o.Every > 0 && o.CheckpointDir == "":
		return usagef("--checkpoint-every needs a --checkpoint-dir to write to")
	}
	return nil
}

// checkGPUs refuses a batch that some GPU has no part of.
func checkGPUs(gpus, batch int) error {
	if gpus > batch {
		return usagef("--batch-size=%d has fewer images than there are GPUs: %d. Give a larger one, or name fewer GPUs with --device", batch, gpus)
	}
	return nil
}

// checkOutput refuses a file that can't be written: now rather than after hours
// of work. An empty name is that of no file.
func checkOutput(flag, name string) error {
	if name == "" {
		return nil
	}
	if err := atomic.Check(name); err != nil {
		return usagef("--%s=%s can't be written: %w. Name a file in a folder that is there and that you may write to", flag, name, err)
	}
	return nil
}

// runTrain trains. given are the flags that were given: a resumed run takes some of
// the others from its checkpoint.
func runTrain(ctx context.Context, console *report.Console, o TrainOptions, given map[string]bool) (err error) {
	if console.Level, err = report.ParseLevel(o.LogLevel); err != nil {
		return usagef("%w", err)
	}
	spec, err := device.Parse(o.Device, o.Precision)
	if err != nil {
		return usagef("%w", err)
	}
	if err := errors.Join(o.check(), checkGPUs(len(spec.Indexes), o.BatchSize), checkOutput("json", o.JSON), checkOutput("curve", o.Curve)); err != nil {
		return err
	}
	set, err := data.Find(o.DataDir, o.Fashion)
	if err != nil {
		return err
	}
	store := &store{console: console, fresh: true}
	var from checkpoint.Checkpoint
	if o.CheckpointDir != "" {
		if store.folder, err = checkpoint.Open(o.CheckpointDir); err != nil {
			return err
		}
		defer store.folder.Close()
		if err := atomic.Check(store.folder.Path()); err != nil {
			return fmt.Errorf("checkpoints: %w. Give a --checkpoint-dir that you may write to, or an empty one to keep no checkpoint", err)
		}
	}
	if o.Resume {
		loaded, err := store.folder.Load()
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w. Leave out --resume to start anew%s", err, store.orKept())
		}
		if err != nil {
			return fmt.Errorf("%w. Give another --checkpoint-dir, or leave out --resume to start anew%s", err, store.orKept())
		}
		if err := o.adopt(loaded, set, given); err != nil {
			return fmt.Errorf("checkpoint %s: %w", store.folder.Path(), err)
		}
		from, store.fresh, store.step = *loaded, false, loaded.State.Step
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	cfg := nn.Config{Channels: set.Channels, Classes: data.Classes, Seed: o.Seed, Workers: o.Workers, LR: float32(o.LR), Dropout: dropout}
	hangs, err := onDevice(func() error {
		opened, err := device.Open(spec, cfg)
		if err != nil {
			return err
		}
		if err := checkGPUs(opened.GPUs, o.BatchSize); err != nil {
			return err
		}
		if o.Resume {
			if err := opened.Restore(from.State); err != nil {
				return fmt.Errorf("checkpoint %s: %w", store.folder.Path(), err)
			}
		}
		w := newWatch(console, o, set, opened, from, store)
		w.greet()
		progress, err := loop.Run(ctx, loop.Job{
			Network: opened.Backend, Set: set, Seed: o.Seed, Epochs: o.Epochs, BatchSize: o.BatchSize, Every: o.Every,
			Save: store.save, Watch: w.event,
		}, from.Progress)
		console.Clear()
		return errors.Join(w.finish(progress, err), store.failed)
	})
	if hangs {
		console.Clear()
		return fmt.Errorf("%w. %s", err, store.left())
	}
	return err
}

// adopt takes over those options that a checkpoint has, where they were not given.
// Those given must be the same, or the run would not continue as it began.
func (o *TrainOptions) adopt(c *checkpoint.Checkpoint, set *data.Set, given map[string]bool) error {
	if c.Run.DataSHA256 != set.SHA256 {
		return fmt.Errorf("it was trained on %s with SHA-256 %.12s…, but %s has %s with %.12s…. Name the same data with --data-dir",
			c.Run.Data, c.Run.DataSHA256, set.Folder, set.Name, set.SHA256)
	}
	if c.State.Config.Dropout != dropout || c.State.Config.Channels != set.Channels {
		return errors.New("it is of another network")
	}
	differ := func(flag string, is, was any) error {
		return fmt.Errorf("it was trained with --%s=%v, not %v. Leave the flag out, or start anew without --resume", flag, was, is)
	}
	switch {
	case given["batch-size"] && o.BatchSize != c.Run.BatchSize:
		return differ("batch-size", o.BatchSize, c.Run.BatchSize)
	case given["lr"] && float32(o.LR) != c.State.Config.LR:
		return differ("lr", o.LR, c.State.Config.LR)
	case given["seed"] && o.Seed != c.State.Seed:
		return differ("seed", o.Seed, c.State.Seed)
	}
	o.BatchSize, o.LR, o.Seed = c.Run.BatchSize, float64(c.State.Config.LR), c.State.Seed
	if done := len(c.Progress.Epochs); done >= o.Epochs {
		asked := "--num-epochs=%d"
		if !given["num-epochs"] {
			asked += ", the default,"
		}
		return fmt.Errorf("it has %d epochs already, and "+asked+" asks for no more. Give a larger one to train on, such as --num-epochs=%d",
			done, o.Epochs, done+1)
	}
	return o.check()
}

// store saves checkpoints for a run. When one can't be saved the run goes on,
// since the next may work; the last one decides.
type store struct {
	console *report.Console
	folder  *checkpoint.Folder // nil: none are wanted
	fresh   bool               // no checkpoint of this run is in the folder yet
	step    int64              // of the one that is
	failed  error              // why the last one could not be saved
}

func (s *store) save(c *checkpoint.Checkpoint) {
	if s.folder == nil {
		return
	}
	var kept string
	if s.fresh {
		kept, s.failed = s.folder.SaveNew(c)
	} else {
		s.failed = s.folder.Save(c)
	}
	if s.failed != nil {
		s.console.Printf(report.Warning, "No checkpoint written at step %d: %v. %s", c.State.Step, s.failed, s.left())
		return
	}
	s.fresh, s.step = false, c.State.Step
	if kept != "" {
		s.console.Printf(report.Info, "The checkpoint of an earlier run is now %s", kept)
	}
	s.console.Printf(report.Debug, "Checkpoint at step %d in %s", c.State.Step, s.folder.Path())
}

// left tells what there is after a checkpoint could not be written.
func (s *store) left() string {
	if s.folder == nil {
		return "No checkpoint was to be kept"
	}
	_, err := os.Lstat(s.folder.Path())
	switch {
	case err == nil && s.fresh:
		return s.folder.Path() + " is still that of an earlier run"
	case err == nil:
		return fmt.Sprintf("%s is still that of step %d", s.folder.Path(), s.step)
	default:
		return "There is none at " + s.folder.Path()
	}
}

// orKept is the end of an error about the checkpoint to resume from: how to resume
// from those of earlier runs, if there are any.
func (s *store) orKept() string {
	kept, err := s.folder.Kept()
	if err != nil || len(kept) == 0 {
		return ""
	}
	return fmt.Sprintf(", or rename one of those of earlier runs to %s: %s", s.folder.Path(), strings.Join(kept, ", "))
}

// watch shows a run to a person, and keeps its record.
type watch struct {
	console *report.Console
	options TrainOptions
	opened  device.Opened
	record  report.Record
	store   *store

	started    time.Time
	epochStart time.Time
	lastStep   time.Time
	training   time.Duration // of the epoch's steps
	images     int           // in them
	allTime    time.Duration // the same, of the whole run
	allImages  int
}

func newWatch(console *report.Console, o TrainOptions, set *data.Set, opened device.Opened, from checkpoint.Checkpoint, s *store) *watch {
	w := &watch{console: console, options: o, opened: opened, store: s}
	r := &w.record
	r.Format = report.Format
	r.Version, r.Go = version()
	w.started = time.Now()
	r.Started = w.started.UTC().Truncate(time.Second)
	r.ImageDigest = os.Getenv("BERTH_IMAGE_DIGEST")
	r.Options = report.Options{Epochs: o.Epochs, BatchSize: o.BatchSize, LR: float32(o.LR), Dropout: dropout, Seed: o.Seed, Fashion: o.Fashion}
	r.Data = report.Data{Name: set.Name, SHA256: set.SHA256, Known: set.Known(), Folder: set.Folder, Train: set.Train.Len(), Test: set.Test.Len(), Files: set.Files}
	r.Device = report.Device{Name: opened.Name, GPUs: opened.GPUs, Kernel: opened.Kernel, Workers: o.Workers, Cores: runtime.NumCPU()}
	r.Parameters = opened.NumParameters()
	r.ResumedAtStep = from.State.Step
	r.Epochs = []report.Epoch{}
	for i, e := range from.Progress.Epochs {
		r.Epochs = append(r.Epochs, report.Epoch{Number: i + 1, Epoch: e})
	}
	w.epochStart, w.lastStep = w.started, w.started
	return w
}

// greet says what is about to be done.
func (w *watch) greet() {
	r := &w.record
	if w.opened.Notice != "" {
		w.console.Printf(report.Warning, "%s", w.opened.Notice)
	}
	if !r.Data.Known {
		w.console.Printf(report.Warning, "The data in %s is no published set that this trainer knows. The record has its SHA-256: %s", r.Data.Folder, r.Data.SHA256)
	}
	w.console.Printf(report.Info, "Data: %s in %s, %d images to train on, %d to test", r.Data.Name, r.Data.Folder, r.Data.Train, r.Data.Test)
	w.console.Printf(report.Info, "Network: %d parameters, on %s (%s, %d workers), seed %d", r.Parameters, r.Device.Name, r.Device.Kernel, r.Device.Workers, r.Options.Seed)
	if r.ResumedAtStep > 0 {
		w.console.Printf(report.Info, "Resuming after step %d, %d of %d epochs are done", r.ResumedAtStep, len(r.Epochs), w.options.Epochs)
	}
}

// event hears of every step and every epoch.
func (w *watch) event(e loop.Event) {
	now := time.Now()
	p := e.Progress
	if !e.Done {
		took := now.Sub(w.lastStep)
		w.lastStep = now
		w.training += took
		w.images += e.Images
		w.allTime += took
		w.allImages += e.Images
		w.console.Printf(report.Debug, "Epoch %d, batch %d/%d: loss = %.4f", e.Epoch+1, e.Batch, e.Batches, e.Loss)
		speed := perSecond(w.allImages, w.allTime)
		left := time.Duration(float64((w.options.Epochs-e.Epoch)*w.record.Data.Train-p.Images) / speed * float64(time.Second))
		w.console.Live(now, fmt.Sprintf("Epoch %d/%d", e.Epoch+1, w.options.Epochs), float64(e.Batch)/float64(e.Batches),
			fmt.Sprintf("%d/%d  %.0f images/s  loss %.4f  accuracy %.4f  %s left", e.Batch, e.Batches, speed,
				p.LossSum/float64(p.Images), float64(p.Correct)/float64(p.Images), clock(left)))
		return
	}
	epoch := report.Epoch{
		Number: e.Epoch + 1, Epoch: p.Epochs[e.Epoch],
		Seconds: now.Sub(w.epochStart).Seconds(), ImagesPerSecond: perSecond(w.images, w.training),
	}
	w.record.Epochs = append(w.record.Epochs, epoch)
	elapsed := now.Sub(w.started)
	w.console.Printf(report.Info, "[%2d/%2d] Time elapsed: %02d:%05.2f avg_loss = %.4f train_acc = %.4f test_acc = %.4f (%.0f images/s)",
		epoch.Number, w.options.Epochs, int(elapsed.Minutes()), elapsed.Seconds()-60*math.Floor(elapsed.Minutes()),
		epoch.TrainLoss, epoch.TrainAccuracy, epoch.TestAccuracy, epoch.ImagesPerSecond)
	w.epochStart, w.lastStep, w.training, w.images = now, now, 0, 0
}

// finish shows the curve and writes what was asked for, of a run that ended with
// the given error or, if nil, as it should.
func (w *watch) finish(p checkpoint.Progress, ended error) error {
	r := &w.record
	r.Outcome = "finished"
	if ended != nil {
		r.Outcome = ended.Error()
	}
	r.Seconds = time.Since(w.started).Seconds()
	r.Steps = w.opened.Step()
	r.ImagesPerSecond = perSecond(w.allImages, w.allTime)
	sum := sha256.New()
	errs := []error{ended}
	var diverged *loop.NotFinite
	lost := false
	if !errors.As(ended, &diverged) { // else it is no state to go on from
		state, err := w.opened.State()
		if err == nil {
			err = (&checkpoint.Checkpoint{
				Run:      checkpoint.Run{Data: r.Data.Name, DataSHA256: r.Data.SHA256, BatchSize: r.Options.BatchSize},
				Progress: p, State: state,
			}).Encode(sum)
		}
		switch lost = err != nil && ended != nil; {
		case lost: // the same again
		case err != nil:
			errs = append(errs, err)
		default:
			r.CheckpointSHA256 = hex.EncodeToString(sum.Sum(nil))
		}
	}
	charts := report.Charts([]*report.Record{r}, nil)
	if best, ok := r.Best(); ok && w.console.Level <= report.Info {
		fmt.Fprint(w.console, report.Draw(charts, w.console.Screen))
		w.console.Printf(report.Info, "Best test accuracy %.4f, after epoch %d. %.0f images/s. State %.12s", best.TestAccuracy, best.Number, r.ImagesPerSecond, r.CheckpointSHA256)
	}
	if w.options.JSON != "" {
		errs = append(errs, r.WriteFile(w.options.JSON))
	}
	if w.options.Curve != "" {
		errs = append(errs, report.WritePNG(w.options.Curve, charts))
	}
	if (lost || errors.As(ended, new(interrupted))) && w.store.folder != nil && !w.store.fresh { // else there is nothing of this run
		w.console.Printf(report.Info, "Continue with: %s", w.options.toContinue(r.Device))
	}
	return errors.Join(errs...)
}

// toContinue is the command that continues a run to the same bits: on the device that it was on,
// whatever auto finds by then, and with the data that it was on.
func (o *TrainOptions) toContinue(on report.Device) string {
	name, _, _ := strings.Cut(on.Name, " ")
	line := fmt.Sprintf("trainer train --resume --checkpoint-dir=%s --num-epochs=%d --device=%s", quote(o.CheckpointDir), o.Epochs, name)
	if on.GPUs > 0 && o.Precision != string(device.FP32) { // the CPU has one alone, whatever was asked for
		line += " --precision=" + o.Precision
	}
	if o.DataDir != "" {
		line += " --data-dir=" + quote(o.DataDir)
	}
	if o.Fashion {
		line += " --fashion"
	}
	if o.Every > 0 {
		line += fmt.Sprintf(" --checkpoint-every=%d", o.Every)
	}
	return line
}

// quote makes a word of a shell's command line.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+,@%", r) && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// clock writes a duration as minutes and seconds, or hours and minutes.
func clock(d time.Duration) string {
	if d = max(d, 0).Round(time.Second); d >= time.Hour {
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d:%02d", d/time.Minute, d%time.Minute/time.Second)
}
