package ci

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dagger.io/dagger"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/progress"
)

// A maker makes images from one set of inputs. It loads nothing into Docker.
type maker struct {
	project Project
	inputs  Inputs
	locked  bool // refuse packages other than the locked ones
	cache   cache.Dir
	entries string // folder in which materials and canonical layers are looked for and kept
	engine  string // name of the engine's container; the usual one if empty
	fresh   bool   // use an engine with fresh state, and remove it
	report  *progress.Reporter
}

// A target is an image to be made.
type target struct {
	stage  string // of the Dockerfile; the last if empty
	labels map[string]string
	seal   bool
}

// image is the project's image, and base the stage whose digest is pinned.
func (m maker) image() target { return target{labels: m.inputs.labels(), seal: true} }
func (m maker) base() target  { return target{stage: m.project.BaseStage} }

// make builds targets and returns them in their canonical form, with what drifted
// from the lock.
func (m maker) make(ctx context.Context, targets ...target) ([]v1.Image, []string, error) {
	temp, remove, err := m.cache.Temp("build")
	if err != nil {
		return nil, nil, err
	}
	defer remove()
	exports := make([]export, len(targets))
	for i, t := range targets {
		exports[i] = export{t.stage, filepath.Join(temp, fmt.Sprintf("export-%d.tar", i))}
	}
	drift, err := m.export(ctx, exports)
	if err != nil {
		return nil, nil, err
	}
	m.report.Update("Making the image canonical")
	images := make([]v1.Image, len(targets))
	for i, t := range targets {
		o := image.Options{Epoch: m.inputs.Epoch, Labels: t.labels, Seal: t.seal, Cache: filepath.Join(m.entries, "layers"), Temp: temp}
		if len(drift) > 0 && len(t.labels) > 0 {
			o.Labels = maps.Clone(t.labels)
			o.Labels[labelDrift] = strings.Join(drift, driftSeparator)
		}
		if images[i], err = image.Canonical(ctx, exports[i].archive, o); err != nil {
			return nil, nil, err
		}
	}
	return images, drift, nil
}

// An export is a stage and the archive that it is written to.
type export struct{ stage, archive string }

// export builds stages in the engine and writes them, not yet canonical, to archives.
func (m maker) export(ctx context.Context, exports []export) (drift []string, err error) {
	var eng *engine.Engine
	var made map[string]string
	log := &process.Tail{Show: func(line string) { m.report.Update("Building: %s", line) }}

	// The first time both take long: one waits for the compiler, the other for the mirrors.
	// The connection lives as long as its context, so the group has none of its own.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work errgroup.Group
	work.Go(func() (err error) {
		eng, err = engine.Connect(ctx, engine.Options{
			Name: m.engine, Ephemeral: m.fresh, Root: m.project.Root, Cache: m.cache, Report: m.report, LogOutput: log,
		})
		cancelOn(err, cancel)
		return err
	})
	work.Go(func() (err error) {
		made, drift, err = m.materials(ctx)
		cancelOn(err, cancel)
		return err
	})
	err = work.Wait()
	if eng != nil {
		defer eng.Close()
	}
	if err != nil {
		return nil, err
	}

	name := contextName(m.project.Root)
	unlock, err := m.cache.Lock(ctx, name, func() { m.report.Printf("Waiting for another build of this checkout to end") })
	if err != nil {
		return nil, err
	}
	defer unlock()
	staged := m.cache.Path("contexts", name)
	if err := stageContext(staged, m.inputs.files, made); err != nil {
		return nil, err
	}
	cache.Use(staged)
	for _, e := range exports {
		built := eng.Host().Directory(staged).DockerBuild(dagger.DirectoryDockerBuildOpts{Dockerfile: m.project.Dockerfile, Target: e.stage})
		// Zstandard is several times faster than the default, and doesn't last: the
		// canonical layers are compressed anew.
		fast := dagger.ContainerExportOpts{ForcedCompression: dagger.ImageLayerCompressionZstd}
		if _, err := built.Export(ctx, e.archive, fast); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		} else if err != nil {
			return nil, m.explain(err, eng, log, staged)
		}
	}
	return drift, nil
}

