package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/trouble"
)

// platform is what the engine runs on, whatever Berth runs on: the packages of
// its image are locked for it.
const platformOS, platformArch = "linux", "amd64"

// The programs of the nested module, as `go build` takes them.
const programs = "github.com/dagger/dagger/cmd/"

// buildFlags are those that the engine's own releases are built with.
var buildFlags = []string{
	"-trimpath", "-buildvcs=false",
	"-tags", "dfexcludepatterns,dfparents",
	"-ldflags", "-s -w -X github.com/dagger/dagger/engine.Version=" + Version + " -X github.com/dagger/dagger/engine.Tag=" + Version,
}

// embedded is what an engine is built from: the nested module, and what is around
// the engine in its image. Go embeds no file of another module, so the nested one's
// go.mod and go.sum bear the suffix here.
//
//go:embed source packages.lock
var embedded embed.FS

const suffix = ".txt"

// walkModule calls do for each file of the nested module, in lexical order, with the
// name that it has there.
func walkModule(sources fs.FS, do func(name string, data []byte) error) error {
	return fs.WalkDir(sources, "source", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := fs.ReadFile(sources, name)
		if err != nil {
			return err
		}
		return do(strings.TrimSuffix(strings.TrimPrefix(name, "source/"), suffix), data)
	})
}

// hashModule identifies the sources that programs are built from: the nested
// module's own files (its go.sum pins everything else) and the build flags.
func hashModule(sources fs.FS) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", buildFlags)
	err := walkModule(sources, func(name string, data []byte) error {
		fmt.Fprintf(h, "%s %x\n", name, sha256.Sum256(data))
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading the engine's module: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeModule writes the nested module into a folder.
func writeModule(sources fs.FS, dir string) error {
	return walkModule(sources, func(name string, data []byte) error {
		path := filepath.Join(dir, filepath.FromSlash(name))
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
	})
}

// A compiler builds programs of the nested module with the go command.
type compiler struct {
	module string // the nested module's folder
	temp   string // for go's own temporary files: it leaves them when it is killed
	report *progress.Reporter
}

// newCompiler writes the nested module into a folder for temporary files.
func newCompiler(sources fs.FS, temp string, report *progress.Reporter) (compiler, error) {
	c := compiler{filepath.Join(temp, "module"), temp, report}
	if err := writeModule(sources, c.module); err != nil {
		return c, fmt.Errorf("writing the engine's module: %w", err)
	}
	return c, nil
}

// build compiles programs for an operating system and architecture into dir,
// each under its own name.
func (c compiler) build(ctx context.Context, goos, goarch, dir string, names ...string) error {
	if _, err := exec.LookPath("go"); err != nil {
		err := fmt.Errorf("%w: building it from source needs the go command, which isn't on the PATH", ErrUnavailable)
		return advice.With(advice.About(err, trouble.NoGo), "Name an engine that runs in %s, or else:", envRunnerHost)
	}
	var packages []string
	for _, n := range names {
		packages = append(packages, programs+n)
	}
	what := strings.Join(names, ", ")
	start := time.Now()

	// First the list of packages, which fetches the modules: then it is known how
	// many there are to compile.
	place := map[string]int{}
	modules := 0
	list := golang.Command{
		Dir: c.module, Temp: c.temp, OS: goos, Arch: goarch,
		Args:   append([]string{"list", "-deps", "-tags", buildFlags[3]}, packages...),
		Output: &process.Tail{Show: func(line string) { place[line] = len(place) + 1 }},
		Complaint: func(line string) {
			if m, ok := strings.CutPrefix(line, "go: downloading "); ok {
				modules++
				c.report.Update("Fetching the engine's sources: %d modules, %s (%s)", modules, m, since(start))
			}
		},
	}
	if err := list.Run(ctx); err != nil {
		return fmt.Errorf("fetching the engine's sources: %w", err)
	}

	// go compiles about in the order of the list and says nothing of packages that
	// it has in its cache: the place in the list is how far it has come.
	c.report.Update("Compiling %s: %d packages", what, len(place))
	done := 0
	build := golang.Command{
		Dir: c.module, Temp: c.temp, OS: goos, Arch: goarch,
		Args: slices.Concat([]string{"build", "-v", "-o", dir + string(filepath.Separator)}, buildFlags, packages),
		Complaint: func(line string) {
			done = max(done, place[line])
			c.report.Update("Compiling %s: %d of %d packages (%s)", what, done, len(place), since(start))
		},
	}
	if err := build.Run(ctx); err != nil {
		return fmt.Errorf("compiling %s: %w", what, err)
	}
	c.report.Printf("Compiled %s (%s)", what, since(start))
	return nil
}

func since(start time.Time) time.Duration { return time.Since(start).Round(time.Second) }

// findCLI returns Dagger's command line of the right version if the machine has
// it: one that the user named, one that was built before (see cache.Keep), one that
// the SDK downloaded, one on PATH; else an empty path.
func findCLI(ctx context.Context, built string) (string, error) {
	if named := os.Getenv(envCLI); named != "" {
		return named, nil
	}
	if path, err := cache.Find(built); err != nil || path != "" {
		return path, err
	}
	if dir, err := os.UserCacheDir(); err == nil {
		path := filepath.Join(dir, "dagger", "dagger-"+strings.TrimPrefix(Version, "v"))
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0 {
			return path, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for Dagger's command line: %w", err)
		}
	}
	path, err := exec.LookPath("dagger")
	if err != nil {
		return "", nil
	}
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil || !isVersion(out) {
		return "", nil // another program, or another version
	}
	return path, nil
}

// isVersion says whether `dagger version` printed the version that the SDK needs.
func isVersion(output []byte) bool {
	fields := bytes.Fields(output)
	return len(fields) >= 2 && string(fields[0]) == "dagger" && string(fields[1]) == Version
}

// cliName is the file name of Dagger's command line.
func cliName() string {
	if runtime.GOOS == "windows" {
		return "dagger.exe"
	}
	return "dagger"
}
