package ci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/ci/lint"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// labelDrift is on images for which a locked package was no longer available.
// It lists what replaced it.
const labelDrift = "dev.berth.drift"

const driftSeparator = ", "

// recipe changes whenever the same inputs give another image.
const recipe = "4 engine " + engine.Version + " image " + image.Recipe

// Inputs is everything that an image is made from.
type Inputs struct {
	Hash   string         // hex SHA-256 of all that follows, and of the recipe
	Epoch  time.Time      // of every file in the image: the date of the newest locked input
	Locked []input.Locked // as the project lists them
	Bases  []lint.Image   // of registries, that the Dockerfile takes something from
	files  []contextFile

	dockerfile []byte // its text
}

// ReadInputs reads the project's inputs from its checkout.
func ReadInputs(p Project) (Inputs, error) {
	locked := make([]input.Locked, len(p.Inputs))
	for i, in := range p.Inputs {
		var err error
		if locked[i], err = in.Read(p.Root); err != nil {
			return Inputs{}, err
		}
	}
	return inputsOf(p, locked)
}

func inputsOf(p Project, locked []input.Locked) (Inputs, error) {
	files, err := contextOf(p)
	if err != nil {
		return Inputs{}, err
	}
	in := Inputs{Epoch: time.Unix(0, 0).UTC(), Locked: locked, files: files}
	if in.dockerfile, err = readDockerfile(p, files); err != nil {
		return Inputs{}, err
	}
	in.Bases = lint.Images(in.dockerfile)
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%s\n", recipe, p.Dockerfile, hashContext(files))
	for _, i := range in.Bases {
		fmt.Fprintf(h, "base %s %q\n", baseRecipe, i.Name)
	}
	for i, l := range locked {
		fmt.Fprintf(h, "%q %q\n", p.Inputs[i].Name(), l.Hash())
		if d, ok := l.(input.Dated); ok && d.Date().After(in.Epoch) {
			in.Epoch = d.Date()
		}
	}
	in.Hash = hex.EncodeToString(h.Sum(nil))
	return in, nil
}

// labels are those of the image, in addition to the Dockerfile's own: the hash
// that tells whether there is anything to build, and what the OCI image
// specification calls the date of creation.
func (in Inputs) labels() map[string]string {
	return map[string]string{
		daemon.LabelInputs:      in.Hash,
		specs.AnnotationCreated: in.Epoch.Format(time.RFC3339),
	}
}

// BuildOptions says how to build. The zero value builds the project's own tag.
type BuildOptions struct {
	Tag    string             // under which the image is loaded; the project's own if empty
	Output string             // also write the image as an OCI archive to this file
	From   string             // repository to pull the image from if it has it; the project's registry if empty, "none" to build it
	Locked bool               // refuse packages other than the locked ones
	Engine string             // name of the engine's container; the usual one if empty
	Report *progress.Reporter // may be nil
}

// A Result is an image that was built.
type Result struct {
	Image   string    `json:"image"`  // its tag in Docker
	ID      string    `json:"id"`     // in Docker
	Digest  string    `json:"digest"` // of its OCI manifest
	Layers  []string  `json:"layers"` // diff IDs, lowest first
	Inputs  string    `json:"inputs"` // hash of everything that it was made from
	Epoch   time.Time `json:"epoch"`  // of its files
	Drift   []string  `json:"drift,omitempty"`
	Cached  bool      `json:"cached"`           // nothing had changed, nothing was built
	Pulled  string    `json:"pulled,omitempty"` // from this repository, instead of being built
	Seconds float64   `json:"seconds"`          // that it took
}

// Build makes the project's image and loads it into Docker. If the image there
// was made from the same inputs it is done at once, without an engine; if the registry
// has one, that is pulled.
func Build(ctx context.Context, p Project, o BuildOptions) (Result, error) {
	start := time.Now()
	tag, err := checkTag(cmp.Or(o.Tag, p.Tag()))
	if err != nil {
		return Result{}, err
	}
	o.Tag = tag
	in, err := ReadInputs(p)
	if err != nil {
		return Result{}, err
	}
	if err := in.checkBases(ctx, p); err != nil {
		return Result{}, err
	}
	dir, err := cache.Open()
	if err != nil {
		return Result{}, err
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return Result{}, err
	}
	defer docker.Close()

	result, err := upToDate(ctx, docker, dir, p, in, o)
	if err == nil && result == nil {
		result, err = pulled(ctx, docker, dir, p, in, o)
	}
	if err == nil && result == nil {
		result, err = buildAndLoad(ctx, docker, dir, p, in, o)
	}
	if err != nil {
		return Result{}, err
	}
	result.Seconds = time.Since(start).Seconds()
	return *result, nil
}

