package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berthdev/berth/docker/daemon"
)

// findImage returns the engine's image, which is pulled or built if need be, and
// the hash of its inputs.
func (p *provider) findImage(ctx context.Context) (image, inputs string, err error) {
	hasOfficial, err := p.has(ctx, p.official(), nil)
	if err != nil {
		return "", "", err
	}
	hasBuilt, err := p.has(ctx, p.tag(), map[string]string{daemon.LabelInputs: p.inputs})
	if err != nil {
		return "", "", err
	}
	_, unusable := p.gpus(p.inputs) // ours lacks NVIDIA's toolkit, and takes the machine's
	from := chooseSource(p.source, hasOfficial, hasBuilt && unusable == nil)
	if from == pull {
		switch err := p.pull(ctx, p.official()); {
		case err == nil:
			from = present
		case ctx.Err() != nil:
			return "", "", context.Cause(ctx)
		case p.source == "image":
			return "", "", fmt.Errorf("%w: the official image isn't available: %w. Load it with\n\tdocker load\n"+
				"from a machine that has it, or unset %s to build an engine from source", ErrUnavailable, err, envSource)
		case unusable != nil:
			return "", "", fmt.Errorf("%w\nThe official engine %s has it, but isn't available: %w", unusable, p.official(), err)
		default:
			p.Report.Printf("The official engine isn't available (%v): building it from source, which takes minutes, once", err)
			from = fromScratch
		}
	}
	switch from {
	case present:
		return p.official(), p.officialInputs(), nil
	case fromScratch:
		if unusable != nil {
			return "", "", unusable
		}
		err = p.image(ctx, p.docker)
	}
	return p.tag(), p.inputs, err
}

// has reports whether Docker has an image with these labels.
func (p *provider) has(ctx context.Context, ref string, labels map[string]string) (bool, error) {
	i, err := p.docker.Image(ctx, ref)
	if errors.Is(err, daemon.ErrNotFound) {
		return false, nil
	}
	for k, v := range labels {
		if i.Labels[k] != v {
			return false, err
		}
	}
	return err == nil, err
}

// How long a registry may take for its first reply, and between two.
const (
	firstReplyTimeout = 5 * time.Second
	nextReplyTimeout  = 60 * time.Second
)

// pull fetches an image, but gives up soon where no registry answers.
func (p *provider) pull(ctx context.Context, ref string) error {
	p.Report.Update("Asking for the official engine %s", ref)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(firstReplyTimeout, func() { cancel(errors.New("its registry doesn't answer")) })
	defer idle.Stop()
	err := p.docker.Pull(ctx, ref, func(line string) {
		idle.Reset(nextReplyTimeout)
		p.Report.Update("Pulling %s: %s", ref, line)
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
