package ci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/lint"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
)

// baseRecipe changes whenever an image with the same base comes out with other bytes.
const baseRecipe = "1"

// platform is that of every image.
var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

// readDockerfile reads the project's Dockerfile, as the build context has it.
func readDockerfile(p Project, files []contextFile) ([]byte, error) {
	text, err := os.ReadFile(p.Path(p.Dockerfile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the engine says so
	} else if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.path == path.Clean(p.Dockerfile) && f.mode.IsRegular() && f.sum != sha256.Sum256(text) {
			return nil, fmt.Errorf("reading %s: %w", p.Dockerfile, errChanged)
		}
	}
	return text, nil
}

// lookUp is how long a registry has to say which digest a tag has, where nothing but an
// error's text depends on it.
const lookUp = 20 * time.Second

// checkBases refuses images without a digest, and says which digest to write.
func (in Inputs) checkBases(ctx context.Context, p Project) error {
	var errs []error
	for _, i := range in.Bases {
		if !i.Pinned() {
			errs = append(errs, unpinnedBase(ctx, p, i))
		}
	}
	return errors.Join(errs...)
}

func unpinnedBase(ctx context.Context, p Project, i lint.Image) error {
	place := fmt.Sprintf("%s:%d: %s %s", p.Dockerfile, i.Line, i.Where, i.Text)
	if i.Name == "" {
		return advice.With(fmt.Errorf("%w: %s: a variable in it has no value in this file", ErrUnpinned, place),
			"Give its ARG a default, before the first FROM: name:tag@sha256:…")
	}
	err := fmt.Errorf("%w: %s has no digest, and tags move: the next build might begin with another image", ErrUnpinned, place)
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	digest, lookErr := lint.ImageDigest(ctx, i.Name)
	if lookErr != nil {
		err = fmt.Errorf("%w. Which digest it has now can't be told: %w", err, lookErr)
		return advice.With(err, "Where its registry is in reach, this writes the digest into the file:\n\t%s lint -fix\n"+
			"and so may you: docker buildx imagetools inspect %s prints it.", advice.Berth, i.Name)
	}
	return advice.With(err, "Write\n\t%s@%s\nor have it written by\n\t%s lint -fix", i.Name, digest, advice.Berth)
}

// basePath is the entry of the cache with a base image.
func basePath(dir cache.Dir, digest v1.Hash) string { return dir.Path("bases", digest.Hex+".tar") }

// pullBases returns the images that the Dockerfile takes something from, by their names
// there: from the cache, and from their registries what the cache lacks. The engine has
// neither the credentials nor the network of this machine, so that it gets them as files.
func (m maker) pullBases(ctx context.Context) (map[string]*image.Base, error) {
	if err := m.inputs.checkBases(ctx, m.project); err != nil {
		return nil, err
	}
	all := map[string]*image.Base{}
	for _, i := range m.inputs.Bases {
		if all[i.Name] != nil {
			continue
		}
		base, err := m.pullBase(ctx, i.Name)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", m.project.Dockerfile, i.Line, err)
		}
		all[i.Name] = base
	}
	return all, nil
}