// upToDate returns the image in Docker that was made from the same inputs, whoever
// made it, if nothing is left to do for this build, else nil.
func upToDate(ctx context.Context, docker *daemon.Client, dir cache.Dir, p Project, in Inputs, o BuildOptions) (*Result, error) {
	if o.Output != "" {
		return nil, nil
	}
	wanted := func(i daemon.Image) bool {
		return i.Labels[daemon.LabelInputs] == in.Hash && image.Sealed(i) && !(o.Locked && i.Labels[labelDrift] != "")
	}
	have, err := docker.Image(ctx, o.Tag)
	if err != nil && !errors.Is(err, daemon.ErrNotFound) {
		return nil, err
	}
	if err != nil || !wanted(have) {
		// The same image may be there under another name.
		ids, err := docker.Images(ctx, daemon.LabelInputs+"="+in.Hash)
		if err != nil {
			return nil, err
		}
		found := false
		for _, id := range ids {
			if have, err = docker.Image(ctx, id); err == nil && wanted(have) {
				found = true
				break
			} else if err != nil && !errors.Is(err, daemon.ErrNotFound) { // removed meanwhile
				return nil, err
			}
		}
		if !found {
			return nil, nil
		}
		if err := docker.Tag(ctx, have.ID, o.Tag); err != nil {
			return nil, err
		}
		if err := owned.RemoveUntaggedImages(ctx, dir, docker); err != nil {
			return nil, err
		}
	}
	digest, err := digestOf(ctx, docker, dir, have)
	if err != nil || digest == "" {
		return nil, err
	}
	r := &Result{Image: o.Tag, ID: have.ID, Digest: digest, Layers: have.Layers, Inputs: in.Hash, Epoch: in.Epoch, Cached: true}
	if drift := have.Labels[labelDrift]; drift != "" {
		r.Drift = strings.Split(drift, driftSeparator)
	}
	return r, nil
}

func buildAndLoad(ctx context.Context, docker *daemon.Client, dir cache.Dir, p Project, in Inputs, o BuildOptions) (*Result, error) {
	if _, err := owned.Sweep(ctx, dir, docker, false); err != nil {
		return nil, err
	}
	m := maker{project: p, inputs: in, locked: o.Locked, engine: o.Engine, cache: dir, entries: string(dir), report: o.Report}
	result, err := m.buildAndLoad(ctx, docker, o)
	if errors.Is(err, image.ErrDamaged) { // and removed
		o.Report.Printf("Building again: %v", err)
		result, err = m.buildAndLoad(ctx, docker, o)
	}
	if err != nil {
		return nil, err
	}
	return result, errors.Join(
		owned.RemoveUntaggedImages(ctx, dir, docker),
		dir.Prune(unused, append(m.folders(), "bases", "contexts", "debs", "pypi", "indices", "layers", "failures")...),
	)
}

func (m maker) buildAndLoad(ctx context.Context, docker *daemon.Client, o BuildOptions) (*Result, error) {
	made, drift, err := m.make(ctx, m.image())
	if err != nil {
		return nil, err
	}
	img := made[0]
	result, err := describe(img)
	if err != nil {
		return nil, err
	}
	result.Image, result.Inputs, result.Epoch, result.Drift = o.Tag, m.inputs.Hash, m.inputs.Epoch, drift
	if o.Output != "" {
		if err := image.WriteArchive(o.Output, img, o.Tag); err != nil {
			return nil, err
		}
	}
	o.Report.Update("Loading %s into Docker", o.Tag)
	if result.ID, err = image.Load(ctx, docker, m.cache, img, o.Tag, ""); err != nil {
		return nil, err
	}
	return result, cache.WriteRecord(digestPath(m.cache, result.ID), result.Digest)
}

// unused is how long the cache keeps what no build used.
const unused = 30 * 24 * time.Hour

// digestPath is the file with the digest of an image that a build loaded. Docker
// doesn't know it.
func digestPath(dir cache.Dir, id string) string {
	return dir.Path("images", strings.ReplaceAll(id, ":", "-")+".json")
}

// digestOf returns the digest of an image that Docker has: on record, or computed
// from what the image says of itself; "" if there is neither.
func digestOf(ctx context.Context, docker *daemon.Client, dir cache.Dir, i daemon.Image) (string, error) {
	var digest string
	if cache.ReadRecord(digestPath(dir, i.ID), &digest) || !image.Sealed(i) {
		return digest, nil
	}
	info, err := docker.Info(ctx)
	if err != nil || info.ContainerdStore {
		return "", err
	}
	if digest = image.SealedDigest(i); digest == "" {
		return "", nil
	}
	return digest, cache.WriteRecord(digestPath(dir, i.ID), digest) // it takes the daemon a while to tell
}

// Digest returns the digest of an image that Docker has, "" if it is unknown.
func Digest(ctx context.Context, docker *daemon.Client, i daemon.Image) (string, error) {
	dir, err := cache.Open()
	if err != nil {
		return "", err
	}
	return digestOf(ctx, docker, dir, i)
}

func describe(img v1.Image) (*Result, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	r := &Result{Digest: digest.String()}
	for _, id := range config.RootFS.DiffIDs {
		r.Layers = append(r.Layers, id.String())
	}
	return r, nil
}
