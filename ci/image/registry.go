package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/progress"
)

// ErrNoImage is in the chain of the error for an image that a registry doesn't have.
var ErrNoImage = errors.New("the registry has no such image")

// registryOptions are for every call: credentials are those of Docker's configuration and its
// helpers; what fails for a moment is tried again.
func registryOptions(ctx context.Context, more ...remote.Option) []remote.Option {
	return append([]remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("berth"),
	}, more...)
}

// An Artifact says something about an image, and is kept beside it in its repository, as a
// referrer (OCI image specification 1.1, "subject").
type Artifact struct {
	Type string // media type of what it says
	Data []byte
}

// Push writes an image into a repository of a registry, then what is said about it, and last
// its tags, so that no tag ever names an image that isn't whole. Layers that the
// registry has aren't sent: after an interruption, Push goes on with those that are missing.
// What comes out has the digest that the image has here.
func Push(ctx context.Context, repository name.Repository, img v1.Image, tags []string, artifacts []Artifact, report *progress.Reporter) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	ref := repository.Digest(digest.String())
	updates := make(chan v1.Update, 1)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for u := range updates {
			report.Update("Pushing to %s: %d of %d MB", repository, u.Complete>>20, u.Total>>20)
		}
	}()
	err = remote.Write(ref, img, registryOptions(ctx, remote.WithProgress(updates))...) // closes updates
	<-told
	if err != nil {
		return registryError(ctx, "pushing to", ref, err)
	}
	subject, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	for _, a := range artifacts {
		made, err := a.image(*subject)
		if err != nil {
			return err
		}
		digest, err := made.Digest()
		if err != nil {
			return err
		}
		if err = remote.Write(repository.Digest(digest.String()), made, registryOptions(ctx)...); err == nil {
			// Write leaves a manifest that is there as it is, also where an interruption came before
			// the list of referrers had it, which some registries want clients to keep. Put
			// doesn't.
			err = remote.Put(repository.Digest(digest.String()), made, registryOptions(ctx)...)
		}
		if err != nil {
			return registryError(ctx, "pushing "+a.Type+" to", ref, err)
		}
	}
	for _, tag := range tags {
		if err := remote.Tag(repository.Tag(tag), img, registryOptions(ctx)...); err != nil {
			return registryError(ctx, "tagging", repository.Tag(tag), err)
		}
	}
	return nil
}

// Pull returns an image of a registry, for this machine's platform. Its layers are read
// when they are needed, and checked against their digests then.
func Pull(ctx context.Context, ref name.Reference) (v1.Image, error) {
	img, err := remote.Image(ref, registryOptions(ctx)...)
	if err != nil {
		return nil, registryError(ctx, "pulling", ref, err)
	}
	return img, nil
}

// Whoever may write to a repository may put anything there: how many manifests are read for
// one image, and how much of what they name. Each time an image is signed with an ECDSA or RSA
// key there is one more.
const (
	maxReferrers = 1000
	maxArtifacts = 64 << 20
)

// Artifacts returns what is said of an image in its repository, of one type. What a list
// names that the repository no longer has is left out.
func Artifacts(ctx context.Context, image name.Digest, mediaType string) (all []Artifact, err error) {
	index, err := remote.Referrers(image, registryOptions(ctx)...)
	if err != nil {
		return nil, registryError(ctx, "asking for what refers to", image, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	referrers := slices.DeleteFunc(manifest.Manifests, func(d v1.Descriptor) bool {
		// Not every registry copies the type of an artifact into its list: some leave it out,
		// some have the type of its configuration there.
		other := d.ArtifactType != "" && d.ArtifactType != string(emptyType) && d.ArtifactType != mediaType
		return other || !d.MediaType.IsImage()
	})
	if len(referrers) > maxReferrers {
		return nil, fmt.Errorf("%d things in the repository refer to %s, and at most %d are looked at: remove those that nobody needs",
			len(referrers), image, maxReferrers)
	}
	left := int64(maxArtifacts)
	for _, d := range referrers {
		ref := image.Context().Digest(d.Digest.String())
		data, err := readArtifact(ctx, ref, mediaType, left)
		if errors.Is(err, ErrNoImage) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if data != nil {
			all = append(all, Artifact{mediaType, data})
			left -= int64(len(data))
		}
	}
	return all, nil
}

// readArtifact returns what an artifact says, nil if it is of another type.
func readArtifact(ctx context.Context, ref name.Digest, mediaType string, limit int64) ([]byte, error) {
	img, err := Pull(ctx, ref)
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		return nil, err
	}
	if t, err := layers[0].MediaType(); err != nil || string(t) != mediaType {
		return nil, err
	}
	r, err := layers[0].Compressed()
	if err != nil {
		return nil, registryError(ctx, "pulling", ref, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, registryError(ctx, "pulling", ref, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("pulling %s: what is said of the image is larger than %d MB. Remove from the repository what nobody needs",
			ref, maxArtifacts>>20)
	}
	return data, nil
}

// registryError says what was tried, and what may help.
func registryError(ctx context.Context, doing string, ref name.Reference, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	registry := ref.Context().RegistryStr()
	answer := (*transport.Error)(nil)
	wrapped := fmt.Errorf("%s %s: %w", doing, ref, err)
	if !errors.As(err, &answer) {
		return advice.With(wrapped, "Is %s in reach, and is its certificate one that this machine trusts (SSL_CERT_FILE names others)?", registry)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return advice.With(wrapped, "If it wants to know who you are, type\n\tdocker login %s", registry)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNoImage, wrapped)
	}
	return wrapped
}

// The empty configuration of artifacts (OCI image specification 1.1, "Guidance for an empty descriptor").
const (
	emptyType = types.MediaType("application/vnd.oci.empty.v1+json")
	emptyJSON = "{}"
)

// image makes an artifact a manifest that refers to an image.
func (a Artifact) image(subject v1.Descriptor) (v1.Image, error) {
	layer := static.NewLayer(a.Data, types.MediaType(a.Type))
	content, err := partial.Descriptor(layer)
	if err != nil {
		return nil, err
	}
	config := static.NewLayer([]byte(emptyJSON), emptyType)
	empty, err := partial.Descriptor(config)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: a.Type,
		Config: *empty, Layers: []v1.Descriptor{*content}, Subject: &v1.Descriptor{MediaType: subject.MediaType, Size: subject.Size, Digest: subject.Digest},
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(artifactImage{manifest, layer})
}

// artifactImage is an artifact as go-containerregistry writes images.
type artifactImage struct {
	manifest []byte
	layer    v1.Layer
}

func (a artifactImage) RawManifest() ([]byte, error)        { return slices.Clone(a.manifest), nil }
func (a artifactImage) RawConfigFile() ([]byte, error)      { return []byte(emptyJSON), nil }
func (a artifactImage) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (a artifactImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if d, err := a.layer.Digest(); err != nil || d != h {
		return nil, errors.Join(err, fmt.Errorf("the artifact has no layer %s", h))
	}
	return a.layer, nil
}