// explain turns the error of a build into what a person can use.
func (m maker) explain(err error, eng *engine.Engine, log *process.Tail, staged string) error {
	if stopped := eng.Stopped(); stopped != nil {
		return stopped
	}
	eng.Client.Close() // the log is complete with the end of the session
	dockerfile, rerr := os.ReadFile(filepath.Join(staged, m.project.Dockerfile))
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	return engine.ExplainFailure(err, log.String()).Error(m.project.Dockerfile, string(dockerfile))
}

func cancelOn(err error, cancel context.CancelCauseFunc) {
	if err != nil {
		cancel(err)
	}
}

// rootfs returns the path of the root file system of the locked packages,
// compressed (builders tell by its first bytes), which is made once for each lock,
// and what drifted from the lock.
func (m maker) rootfs(ctx context.Context) (path string, drift []string, err error) {
	name := func(hash string) string { return filepath.Join(m.entries, "rootfs", hash+"-"+debian.Recipe+".tar.zst") }
	if path, err = cache.Find(name(m.inputs.Lock.Hash())); path != "" || err != nil {
		return path, nil, err
	}
	packages, err := debian.Fetch(ctx, m.inputs.Lock, debian.FetchOptions{
		PinOptions: debian.PinOptions{Mirrors: debian.HostMirrors(), Progress: m.report}, Cache: m.cache, Locked: m.locked,
	})
	if err != nil {
		return "", nil, err
	}
	for _, d := range packages.Drift {
		drift = append(drift, d.String())
	}
	if path, err = cache.Find(name(packages.Hash())); path != "" || err != nil {
		return path, drift, err
	}
	temp, remove, err := m.cache.Temp("rootfs")
	if err != nil {
		return "", nil, err
	}
	defer remove()
	path, err = debian.RootfsFile(ctx, name(packages.Hash()), packages, m.inputs.Epoch, temp, m.report)
	return path, drift, err
}

// materials makes what stands in the build context beside the checkout's own
// files, and returns the path of each by its name there, with what drifted from the lock.
func (m maker) materials(ctx context.Context) (made map[string]string, drift []string, err error) {
	var rootfs, gotar string
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() (err error) {
		rootfs, drift, err = m.rootfs(ctx)
		return err
	})
	if m.project.GoLock != "" {
		work.Go(func() (err error) {
			p := golang.Program{Root: m.project.Root, Packages: m.project.GoPackages, Toolchain: m.inputs.Go}
			gotar, err = golang.File(ctx, p, m.cache, filepath.Join(m.entries, "golang"), m.report)
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, nil, err
	}
	made = map[string]string{rootfsName: rootfs}
	if gotar != "" {
		made[golangName] = gotar
	}
	return made, drift, nil
}

// Materials writes what the Dockerfile takes beside the checkout's own files into
// the folder dir, so that plain docker build can build the image too, and returns the names.
func Materials(ctx context.Context, p Project, dir string, locked bool, report *progress.Reporter) ([]string, error) {
	in, err := ReadInputs(p)
	if err != nil {
		return nil, err
	}
	store, err := cache.Open()
	if err != nil {
		return nil, err
	}
	m := maker{project: p, inputs: in, locked: locked, cache: store, entries: string(store), report: report}
	made, _, err := m.materials(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(made))
	for _, name := range names {
		if err := unpack(filepath.Join(dir, name), made[name]); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return names, nil
}

// unpack writes a file without its compression.
func unpack(target, name string) error {
	packed, err := os.Open(name)
	if err != nil {
		return err
	}
	defer packed.Close()
	z, err := zstd.NewReader(packed)
	if err != nil {
		return err
	}
	defer z.Close()
	return cache.WriteStream(target, z, 0o644)
}
