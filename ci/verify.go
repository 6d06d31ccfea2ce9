package ci

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// ErrNotReproducible is in the chain of the error that says where two builds of
// the same inputs differ.
var ErrNotReproducible = errors.New("two builds of the same inputs differ")

// VerifyOptions says how to verify.
type VerifyOptions struct {
	Locked bool               // refuse packages other than the locked ones
	Report *progress.Reporter // may be nil
}

// Verify builds the project twice, each time from nothing on an engine with
// fresh state, and compares the images. It returns the digest that both have, or
// an error that wraps ErrNotReproducible and names layer, file and kind of each
// difference. Docker's images stay as they are.
func Verify(ctx context.Context, p Project, o VerifyOptions) (Result, error) {
	in, err := ReadInputs(p)
	if err != nil {
		return Result{}, err
	}
	dir, err := cache.Open()
	if err != nil {
		return Result{}, err
	}
	temp, remove, err := dir.Temp("verify")
	if err != nil {
		return Result{}, err
	}
	defer remove()

	m := maker{project: p, inputs: in, locked: o.Locked, fresh: true, cache: dir, report: o.Report}
	var images [2]v1.Image
	var drift []string
	for i := range images {
		o.Report.Printf("Build %d of 2, on an engine with fresh state", i+1)
		// Layers of an earlier build must not stand in for this one's.
		m.layers = filepath.Join(temp, fmt.Sprintf("layers-%d", i))
		if images[i], drift, err = m.make(ctx, "", in.labels()); err != nil {
			return Result{}, err
		}
	}
	o.Report.Update("Comparing")
	differences, err := image.Diff(ctx, images[0], images[1])
	if err != nil {
		return Result{}, err
	}
	if len(differences) > 0 {
		var lines strings.Builder
		for _, d := range differences {
			fmt.Fprintf(&lines, "\n\t%s", d)
		}
		return Result{}, fmt.Errorf("%w:%s\nMake the step of %s that writes it leave the same bytes each time, or remove what it leaves", ErrNotReproducible, lines.String(), p.Dockerfile)
	}
	result, err := describe(images[0])
	if err != nil {
		return Result{}, err
	}
	result.Inputs, result.Epoch, result.Drift = in.Hash, in.Epoch, drift
	return *result, nil
}
