package ci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berthdev/berth/ci/attest"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/usage"
)

// PublishOptions says where to publish.
type PublishOptions struct {
	To     string             // repository, perhaps with a tag ("latest" if it has none); the project's registry if empty
	Key    string             // file with a private key in PEM, to sign the provenance; none if empty
	Locked bool               // refuse packages other than the locked ones
	Report *progress.Reporter // may be nil
}

// Published is an image in a registry.
type Published struct {
	Image  string   `json:"image"`  // repository and tag
	Digest string   `json:"digest"` // that build prints, too
	Tags   []string `json:"tags"`
	Signed bool     `json:"signed"`
	Result Result   `json:"build"`
}

// inputsTag is the tag under which a repository has the image that is made from inputs.
func inputsTag(hash string) string { return "inputs-" + hash }

// Publish builds the image and pushes it, with an SPDX list of what is in it and SLSA
// provenance as its referrers, under the tag and under one made of the inputs' hash, by
// which build finds it. What the repository has isn't sent again.
func Publish(ctx context.Context, p Project, o PublishOptions) (Published, error) {
	tag, err := repositoryOf(p, o.To)
	if err != nil {
		return Published{}, err
	}
	var key attest.Key
	if o.Key != "" {
		if key, err = readKey(o.Key); err != nil {
			return Published{}, err
		}
	}
	in, err := ReadInputs(p)
	if err != nil {
		return Published{}, err
	}
	dir, err := cache.Open()
	if err != nil {
		return Published{}, err
	}
	m := maker{project: p, inputs: in, locked: o.Locked, cache: dir, entries: string(dir), report: o.Report}
	published, err := m.publish(ctx, tag, key)
	if errors.Is(err, image.ErrDamaged) { // and removed
		o.Report.Printf("Building again: %v", err)
		published, err = m.publish(ctx, tag, key)
	}
	return published, err
}

// publish builds the image and pushes it.
func (m maker) publish(ctx context.Context, tag name.Tag, key attest.Key) (Published, error) {
	in := m.inputs
	made, drift, err := m.make(ctx, m.image())
	if err != nil {
		return Published{}, err
	}
	if len(drift) > 0 {
		err := fmt.Errorf("the image isn't what the locks say, so it isn't published: %s", strings.Join(drift, driftSeparator))
		return Published{}, advice.With(err, "Type\n\t%s pin", advice.Berth)
	}
	result, err := describe(made[0])
	if err != nil {
		return Published{}, err
	}
	result.Image, result.Inputs, result.Epoch = tag.Name(), in.Hash, in.Epoch
	m.report.Update("Listing what is in the image")
	// Damage needn't show in the files, and a registry would only say that digests differ.
	if err := image.Check(made[0]); err != nil {
		return Published{}, err
	}
	artifacts, err := attestations(ctx, m.project, in, made[0], attest.Subject{Name: tag.Context().Name(), Digest: result.Digest, Epoch: in.Epoch}, key)
	if err != nil {
		return Published{}, err
	}
	tags := []string{inputsTag(in.Hash), tag.TagStr()}
	if err := image.Push(ctx, tag.Context(), made[0], tags, artifacts, m.report); err != nil {
		return Published{}, err
	}
	return Published{Image: tag.Name(), Digest: result.Digest, Tags: tags, Signed: key.SignerVerifier != nil, Result: *result}, nil
}

// repositoryOf is where to publish.
func repositoryOf(p Project, to string) (name.Tag, error) {
	to = cmp.Or(to, p.Registry)
	if to == "" {
		err := fmt.Errorf("-to: %w: no repository is named", usage.Err)
		return name.Tag{}, advice.With(err, "Give one, such as -to=ghcr.io/you/image, or set Registry in the magefile.")
	}
	tag, err := name.NewTag(to)
	if err != nil {
		return name.Tag{}, fmt.Errorf("-to: %w: %w", usage.Err, err)
	}
	return tag, nil
}

func readKey(file string) (attest.Key, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return attest.Key{}, fmt.Errorf("-key: %w", err)
	}
	key, err := attest.ReadKey(pem)
	if err != nil {
		return key, advice.With(fmt.Errorf("-key: %s: %w", file, err), "openssl genpkey -algorithm ed25519 -out FILE makes one that will do; "+
			"openssl pkey -in FILE -pubout prints the half that verifies.")
	}
	return key, nil
}

