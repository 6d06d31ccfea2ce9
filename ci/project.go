// Package ci is the pipeline: it builds the image of a project through Dagger,
// makes it canonical, loads it into Docker, proves that it is the same bit for bit,
// publishes it, plans launches and leases their GPUs, finds what isn't pinned, and runs the
// stages of a test, linters and unit tests included. Its rooms do the work (engine, image,
// attest, lint, stage, workflows, and one for each kind of input); this package puts them in
// order. It prints nothing but progress: what a person sees at the end is up to the caller.
package ci

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/ci/shell"
	"github.com/berthdev/berth/internal/usage"
)

// A Project says what is built. Its paths are relative to Root, with slashes. The zero
// value is a project with all the defaults.
type Project struct {
	Root       string        // build context and workspace; relative to the folder that has magefiles, which it is by default
	Name       string        // of the image and of its containers; that of the root's folder by default
	Dockerfile string        // what is in the image; docker/Dockerfile by default
	Inputs     []input.Input // locked, and put beside the context; by default the packages of docker/packages.lock and Berth's shell settings
	BaseStage  string        // stage of the Dockerfile, made from the first input, whose digest is pinned, too; none by default
	BaseDigest string        // file with that digest; docker/base.digest by default, if there is such a stage
	Home       string        // folder with the home of containers, which lasts; that of launch.Options by default
	Skeleton   string        // folder with what a new home starts with; Berth's own by default
	Lint       []string      // commands that look for mistakes in the checkout, on this machine; none by default
	Test       []string      // unit tests; none by default
	TestStage  string        // stage of the Dockerfile in which the unit tests can run, with a shell; its working folder has the code; none by default
	TestIgnore string        // ignore file of that stage's build context, which has tests, too; that of the Dockerfile by default
	Smoke      []string      // commands that must work in the image; "true" by default
	Registry   string        // repository that has the image: publish pushes there by default, and build pulls from there; none by default
	Key        string        // file with the public key that what is pulled must be signed with; none by default
	Branch     string        // default branch of the repository, each push to which workflows check; main by default

	folder  string // the one that has magefiles
	testing bool   // the context is the test stage's
}

// Path joins a relative path to the project's root.
func (p Project) Path(rel string) string { return filepath.Join(p.Root, filepath.FromSlash(rel)) }

// Tag is the name under which the image is loaded unless another is asked for.
func (p Project) Tag() string { return p.Name + ":latest" }

// At returns the project with its root, found from the folder dir, and with its
// defaults in their places.
func (p Project) At(dir string) (Project, error) {
	root, err := findRoot(dir)
	if err != nil {
		return p, err
	}
	p.folder = root
	p.Root = filepath.Join(root, filepath.FromSlash(p.Root))
	p.Name = cmp.Or(p.Name, imageName(filepath.Base(p.Root)))
	p.Dockerfile = cmp.Or(p.Dockerfile, "docker/Dockerfile")
	if p.BaseStage != "" {
		p.BaseDigest = cmp.Or(p.BaseDigest, "docker/base.digest")
	}
	if p.Inputs == nil {
		p.Inputs = []input.Input{debian.Input{}, shell.Input{}}
	}
	if p.Smoke == nil {
		p.Smoke = []string{"true"}
	}
	return p, p.check()
}

// check refuses what can't be built, or would be something else than it seems.
func (p Project) check() error {
	if p.BaseDigest != "" && p.BaseStage == "" {
		return fmt.Errorf("%w: the project has a file for the digest of its base stage, %s, but no such stage", usage.Err, p.BaseDigest)
	}
	if p.BaseStage != "" && len(p.Inputs) == 0 {
		return fmt.Errorf("%w: the project has a base stage, %s, but no input that it is made from", usage.Err, p.BaseStage)
	}
	names := map[string]bool{}
	for _, i := range p.Inputs {
		if names[i.Name()] {
			return fmt.Errorf("%w: the project has two inputs called %s", usage.Err, i.Name())
		}
		names[i.Name()] = true
	}
	for _, path := range []string{p.Dockerfile, p.TestIgnore, p.Home, p.Skeleton, p.Key} {
		if path != "" && !filepath.IsLocal(filepath.FromSlash(path)) {
			return fmt.Errorf("%w: %s isn't a path within the project", usage.Err, path)
		}
	}
	return nil
}

// notInNames are the characters that names of images can't have.
var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// imageName makes the name of a folder into one that images can have.
func imageName(folder string) string {
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(folder), "-"), "-")
	if name == "" {
		return "workspace"
	}
	return name
}

// findRoot returns the nearest folder at or above dir that has a magefiles folder.
func findRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	root, err := nearest(dir, "magefiles", fs.FileMode.IsDir)
	if err == nil && root == "" {
		err = fmt.Errorf("%w: %s isn't in a project of Berth's: no folder above it has magefiles. Change into the project first", usage.Err, dir)
	}
	return root, err
}

// nearest returns the nearest folder at or above dir, an absolute path, that has an
// entry of a name and kind, or "" if there is none.
func nearest(dir, name string, is func(fs.FileMode) bool) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if info, err := os.Stat(filepath.Join(at, name)); err == nil && is(info.Mode()) {
			return at, nil
		} else if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if at == filepath.Dir(at) {
			return "", nil
		}
	}
}
