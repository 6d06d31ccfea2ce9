// Package report shows how a training run goes and went: a live line, lines for
// a log, curves in the terminal and as PNG, a JSON record, JUnit XML. It takes plain
// values and knows nothing of training.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/berthdev/berth/trainer/checkpoint"
	"github.com/berthdev/berth/trainer/data"
	"github.com/berthdev/berth/trainer/internal/atomic"
)

// Format is the version of the record's format.
const Format = 1

// A Record ties what a run gave to all that it depended on.
type Record struct {
	Format           int       `json:"format"`
	Outcome          string    `json:"outcome"` // "finished", or why it ended before
	Started          time.Time `json:"started"`
	Seconds          float64   `json:"seconds"`
	Version          string    `json:"version"` // of the trainer
	Go               string    `json:"go"`
	ImageDigest      string    `json:"image_digest,omitempty"` // of the container image, inside one
	Options          Options   `json:"options"`
	Data             Data      `json:"data"`
	Device           Device    `json:"device"`
	Parameters       int       `json:"parameters"`
	ResumedAtStep    int64     `json:"resumed_at_step,omitempty"`
	Steps            int64     `json:"steps"`
	ImagesPerSecond  float64   `json:"images_per_second"` // while training, without tests and checkpoints
	CheckpointSHA256 string    `json:"checkpoint_sha256"` // of the final state: equal for equal runs
	Epochs           []Epoch   `json:"epochs"`
}

// Options are those that the result depends on.
type Options struct {
	Epochs    int     `json:"num_epochs"`
	BatchSize int     `json:"batch_size"`
	LR        float32 `json:"lr"`
	Dropout   float32 `json:"dropout"`
	Seed      uint64  `json:"seed"`
	Fashion   bool    `json:"fashion"`
}

// Data is what was trained on.
type Data struct {
	Name   string      `json:"name"`
	SHA256 string      `json:"sha256"`
	Known  bool        `json:"known"` // a published set, to the byte
	Folder string      `json:"folder"`
	Train  int         `json:"train_images"`
	Test   int         `json:"test_images"`
	Files  []data.File `json:"files"`
}

// Device is what was trained on, and how.
type Device struct {
	Name    string `json:"name"`
	GPUs    int    `json:"gpus"` // 0: it is the CPU
	Kernel  string `json:"kernel"`
	Workers int    `json:"workers"`
	Cores   int    `json:"cores"`
}

// Epoch is one epoch's result, with its time where this run took it.
type Epoch struct {
	Number int `json:"epoch"` // from 1
	checkpoint.Epoch
	Seconds         float64 `json:"seconds,omitempty"`           // with the test
	ImagesPerSecond float64 `json:"images_per_second,omitempty"` // while training
}

// Best is the epoch with the highest test accuracy, the first of several.
func (r *Record) Best() (Epoch, bool) {
	if len(r.Epochs) == 0 {
		return Epoch{}, false
	}
	best := r.Epochs[0]
	for _, e := range r.Epochs {
		if e.TestAccuracy > best.TestAccuracy {
			best = e
		}
	}
	return best, true
}

// WriteFile writes the record, whole or not at all.
func (r *Record) WriteFile(name string) error {
	err := atomic.WriteFile(name, func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	})
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// ReadFile reads a record.
func ReadFile(name string) (*Record, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w. Give a file that `trainer train --json` wrote", name, err)
	}
	return r, nil
}

func parse(raw []byte) (*Record, error) {
	var r Record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	if r.Format != Format {
		return nil, fmt.Errorf("its format is %d, this trainer reads %d", r.Format, Format)
	}
	return &r, nil
}

// WriteLosses writes the losses of steps, whole or not at all: the number of the step, from
// 1, and its loss on each line.
func WriteLosses(name string, losses []float64) error {
	err := atomic.WriteFile(name, func(w io.Writer) error {
		for i, loss := range losses {
			if _, err := fmt.Fprintln(w, i+1, loss); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the losses: %w", err)
	}
	return nil
}
