package ci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	layers  string // folder of canonical layers
	engine  string // name of the engine's container; the usual one if empty
	fresh   bool   // use an engine with fresh state, and remove it
	report  *progress.Reporter
}

// make builds a stage of the Dockerfile (the last if empty) and returns it in
// its canonical form, with what drifted from the lock.
func (m maker) make(ctx context.Context, stage string, labels map[string]string) (v1.Image, []string, error) {
	temp, remove, err := m.cache.Temp("build")
	if err != nil {
		return nil, nil, err
	}
	defer remove()
	archive := filepath.Join(temp, "export.tar")
	drift, err := m.export(ctx, stage, archive)
	if err != nil {
		return nil, nil, err
	}
	if len(drift) > 0 {
		labels = maps.Clone(labels)
		labels[labelDrift] = strings.Join(drift, ", ")
	}
	m.report.Update("Making the image canonical")
	img, err := image.Canonical(ctx, archive, image.Options{Epoch: m.inputs.Epoch, Labels: labels, Cache: m.layers, Temp: temp})
	return img, drift, err
}

// export builds a stage in the engine and writes it, not yet canonical, to archive.
func (m maker) export(ctx context.Context, stage, archive string) (drift []string, err error) {
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

	root := sha256.Sum256([]byte(m.project.Root))
	name := "context-" + hex.EncodeToString(root[:6])
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
	built := eng.Host().Directory(staged).DockerBuild(dagger.DirectoryDockerBuildOpts{Dockerfile: m.project.Dockerfile, Target: stage})
	// Zstandard is several times faster than the default, and doesn't last: the
	// canonical layers are compressed anew.
	fast := dagger.ContainerExportOpts{ForcedCompression: dagger.ImageLayerCompressionZstd}
	if _, err := built.Export(ctx, archive, fast); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	} else if err != nil {
		return nil, eng.Explain(fmt.Errorf("building %s:\n%s\n%w", m.project.Dockerfile, log, err))
	}
	return drift, nil
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
	file := func(hash string) string { return m.cache.Path("rootfs", hash+"-"+debian.Recipe+".tar.zst") }
	path = file(m.inputs.Lock.Hash())
	if cache.Use(path) {
		return path, nil, nil
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
	path = file(packages.Hash())
	if cache.Use(path) {
		return path, drift, nil
	}
	temp, remove, err := m.cache.Temp("rootfs")
	if err != nil {
		return "", nil, err
	}
	defer remove()
	return path, drift, debian.RootfsFile(ctx, path, packages, m.inputs.Epoch, temp, m.report)
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
			gotar, err = golang.File(ctx, p, m.cache, m.report)
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
	m := maker{project: p, inputs: in, locked: locked, cache: store, report: report}
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
