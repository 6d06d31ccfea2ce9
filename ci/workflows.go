package ci

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/berthdev/berth/ci/workflows"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/usage"
)

// ErrWorkflowsDiffer is in the chain of CheckWorkflows' error.
var ErrWorkflowsDiffer = errors.New("the workflows aren't what is generated")

// WriteWorkflows writes the project's GitHub Actions workflows into its repository, all
// of them or, on an error, none, and returns what became of each. A file of the same name
// that wasn't generated for this project is never overwritten.
func WriteWorkflows(p Project) (done []string, err error) {
	top, files, err := p.workflows()
	if err != nil {
		return nil, err
	}
	changed := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(top, filepath.FromSlash(name))
		state, err := stateOf(path, files[name])
		if err != nil {
			return nil, err
		}
		if state != same {
			changed[path] = files[name]
		}
		done = append(done, string(state)+" "+path)
	}
	if err := writeFiles(changed); err != nil {
		return nil, err
	}
	return done, nil
}

// CheckWorkflows returns an error that wraps ErrWorkflowsDiffer unless the repository
// has the project's workflows as they are generated. It changes nothing.
func CheckWorkflows(p Project) error {
	top, files, err := p.workflows()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(top, filepath.FromSlash(name))
		switch state, err := stateOf(path, files[name]); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%w: %w", ErrWorkflowsDiffer, err))
		case state != same:
			err := fmt.Errorf("%w: %s", ErrWorkflowsDiffer, path)
			errs = append(errs, advice.With(err, "Type\n\t%s workflows", advice.Berth))
		}
	}
	return errors.Join(errs...)
}

// WriteRunnerHook writes the script that a self-hosted runner calls before each job,
// unless the file is there and is another.
func WriteRunnerHook(file string) error {
	if _, err := stateOf(file, workflows.RunnerHook); err != nil {
		return err
	}
	return cache.WriteFile(file, workflows.RunnerHook, 0o755)
}

// A fileState is what becomes of a generated file.
type fileState string

const (
	missing fileState = "created"
	older   fileState = "changed"
	same    fileState = "unchanged"
)

// stateOf compares a file with what is generated. It refuses one that has another
// origin: a person's, or another project's.
func stateOf(path string, generated []byte) (fileState, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing, nil
	} else if err != nil {
		return "", err
	}
	if mode := info.Mode(); !mode.IsRegular() && !mode.IsDir() {
		return older, nil // a device or a pipe, which has no content
	}
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		return "", err
	case bytes.Equal(data, generated):
		return same, nil
	case len(data) == 0:
		return older, nil
	case origin(data) == nil || !bytes.Equal(origin(data), origin(generated)):
		err := fmt.Errorf("%s wasn't generated for this project, and stays as it is", path)
		return "", advice.With(err, "Move it away if it may be replaced.")
	}
	return older, nil
}

// origin is the line of a file that says what it was generated for, or nil.
func origin(data []byte) []byte {
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte(workflows.Generated)) {
			return line
		}
	}
	return nil
}

// workflows returns the top of the project's repository, which is the project's folder
// where there is no git, and the workflows by their paths from there.
func (p Project) workflows() (top string, files map[string][]byte, err error) {
	top, err = nearest(p.folder, ".git", func(fs.FileMode) bool { return true })
	if err != nil {
		return "", nil, err
	}
	if top == "" {
		top = p.folder
	}
	module, err := nearest(p.folder, "go.mod", fs.FileMode.IsRegular)
	if err != nil {
		return "", nil, err
	}
	if module == "" {
		err := fmt.Errorf("%w: neither %s nor a folder above it has a go.mod, without which a workflow can't call mage", usage.Err, p.folder)
		return "", nil, advice.With(err, "Set Berth up there with\n\tgo run github.com/berthdev/berth@latest")
	}
	place := workflows.Place{Branch: p.Branch}
	for _, folder := range []struct {
		path string
		rel  *string
	}{{p.folder, &place.Folder}, {module, &place.Module}, {p.Root, &place.Root}} {
		rel, err := filepath.Rel(top, folder.path)
		if err != nil || !filepath.IsLocal(rel) {
			return "", nil, fmt.Errorf("%w: %s isn't within the repository at %s, and no workflow has it", usage.Err, folder.path, top)
		}
		*folder.rel = filepath.ToSlash(rel)
	}
	files, err = workflows.Files(place)
	return top, files, err
}