func (m maker) pullBase(ctx context.Context, reference string) (*image.Base, error) {
	ref, err := name.NewDigest(reference)
	if err != nil {
		return nil, err
	}
	digest, err := v1.NewHash(ref.DigestStr())
	if err != nil {
		return nil, err
	}
	unlock, err := m.cache.Lock(ctx, "base-"+digest.Hex[:12], func() { m.report.Printf("Waiting for another build to pull %s", ref.Context()) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	entry := basePath(m.cache, digest)
	kept, err := cache.Find(entry)
	if err != nil {
		return nil, err
	}
	if kept == "" {
		temp, remove, err := m.cache.Temp("base")
		if err != nil {
			return nil, err
		}
		defer remove()
		m.report.Update("Pulling %s", ref.Context())
		kept, err = cache.Keep(entry, temp, 0o644, func(out io.Writer) error { return image.PullBase(ctx, ref, platform, out, m.report) })
		if errors.Is(err, image.ErrNoImage) {
			err = advice.With(err, "Registries delete old images. If nobody has kept a copy of this one, take the tag's of today:\n\t%s pin -base", advice.Berth)
		}
		if err != nil {
			return nil, err
		}
	}
	return image.OpenBase(kept, digest)
}

// imported is the name that an image has in the engine once Container.Import has put it into
// the engine's store, by the digest of its manifest: Dagger v0.19 records it there as
// dagger/import, and BuildKit compares the host's name without the port. With the port, a
// Dockerfile can name it.
func imported(b *image.Base) string { return "dagger:1/import@" + b.Manifest().String() }

// stageBases puts the base images into the engine, and a Dockerfile with their names there
// into the build context, beside the project's own. That one stays as it is, for steps that
// copy the whole context. Both files are out of their sight.
func (s *staging) stageBases(made map[string]string) error {
	s.dockerfile, s.text = s.project.Dockerfile, s.inputs.dockerfile
	if len(s.bases) == 0 {
		return nil
	}
	for _, b := range s.bases {
		// Evaluated, it keeps what it imported from being collected as garbage.
		if _, err := s.Container().Import(s.Host().File(b.Path())).Sync(s.ctx); err != nil {
			if s.ctx.Err() != nil {
				return context.Cause(s.ctx)
			}
			return fmt.Errorf("handing the base image in %s to the engine: %w", b.Path(), err)
		}
	}
	text, err := lint.ReplaceImages(s.inputs.dockerfile, s.inputs.Bases, func(i lint.Image) string { return imported(s.bases[i.Name]) })
	if err != nil {
		return fmt.Errorf("%s: %w", s.project.Dockerfile, err)
	}
	s.dockerfile, s.text = path.Clean(s.project.Dockerfile)+".berth", text
	for name, data := range map[string][]byte{
		s.dockerfile:                   text,
		s.dockerfile + ".dockerignore": []byte(s.dockerfile + "\n" + s.dockerfile + ".dockerignore\n"),
	} {
		file := s.cache.Path("contexts", s.project.contextName()+strings.TrimPrefix(name, path.Clean(s.project.Dockerfile)))
		if err := cache.WriteFile(file, data, 0o644); err != nil {
			return err
		}
		made[name] = file
	}
	return nil
}

// hasTag reports whether a reference without a digest says which tag it means. What can't be
// read as one does: the look-up says what is wrong with it.
func hasTag(reference string) bool {
	ref, err := name.NewTag(reference, name.WithDefaultTag(""))
	return err != nil || ref.TagStr() != ""
}

// PinBases writes the digests that the tags in the project's Dockerfile have now, and returns
// what has changed. An image without a tag stays as it is.
func PinBases(ctx context.Context, p Project) (changes []string, err error) {
	file := p.Path(p.Dockerfile)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	images := lint.Images(text)
	in := Inputs{Bases: images}
	if err := in.checkBases(ctx, p); err != nil {
		return nil, err
	}
	var moves []lint.Move
	seen := map[string]bool{}
	for _, i := range images {
		tagged, have, _ := strings.Cut(i.Name, "@")
		if !hasTag(tagged) || seen[i.Name] {
			continue
		}
		seen[i.Name] = true
		now, err := lint.ImageDigest(ctx, tagged)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", p.Dockerfile, i.Line, err)
		}
		if now != have {
			moves = append(moves, lint.Move{Name: tagged, From: have, To: now})
		}
	}
	if len(moves) == 0 {
		return nil, nil
	}
	moved, err := lint.MoveDigests(text, images, moves)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Dockerfile, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	for _, m := range moves {
		changes = append(changes, m.String())
	}
	return changes, cache.WriteFile(file, moved, info.Mode().Perm())
}
