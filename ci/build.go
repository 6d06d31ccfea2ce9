package ci

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// labelDrift is on images for which a locked package was nowhere to be had. It
// lists what took its place.
const labelDrift = "dev.berth.drift"

// recipe changes whenever the same inputs give another image.
const recipe = "2 engine " + engine.Version + " image " + image.Recipe + " debian " + debian.Recipe + " golang " + golang.Recipe

// Inputs is everything that an image is made from.
type Inputs struct {
	Hash  string    // hex SHA-256 of all that follows, and of the recipe
	Epoch time.Time // of every file in the image: the lock's snapshot time, so that the commit fixes it, also in a shallow clone or an archive of the sources
	Lock  debian.Lock
	Go    golang.Toolchain // none if the project compiles no Go
	files []contextFile
}

// ReadInputs reads the project's inputs from its checkout.
func ReadInputs(p Project) (Inputs, error) {
	lock, err := debian.ReadLock(p.Path(p.Lock))
	if err != nil {
		return Inputs{}, err
	}
	var toolchain golang.Toolchain
	if p.GoLock != "" {
		if toolchain, err = golang.ReadLock(p.Path(p.GoLock)); err != nil {
			return Inputs{}, err
		}
	}
	return inputsOf(p, lock, toolchain)
}

func inputsOf(p Project, lock debian.Lock, toolchain golang.Toolchain) (Inputs, error) {
	files, err := readContext(p.Root, p.Dockerfile)
	if err != nil {
		return Inputs{}, err
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{recipe, p.Dockerfile, lock.Hash(), toolchain.String(), hashContext(files)}, "\n")))
	return Inputs{Hash: hex.EncodeToString(sum[:]), Epoch: lock.Snapshot, Lock: lock, Go: toolchain, files: files}, nil
}

// labels are those of the image, beside the Dockerfile's own: the hash that tells
// whether there is anything to build, and what the OCI image specification calls
// the date of creation.
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
	Cached  bool      `json:"cached"`  // nothing had changed, nothing was built
	Seconds float64   `json:"seconds"` // that it took
}

// Build makes the project's image and loads it into Docker. If the image there
// was made from the same inputs it is done at once, without an engine.
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
	dir, err := cache.Open()
	if err != nil {
		return Result{}, err
	}
	docker, err := daemon.Connect(ctx)
	if err != nil {
		return Result{}, err
	}
	defer docker.Close()

	result, err := upToDate(ctx, docker, dir, in, o)
	if err == nil && result == nil {
		result, err = buildAndLoad(ctx, docker, dir, p, in, o)
	}
	if err != nil {
		return Result{}, err
	}
	result.Seconds = time.Since(start).Seconds()
	return *result, nil
}

// upToDate returns the result of an earlier build from the same inputs if
// nothing is left to do for this one, else nil.
func upToDate(ctx context.Context, docker *daemon.Client, dir cache.Dir, in Inputs, o BuildOptions) (*Result, error) {
	if o.Output != "" {
		return nil, nil
	}
	ref := o.Tag
	have, err := docker.Image(ctx, ref)
	if errors.Is(err, daemon.ErrNotFound) || err == nil && have.Labels[daemon.LabelInputs] != in.Hash {
		// The same image may be there under another name.
		ids, err := docker.Images(ctx, daemon.LabelInputs+"="+in.Hash)
		if err != nil || len(ids) == 0 {
			return nil, err
		}
		ref = ids[0]
	} else if err != nil {
		return nil, err
	} else {
		ref = have.ID
	}
	result := readRecord(dir, ref)
	if result == nil || o.Locked && len(result.Drift) > 0 {
		return nil, nil
	}
	if have.ID != ref {
		if err := errors.Join(docker.Tag(ctx, ref, o.Tag), image.RemoveUntagged(ctx, docker)); err != nil {
			return nil, err
		}
	}
	result.Image, result.Cached = o.Tag, true
	return result, nil
}

func buildAndLoad(ctx context.Context, docker *daemon.Client, dir cache.Dir, p Project, in Inputs, o BuildOptions) (*Result, error) {
	m := maker{project: p, inputs: in, locked: o.Locked, engine: o.Engine, cache: dir, layers: dir.Path("layers"), report: o.Report}
	img, drift, err := m.make(ctx, "", in.labels())
	if err != nil {
		return nil, err
	}
	result, err := describe(img)
	if err != nil {
		return nil, err
	}
	result.Image, result.Inputs, result.Epoch, result.Drift = o.Tag, in.Hash, in.Epoch, drift
	if o.Output != "" {
		if err := image.WriteArchive(o.Output, img, o.Tag); err != nil {
			return nil, err
		}
	}
	o.Report.Update("Loading %s into Docker", o.Tag)
	if result.ID, err = image.Load(ctx, docker, img, o.Tag); err != nil {
		return nil, err
	}
	return result, errors.Join(writeRecord(dir, *result), dir.Prune(unused, "contexts", "debs", "golang", "layers", "rootfs"))
}

// unused is how long the cache keeps what no build used.
const unused = 30 * 24 * time.Hour

// Docker doesn't know the digest of an image that was loaded, so a record of
// each build stands in the cache under the image's ID.
func recordPath(dir cache.Dir, id string) string {
	return dir.Path("images", strings.ReplaceAll(id, ":", "-")+".json")
}

// RecordedDigest returns the digest of an image that a build of this cache loaded
// into Docker under an ID, or "".
func RecordedDigest(id string) string {
	dir, err := cache.Open()
	if err != nil {
		return ""
	}
	if r := readRecord(dir, id); r != nil {
		return r.Digest
	}
	return ""
}

// readRecord returns nil where there is no record, or none that makes sense.
func readRecord(dir cache.Dir, id string) *Result {
	data, err := os.ReadFile(recordPath(dir, id))
	if err != nil {
		return nil
	}
	var r Result
	if json.Unmarshal(data, &r) != nil || r.ID != id {
		return nil
	}
	return &r
}

func writeRecord(dir cache.Dir, r Result) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return cache.WriteFile(recordPath(dir, r.ID), append(data, '\n'), 0o644)
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
