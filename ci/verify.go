package ci

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/internal/advice"
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

// ErrBaseDiffers is in the chain of the error that says that the base stage isn't
// the one whose digest is pinned.
var ErrBaseDiffers = errors.New("the base stage isn't the pinned one")

// Verify builds the project twice, each time from nothing (the locked packages and
// modules apart, which are checked against their locks) on an engine with fresh
// state, and compares the images with each other, and their base stage with its
// pinned digest. It returns the digest that both have, or an error that wraps
// ErrNotReproducible and names layer, file and kind of each difference, or
// ErrBaseDiffers. Docker's images stay as they are.
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
	targets := []target{m.image()}
	if p.BaseStage != "" {
		targets = append(targets, m.base())
	}
	var builds [2][]v1.Image
	var drift []string
	for i := range builds {
		o.Report.Printf("Build %d of 2, on an engine with fresh state", i+1)
		// What an earlier build left must not stand in for what this one makes.
		m.entries = filepath.Join(temp, fmt.Sprintf("build-%d", i))
		if builds[i], drift, err = m.make(ctx, targets...); err != nil {
			return Result{}, err
		}
	}
	o.Report.Update("Comparing")
	differences, err := image.Diff(ctx, builds[0][0], builds[1][0])
	if err != nil {
		return Result{}, err
	}
	if len(differences) > 0 {
		var lines strings.Builder
		for _, d := range differences {
			fmt.Fprintf(&lines, "\n\t%s", d)
		}
		return Result{}, fmt.Errorf("%w:%s\nMake the step of %s that writes it leave the same bytes each time, or remove what it leaves",
			ErrNotReproducible, lines.String(), p.Dockerfile)
	}
	if len(targets) > 1 && len(drift) == 0 {
		if err := checkBase(p, builds[0][1]); err != nil {
			return Result{}, err
		}
	}
	result, err := describe(builds[0][0])
	if err != nil {
		return Result{}, err
	}
	result.Inputs, result.Epoch, result.Drift = in.Hash, in.Epoch, drift
	return *result, nil
}

// checkBase compares the base stage with its pinned digest.
func checkBase(p Project, base v1.Image) error {
	pinned, err := PinnedBaseDigest(p)
	if err != nil {
		return err
	}
	digest, err := base.Digest()
	if err != nil || digest.String() == pinned {
		return err
	}
	err = fmt.Errorf("%w: stage %s of %s is %s, and %s has %s", ErrBaseDiffers, p.BaseStage, p.Dockerfile, digest, p.BaseDigest, pinned)
	return advice.With(err, "If the Dockerfile's beginning has changed, write the new digest with\n\t%s pin", advice.Berth)
}
