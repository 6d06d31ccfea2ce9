package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/device"
	"github.com/berthdev/berth/trainer/report"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"trainer": main})
}

// TestScripts runs the trainer as a process of its own, as a person would.
func TestScripts(t *testing.T) {
	folder := sample(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/scripts",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SAMPLE", folder)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// await FILE waits until a running command has made a file.
			"await": func(ts *testscript.TestScript, neg bool, args []string) {
				name := ts.MkAbs(args[0])
				for range 6000 {
					if _, err := os.Stat(name); err == nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				ts.Fatalf("%s didn't appear", args[0])
			},
			// further FILE sets EPOCHS to two more than are done in a checkpoint.
			"further": func(ts *testscript.TestScript, neg bool, args []string) {
				c, err := checkpoint.Decode([]byte(ts.ReadFile(args[0])))
				ts.Check(err)
				ts.Setenv("EPOCHS", fmt.Sprint(len(c.Progress.Epochs)+2))
			},
			// exits CODE ARG… runs the trainer and checks its exit code.
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				err := ts.Exec("trainer", args[1:]...)
				code := 0
				var exit interface{ ExitCode() int }
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("trainer exits with %d, want %s", code, args[0])
				}
			},
			// same FILE FILE… compares files to the byte, without printing them.
			"same": func(ts *testscript.TestScript, neg bool, args []string) {
				for _, other := range args[1:] {
					if (ts.ReadFile(args[0]) == ts.ReadFile(other)) == neg {
						ts.Fatalf("%s and %s: same is %v", args[0], other, neg)
					}
				}
			},
			// epochs FILE OUT keeps of a record what must be equal for equal runs.
			"epochs": func(ts *testscript.TestScript, neg bool, args []string) {
				kept := regexp.MustCompile(`"((train|test)_(loss|accuracy)|checkpoint_sha256)": [^,\n]*`).FindAllString(ts.ReadFile(args[0]), -1)
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(kept, "\n")+"\n"), 0o666))
			},
		},
	})
}

func TestDashed(t *testing.T) {
	for in, want := range map[string]string{
		"--num_epochs=3 --batch_size 5":    "--num-epochs=3 --batch-size 5",
		"-num_epochs=3":                    "-num-epochs=3",
		"--json=my_file.json --curve a_b":  "--json=my_file.json --curve a_b",
		"--fashion -- --data_dir":          "--fashion -- --data_dir",
		"--data-dir=under_score some_file": "--data-dir=under_score some_file",
		"":                                 "",
	} {
		assert.Equal(t, strings.Fields(want), append([]string{}, dashed(strings.Fields(in))...), in)
	}
}

func TestExitCode(t *testing.T) {
	for code, err := range map[int]error{
		1:   errors.New("any"),
		2:   usagef("odd"),
		3:   fmt.Errorf("wrapped: %w", data.ErrNotFound),
		130: errors.Join(interrupted{syscall.SIGINT}, errors.New("another")),
		143: interrupted{syscall.SIGTERM},
		129: interrupted{syscall.SIGHUP},
	} {
		assert.Equal(t, code, exitCode(err))
	}
	assert.Equal(t, 3, exitCode(device.ErrUnavailable))
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0:00", 0: "0:00", 59600 * time.Millisecond: "1:00", 754 * time.Second: "12:34", 3*time.Hour + 5*time.Minute: "3h05m",
	} {
		assert.Equal(t, want, clock(d))
	}
}

// TestToContinue: a run goes on where it was, whatever was asked for.
func TestToContinue(t *testing.T) {
	o := TrainOptions{Epochs: 3, Device: "auto", Precision: "tf32", CheckpointDir: "c"}
	const line = "trainer train --resume --checkpoint-dir=c --num-epochs=3 "
	assert.Equal(t, line+"--device=cpu", o.toContinue(report.Device{Name: "cpu"}))
	assert.Equal(t, line+"--device=cuda:0 --precision=tf32", o.toContinue(report.Device{Name: "cuda:0 (Fake GPU 0)", GPUs: 1}))
	o = TrainOptions{Epochs: 3, Device: "cuda:all", Precision: "fp32", CheckpointDir: "c", DataDir: "my data", Fashion: true, Every: 5}
	assert.Equal(t, line+"--device=cuda:0,2 --data-dir='my data' --fashion --checkpoint-every=5",
		o.toContinue(report.Device{Name: "cuda:0,2 (2 x Fake GPU)", GPUs: 2}))
}

// TestHeldBatches: the usual steps are taken without a wait, and no number of them takes all memory.
func TestHeldBatches(t *testing.T) {
	for want, o := range map[int]BenchOptions{
		20:    {Steps: 20, BatchSize: 500, Channels: 3},
		100:   {Steps: 100, BatchSize: 500, Channels: 1}, // bench/gpu.sh
		174:   {Steps: 100_000, BatchSize: 500, Channels: 3},
		87381: {Steps: 100_000, BatchSize: 1, Channels: 3},
		1:     {Steps: 100_000, BatchSize: 65536, Channels: 3},
	} {
		assert.Equal(t, want, heldBatches(o))
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{"a/b-1.c": "a/b-1.c", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		assert.Equal(t, want, quote(in))
	}
}
