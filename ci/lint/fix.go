package lint

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
)

// Fix writes the pins of those findings that it can look up: digests of images from their
// registries, with the credentials of Docker's configuration, and commits of actions from
// GitHub by git. It returns the findings that are left, and why, where a look-up failed. A
// file that changed meanwhile stays as it is.
func Fix(ctx context.Context, root string, findings []Finding) (fixed, left []Finding, err error) {
	type place struct {
		finding Finding
		text    string
	}
	edits := map[string][]place{}
	known := map[pin]string{} // each is looked up once
	var errs []error
	for _, f := range findings {
		if f.pin == nil {
			left = append(left, f)
			continue
		}
		key := pin{image: f.pin.image, repository: f.pin.repository, ref: f.pin.ref}
		text, done := known[key]
		if !done {
			if text, err = look(ctx, key); err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %w", f.File, f.Line, err))
			}
			known[key] = text // "" if it failed: that was said once
		}
		if text == "" {
			left = append(left, f)
			continue
		}
		edits[f.File] = append(edits[f.File], place{f, text})
	}
	for file, places := range edits {
		// From the end, so that the places before it stay where they are.
		slices.SortFunc(places, func(a, b place) int { return cmp.Compare(b.finding.pin.offset, a.finding.pin.offset) })
		path := filepath.Join(root, filepath.FromSlash(file))
		text, err := os.ReadFile(path)
		if err != nil {
			return fixed, left, errors.Join(append(errs, err)...)
		}
		for _, p := range places {
			if text, err = replace(text, p.finding, p.text); err != nil {
				break
			}
		}
		if err == nil {
			info, statErr := os.Stat(path)
			if err = statErr; err == nil {
				err = cache.WriteFile(path, text, info.Mode().Perm())
			}
		}
		for _, p := range places {
			if err != nil {
				left = append(left, p.finding)
			} else {
				fixed = append(fixed, p.finding)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
		}
	}
	byPlace := func(a, b Finding) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line)) }
	slices.SortStableFunc(fixed, byPlace)
	slices.SortStableFunc(left, byPlace)
	return fixed, left, errors.Join(errs...)
}

// replace writes what was looked up into a file's text.
func replace(text []byte, f Finding, found string) ([]byte, error) {
	was := f.pin.text
	begin, end := f.pin.offset, f.pin.offset+len(was)
	if end > len(text) || string(text[begin:end]) != was {
		return nil, errors.New("the file changed while it was checked, and stays as it is")
	}
	now := was + "@" + found
	if f.pin.repository != "" {
		now = strings.TrimSuffix(was, f.pin.ref) + found
	}
	line := len(text)
	if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
		line = end + i
	}
	rest := text[end:line]
	// A comment that is there says more than the tag would.
	if f.pin.comment && !bytes.Contains(rest, []byte("#")) {
		rest = slices.Concat(bytes.TrimRight(rest, " \t\r"), []byte(" # "+f.pin.ref), rest[len(bytes.TrimRight(rest, "\r")):])
	}
	return slices.Concat(text[:begin], []byte(now), rest, text[line:]), nil
}

// look asks a registry for the digest of an image, or git for the commit of a ref.
func look(ctx context.Context, p pin) (string, error) {
	if p.image != "" {
		return ImageDigest(ctx, p.image)
	}
	url := "https://github.com/" + p.repository
	git := exec.CommandContext(ctx, "git", "ls-remote", "--", url, "refs/tags/"+p.ref, "refs/tags/"+p.ref+"^{}", "refs/heads/"+p.ref)
	git.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
	out, err := git.Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return "", advice.With(fmt.Errorf("git ls-remote %s: %w", url, err), "Is the repository there, and in reach?")
	}
	if id := commitOf(string(out), p.ref); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%s has no tag or branch %s", url, p.ref)
}

// commitOf reads what git ls-remote prints: for a tag with a text of its own, ^{} is the
// commit. A tag comes before a branch of its name, as for GitHub.
func commitOf(printed, ref string) string {
	ids := map[string]string{}
	for line := range strings.Lines(printed) {
		if id, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && commit.MatchString(id) {
			ids[name] = id
		}
	}
	return cmp.Or(ids["refs/tags/"+ref+"^{}"], ids["refs/tags/"+ref], ids["refs/heads/"+ref])
}

// ImageDigest asks a registry for the digest that a tag has now, with the credentials of
// Docker's configuration: for an image of several platforms, that of its index.
func ImageDigest(ctx context.Context, image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", err
	}
	// The registry's own answer: for an image of several platforms, its index.
	found, err := remote.Head(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return "", advice.With(fmt.Errorf("asking %s for the digest of %s: %w", ref.Context().RegistryStr(), image, err),
			"If it needs a login, docker login %s first.", ref.Context().RegistryStr())
	}
	return found.Digest.String(), nil
}
