package ci

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
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

	"github.com/berthdev/berth/ci/engine"
	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/ci/input"
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
	entries string       // folder in which materials and canonical layers are looked for and kept
	engine  string       // name of the engine's container; the usual one if empty
	gpus    *engine.GPUs // use an engine that hands GPUs on, which gets them so; nil for the usual engine
	fresh   bool         // use an engine with fresh state, and remove it
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
	bases, drift, err := m.export(ctx, exports)
	if err != nil {
		return nil, nil, err
	}
	m.report.Update("Making the image canonical")
	images := make([]v1.Image, len(targets))
	for i, t := range targets {
		o := image.Options{
			Epoch: m.inputs.Epoch, Labels: t.labels, Seal: t.seal, Cache: filepath.Join(m.entries, "layers"), Temp: temp, Bases: bases,
		}
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

// export builds stages in the engine and writes them, not yet canonical, to archives. It
// returns the images of registries that they may begin with.
func (m maker) export(ctx context.Context, exports []export) (bases []*image.Base, drift []string, err error) {
	s, err := m.stage(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer s.close()
	for _, e := range exports {
		// Zstandard is several times faster than the default, and doesn't last: the
		// canonical layers are compressed again.
		fast := dagger.ContainerExportOpts{ForcedCompression: dagger.ImageLayerCompressionZstd}
		if _, err := s.build(e.stage).Export(ctx, e.archive, fast); err != nil {
			return nil, nil, s.explain(err)
		}
	}
	for _, i := range m.inputs.Bases {
		bases = append(bases, s.bases[i.Name])
	}
	return bases, s.drift, nil
}

// A staging is a connection to an engine and the build context that is staged for it.
type staging struct {
	*engine.Engine
	maker
	ctx    context.Context // of the connection
	cancel context.CancelCauseFunc
	log    *process.Tail
	folder string   // with the build context
	unlock func()   // lets other builds of this checkout have the folder
	drift  []string // from the locks

	dockerfile string                 // that is built: the project's own, or one made of it
	text       []byte                 // of that one
	bases      map[string]*image.Base // that it takes something from, by their names in the project's own
}

// stage connects to an engine, and makes and stages what the Dockerfile takes. Who calls
// it closes the staging.
func (m maker) stage(ctx context.Context) (_ *staging, err error) {
	s := &staging{maker: m}
	s.log = &process.Tail{Show: func(line string) { m.report.Update("Building: %s", line) }}
	// The first time both take long: one waits for the compiler, the other for the mirrors.
	// The connection lives as long as its context, so the group has none of its own.
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	o := engine.Options{Name: m.engine, Ephemeral: m.fresh, Cache: m.cache, Report: m.report, LogOutput: s.log}
	if m.gpus != nil {
		o.GPU, o.GPUs = true, *m.gpus
	}
	var made map[string]string
	var work errgroup.Group
	work.Go(func() (err error) {
		s.Engine, err = engine.Connect(s.ctx, o)
		cancelOn(err, s.cancel)
		return err
	})
	work.Go(func() (err error) {
		made, s.drift, err = m.materials(s.ctx)
		cancelOn(err, s.cancel)
		return err
	})
	work.Go(func() (err error) {
		s.bases, err = m.pullBases(s.ctx)
		cancelOn(err, s.cancel)
		return err
	})
	if err := work.Wait(); err != nil {
		return nil, err
	}
	name := m.project.contextName()
	s.unlock, err = m.cache.Lock(s.ctx, name, func() { m.report.Printf("Waiting for another build of this checkout to end") })
	if err != nil {
		return nil, err
	}
	s.folder = m.cache.Path("contexts", name)
	if err := s.stageBases(made); err != nil {
		return nil, err
	}
	if err := stageContext(s.folder, m.inputs.files, made); err != nil {
		return nil, err
	}
	cache.Use(s.folder)
	return s, nil
}

// staged is the build context in the engine.
func (s *staging) staged() *dagger.Directory { return s.Host().Directory(s.folder) }

// build is the image of a stage of the Dockerfile, of the last one if it is empty.
func (s *staging) build(stage string) *dagger.Container {
	return s.staged().DockerBuild(dagger.DirectoryDockerBuildOpts{Dockerfile: s.dockerfile, Target: stage})
}

// unstage lets other builds of this checkout have the folder.
func (s *staging) unstage() {
	if s.unlock != nil {
		s.unlock()
		s.unlock = nil
	}
}

// close disconnects.
func (s *staging) close() (err error) {
	s.unstage()
	if s.Engine != nil {
		err = s.Engine.Close()
	}
	s.cancel(nil)
	return err
}

// explain turns the error of a build into what a person can use.
func (s *staging) explain(err error) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if stopped := s.Stopped(); stopped != nil {
		return stopped
	}
	s.Client.Close() // the log is complete with the end of the session
	dockerfile, rerr := os.ReadFile(filepath.Join(s.folder, s.project.Dockerfile))
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	return engine.ExplainFailure(err, s.log.String()).Error(s.project.Dockerfile, string(dockerfile))
}

func cancelOn(err error, cancel context.CancelCauseFunc) {
	if err != nil {
		cancel(err)
	}
}

// materials makes what the build context has in addition to the checkout's own files,
// and returns the path of each by its name there, with what drifted from the locks.
func (m maker) materials(ctx context.Context) (made map[string]string, drift []string, err error) {
	all := make([]input.Made, len(m.inputs.Locked))
	work, ctx := errgroup.WithContext(ctx)
	for i, l := range m.inputs.Locked {
		work.Go(func() (err error) {
			all[i], err = l.Make(ctx, m.options(m.project.Inputs[i]))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, nil, err
	}
	made = map[string]string{}
	for i, one := range all {
		made[m.project.Inputs[i].Name()] = one.Path
		drift = append(drift, one.Drift...)
	}
	return made, drift, nil
}

func (m maker) options(in input.Input) input.Options {
	return input.Options{Cache: m.cache, Folder: filepath.Join(m.entries, folderOf(in)), Locked: m.locked, Report: m.report}
}

// folderOf is the folder of the cache with the archives of an input.
func folderOf(in input.Input) string { return strings.TrimSuffix(in.Name(), ".tar") }

func (m maker) folders() (all []string) {
	for _, in := range m.project.Inputs {
		all = append(all, folderOf(in))
	}
	return all
}

// MaterialsOptions says where to write materials, and of what.
type MaterialsOptions struct {
	Dir    string             // folder to write to; the project's root if empty
	Locked bool               // refuse what differs from the locks
	Report *progress.Reporter // may be nil
}

// Materials writes what the Dockerfile takes in addition to the checkout's own files
// into a folder, so that plain docker build can build the image too, and, into a folder
// there, what no service is known to keep of what they are made from. It returns the
// names.
func Materials(ctx context.Context, p Project, o MaterialsOptions) ([]string, error) {
	in, err := ReadInputs(p)
	if err != nil {
		return nil, err
	}
	store, err := cache.Open()
	if err != nil {
		return nil, err
	}
	m := maker{project: p, inputs: in, locked: o.Locked, cache: store, entries: string(store), report: o.Report}
	made, _, err := m.materials(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := m.unkept(ctx)
	if err != nil {
		return nil, err
	}
	names := append(slices.Sorted(maps.Keys(made)), slices.Sorted(maps.Keys(kept))...)
	maps.Copy(made, kept)
	for _, name := range names {
		if err := unpack(filepath.Join(cmp.Or(o.Dir, p.Root), filepath.FromSlash(name)), made[name]); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return names, nil
}

// unkept returns the paths of the files that no service is known to keep, by the names
// that Materials gives them.
func (m maker) unkept(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for i, l := range m.inputs.Locked {
		k, ok := l.(input.Keeper)
		if !ok {
			continue
		}
		files, err := k.Unkept(ctx, m.options(m.project.Inputs[i]))
		if err != nil {
			return nil, err
		}
		for name, path := range files {
			all[keptFolder(m.project.Inputs[i])+"/"+name] = path
		}
	}
	return all, nil
}

// keptFolder is where Materials keeps files of an input. It isn't part of the build context.
func keptFolder(in input.Input) string { return folderOf(in) + ".kept" }

// unpack writes a file without its compression, if that is Zstandard, which only new
// versions of Docker's own builder undo.
func unpack(target, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if magic, err := in.Peek(4); err != nil || binary.LittleEndian.Uint32(magic) != 0xfd2fb528 { // RFC 8878, 3.1.1
		return cache.WriteStream(target, in, 0o644)
	}
	z, err := zstd.NewReader(in)
	if err != nil {
		return err
	}
	defer z.Close()
	return cache.WriteStream(target, z, 0o644)
}
