package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/ci/image"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// A builder makes what an engine needs from source.
type builder struct {
	Options
	module string // hash of the nested module
	inputs string // hash of everything that our image is made from
}

func newBuilder(o Options) (*builder, error) {
	if o.sources == nil {
		o.sources = embedded
	}
	module, err := hashModule(o.sources)
	if err != nil {
		return nil, err
	}
	lock, err := fs.ReadFile(o.sources, lockName)
	if err != nil {
		return nil, fmt.Errorf("reading which packages the engine's image has: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%+v\n%x\n", recipe, module, engineFiles(""), sha256.Sum256(lock)))
	return &builder{Options: o, module: module, inputs: hex.EncodeToString(sum[:])}, nil
}

// tag is that of our image.
func (b *builder) tag() string { return repository + ":" + b.inputs[:12] }

// repository is the name of the engine's images in Docker, and of nothing else there.
const repository = "berth-engine"

// cliPath is the name of the command line that was built, as an entry of the cache.
func (b *builder) cliPath() string { return b.Cache.Path("engine", b.module[:12], cliName()) }

// cli returns the path of Dagger's command line, which is compiled if the
// machine hasn't got it.
func (b *builder) cli(ctx context.Context) (string, error) {
	if path, err := findCLI(ctx, b.cliPath()); err != nil || path != "" {
		return path, err
	}
	unlock, err := b.Cache.Lock(ctx, "dagger-cli", func() { b.Report.Printf("Waiting for another build to compile Dagger's command line") })
	if err != nil {
		return "", err
	}
	defer unlock()
	if path, err := findCLI(ctx, b.cliPath()); err != nil || path != "" {
		return path, err
	}
	temp, remove, err := b.Cache.Temp("engine")
	if err != nil {
		return "", err
	}
	defer remove()
	c, err := newCompiler(b.sources, temp, b.Report)
	if err != nil {
		return "", err
	}
	if err := c.build(ctx, runtime.GOOS, runtime.GOARCH, temp, "dagger"); err != nil {
		return "", err
	}
	program, err := os.Open(filepath.Join(temp, cliName()))
	if err != nil {
		return "", err
	}
	defer program.Close()
	return cache.Keep(b.cliPath(), temp, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, program)
		return err
	})
}

// image builds the engine's image and loads it into Docker.
func (b *builder) image(ctx context.Context, docker *daemon.Client) error {
	temp, remove, err := b.Cache.Temp("engine")
	if err != nil {
		return err
	}
	defer remove()

	var rootfs string
	work, workCtx := errgroup.WithContext(ctx)
	work.Go(func() error {
		c, err := newCompiler(b.sources, temp, b.Report)
		if err != nil {
			return err
		}
		return c.build(workCtx, platformOS, platformArch, temp, "engine", "init", "dnsname", "dialstdio")
	})
	work.Go(func() (err error) {
		rootfs, err = b.packages(workCtx, temp)
		return err
	})
	if err := work.Wait(); err != nil {
		return err
	}
	b.Report.Update("Loading the engine's image %s into Docker", b.tag())
	img, err := assemble(rootfs, temp, engineFiles(temp), b.inputs)
	if err != nil {
		return fmt.Errorf("assembling the engine's image: %w", err)
	}
	_, err = image.Load(ctx, docker, b.Cache, img, b.tag(), role)
	return err
}