// attestations are the SPDX list and the provenance of an image.
func attestations(ctx context.Context, p Project, in Inputs, img v1.Image, s attest.Subject, key attest.Key) ([]image.Artifact, error) {
	contents, err := attest.Contents(img)
	if err != nil {
		return nil, err
	}
	var locked []attest.Component
	source := attest.Source{Dockerfile: p.Dockerfile, Inputs: in.Hash, Locked: map[string]string{}, Recipe: recipe}
	for i, l := range in.Locked {
		source.Locked[p.Inputs[i].Name()] = l.Hash()
		if listed, ok := l.(input.Listed); ok {
			for _, f := range listed.Files() {
				locked = append(locked, attest.Component{
					Kind: f.Kind, Name: f.Name, Version: f.Version, Architecture: f.Architecture, SHA256: f.SHA256, URL: f.URL,
				})
			}
		}
	}
	for _, i := range in.Bases {
		if !slices.Contains(source.Images, i.Name) {
			source.Images = append(source.Images, i.Name)
		}
	}
	source.Repository, source.Commit, source.Changed = gitSource(ctx, p.Root)
	spdx, err := attest.SPDX(s, contents, locked)
	if err != nil {
		return nil, err
	}
	provenance, err := attest.Provenance(s, source, spdx)
	if err != nil {
		return nil, err
	}
	all := []image.Artifact{{Type: attest.SPDXType, Data: spdx}}
	if key.SignerVerifier == nil {
		return append(all, image.Artifact{Type: attest.StatementType, Data: provenance}), nil
	}
	envelope, err := key.Sign(ctx, provenance)
	if err != nil {
		return nil, err
	}
	return append(all, image.Artifact{Type: attest.EnvelopeType, Data: envelope}), nil
}

// gitSource says which commit a checkout is of, if git knows it. Credentials in the
// repository's URL don't leave this machine.
func gitSource(ctx context.Context, root string) (repository, commit string, changed bool) {
	git := func(args ...string) string {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return ""
		}
		return string(bytes.TrimSpace(out))
	}
	if commit = git("rev-parse", "HEAD"); commit == "" {
		return "", "", false
	}
	return publicURL(git("remote", "get-url", "origin")), commit, git("status", "--porcelain") != ""
}

// publicURL is the URL of a git remote without credentials, "" if it has no host. What git
// takes for ssh, user@host:path (git-clone(1), "GIT URLS"), becomes one.
func publicURL(remote string) string {
	if host, path, ok := strings.Cut(remote, ":"); ok && !strings.Contains(host, "/") && !strings.HasPrefix(path, "//") {
		remote = "ssh://" + host + "/" + strings.TrimPrefix(path, "/")
	}
	parsed, err := url.Parse(remote)
	if err != nil || parsed.Host == "" {
		return ""
	}
	parsed.User, parsed.RawQuery, parsed.Fragment = nil, "", ""
	return parsed.String()
}

// ErrImageDiffers is in the chain of the error for a published image that isn't what the
// checkout builds.
var ErrImageDiffers = errors.New("the image isn't what this checkout builds")

// VerifyImageOptions says which image to verify.
type VerifyImageOptions struct {
	Image  string             // reference in a registry
	Key    string             // file with a public key in PEM that its provenance must be signed with; the project's own if empty
	Locked bool               // refuse packages other than the locked ones
	Report *progress.Reporter // may be nil
}

// VerifyImage builds the project from nothing, as Verify does, and compares the image with one
// in a registry. Its error wraps ErrImageDiffers and names layer, file and kind of each
// difference.
func VerifyImage(ctx context.Context, p Project, o VerifyImageOptions) (Result, error) {
	ref, err := name.ParseReference(o.Image)
	if err != nil {
		return Result{}, fmt.Errorf("-image: %w: %w", usage.Err, err)
	}
	in, err := ReadInputs(p)
	if err != nil {
		return Result{}, err
	}
	dir, err := cache.Open()
	if err != nil {
		return Result{}, err
	}
	theirs, err := image.Pull(ctx, ref)
	if err != nil {
		return Result{}, err
	}
	if err := checkSignature(ctx, p, ref, theirs, o.Key); err != nil {
		return Result{}, err
	}
	temp, remove, err := dir.Temp("verify")
	if err != nil {
		return Result{}, err
	}
	defer remove()
	m := maker{project: p, inputs: in, locked: o.Locked, fresh: true, cache: dir, entries: temp, report: o.Report}
	made, drift, err := m.make(ctx, m.image())
	if err != nil {
		return Result{}, err
	}
	result, err := describe(made[0])
	if err != nil {
		return Result{}, err
	}
	result.Image, result.Inputs, result.Epoch, result.Drift = ref.Name(), in.Hash, in.Epoch, drift
	digest, err := theirs.Digest()
	if err != nil || digest.String() == result.Digest {
		return *result, err
	}
	o.Report.Update("Comparing")
	differences, err := image.Diff(ctx, made[0], theirs)
	if err != nil {
		return Result{}, err
	}
	var lines strings.Builder
	for _, d := range differences {
		fmt.Fprintf(&lines, "\n\t%s", d)
	}
	if len(differences) == 0 {
		lines.WriteString(" layers and configuration are the same, its manifest is written in another way")
	}
	return Result{}, fmt.Errorf("%w: %s is %s, this checkout gives %s:%s", ErrImageDiffers, ref, digest, result.Digest, lines.String())
}

// checkSignature looks for provenance of an image that is signed with a key; any will do
// where there is no key.
func checkSignature(ctx context.Context, p Project, ref name.Reference, img v1.Image, file string) error {
	if file == "" && p.Key != "" {
		file = p.Path(p.Key)
	}
	if file == "" {
		return nil
	}
	key, err := readKey(file)
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	envelopes, err := image.Artifacts(ctx, ref.Context().Digest(digest.String()), attest.EnvelopeType)
	if err != nil {
		return err
	}
	errs := []error{fmt.Errorf("%s: its provenance is %w", ref, attest.ErrNotSigned)}
	for _, e := range envelopes {
		statement, err := key.Open(ctx, e.Data)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		subjects, err := attest.Subjects(statement)
		if err == nil && slices.Contains(subjects, digest.String()) {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// fromNowhere is the value of -from that has nothing pulled.
const fromNowhere = "none"

// pulled returns the image that a registry has of the same inputs, loaded into Docker; nil
// if it has none, or can't be asked: then it is to be built.
func pulled(ctx context.Context, docker *daemon.Client, dir cache.Dir, p Project, in Inputs, o BuildOptions) (*Result, error) {
	from := cmp.Or(o.From, p.Registry)
	if from == "" || from == fromNowhere || o.Output != "" {
		return nil, nil
	}
	tag, err := name.NewTag(from)
	if err != nil {
		return nil, fmt.Errorf("-from: %w: %w", usage.Err, err)
	}
	ref := tag.Context().Tag(inputsTag(in.Hash))
	o.Report.Update("Asking %s", tag.Context())
	img, err := image.Pull(ctx, ref)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, image.ErrNoImage):
		o.Report.Printf("%s doesn't have this image: building it", tag.Context())
		return nil, nil
	case err != nil:
		o.Report.Printf("Building the image, since it can't be pulled: %v", err)
		return nil, nil
	}
	result, err := checkPulled(ctx, p, in, ref, img, o.Locked)
	if err != nil {
		return nil, err
	}
	o.Report.Update("Pulling %s", ref)
	if result.ID, err = image.Load(ctx, docker, dir, img, o.Tag, ""); err != nil {
		return nil, err
	}
	result.Image, result.Pulled = o.Tag, ref.Context().Name()
	return result, cache.WriteRecord(digestPath(dir, result.ID), result.Digest)
}

// checkPulled returns what a pulled image is, or an error if it isn't one that Berth made of these
// inputs, or isn't signed as it should be.
func checkPulled(ctx context.Context, p Project, in Inputs, ref name.Reference, img v1.Image, locked bool) (*Result, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	labels := config.Config.Labels
	switch sealed := image.SealedConfig(config); {
	case !sealed, labels[daemon.LabelInputs] != in.Hash:
		err = fmt.Errorf("%s isn't an image that Berth made from these inputs, though its tag says so", ref)
	case locked && labels[labelDrift] != "":
		err = fmt.Errorf("%s was built with packages other than the locked ones: %s", ref, labels[labelDrift])
	default:
		err = checkSignature(ctx, p, ref, img, "")
	}
	if err != nil {
		return nil, advice.With(err, "To build it instead, type\n\t%s build -from=%s", advice.Berth, fromNowhere)
	}
	result, err := describe(img)
	if err != nil {
		return nil, err
	}
	result.Inputs, result.Epoch = in.Hash, in.Epoch
	if drift := labels[labelDrift]; drift != "" {
		result.Drift = strings.Split(drift, driftSeparator)
	}
	return result, nil
}
