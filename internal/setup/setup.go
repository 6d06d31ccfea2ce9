// Package setup puts Berth into somebody's repository: it writes what is missing
// for their first build, and changes nothing that is there, the lines apart that
// go.mod and .gitignore need. It knows neither Docker nor engines.
package setup

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"

	"github.com/berthdev/berth/internal/usage"
)

// The templates are folders of files, each a text/template for a choice; .txt at the end of
// a name is cut off: Go leaves those alone. All of them have the files in common.
//
//go:embed templates common
var templates embed.FS

// A choice says what the files of a template contain.
type choice struct {
	BaseStage bool // docker/Dockerfile has a stage called base
	Wheels    bool // Python's packages come from a pylock.toml
}

// Templates lists the names that Options.Template may have.
func Templates() []string {
	entries, err := templates.ReadDir("templates")
	if err != nil {
		panic(err) // they are embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Options says what to set up.
type Options struct {
	Dir      string // root of the repository; made if it is missing
	Template string
	Version  string // of this module, to be required, as go get takes it
}

// A Result is what became of a file.
type Result struct {
	File string // relative to the root, with slashes
	Done string // "created", "changed" or "skipped"
	Why  string // it was skipped, or what was changed
}

const (
	berth = "github.com/berthdev/berth"
	mage  = "github.com/magefile/mage"
)

// ignored are the lines of .gitignore: what Berth and its targets make in a repository.
var ignored = []string{"/.berth/", "/artifacts/", "/berth", "/rootfs.tar", "/shell.tar", "/wheels.tar", "/magefiles/mage_output_file.go"}

// Run sets the repository up, and reports each file when it is done. What exists
// stays; a second run changes nothing.
func Run(ctx context.Context, o Options, report func(Result)) error {
	if !slices.Contains(Templates(), o.Template) {
		return fmt.Errorf("-template: %w: there is no template %q. Choose one of %s", usage.Err, o.Template, strings.Join(Templates(), ", "))
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	_, err := os.Stat(filepath.Join(o.Dir, "pylock.toml"))
	has := choice{BaseStage: true, Wheels: err == nil && o.Template == "pytorch"}
	files, err := filesOf(o.Template, has)
	if err != nil {
		return err
	}
	dockerfile, err := os.ReadFile(filepath.Join(o.Dir, "docker", "Dockerfile"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	theirs := err == nil && !bytes.Equal(dockerfile, files["docker/Dockerfile"])
	if theirs { // it installs no wheels, or does it in a way of its own
		if files, err = filesOf(o.Template, choice{BaseStage: baseStage.Match(dockerfile)}); err != nil {
			return err
		}
	}
	// The files first: they cost nothing, and say what is to come.
	names := slices.Sorted(maps.Keys(files))
	for _, name := range names {
		if theirs && name == "docker/Dockerfile.dockerignore" {
			report(Result{name, "skipped", "docker/Dockerfile is yours, and finds what it did before"})
			continue
		}
		r, err := create(o.Dir, name, files[name])
		if err != nil {
			return err
		}
		report(r)
	}
	r, err := ignore(o.Dir)
	if err != nil {
		return err
	}
	report(r)
	if r, err = requireModules(ctx, o); err != nil {
		return err
	}
	report(r)
	return nil
}

// filesOf returns a template's files by the paths that they get.
func filesOf(name string, has choice) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, root := range []string{"common", path.Join("templates", name)} {
		err := fs.WalkDir(templates, root, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			parsed, err := template.ParseFS(templates, name)
			if err != nil {
				return err
			}
			var text bytes.Buffer
			err = parsed.Execute(&text, has)
			files[strings.TrimSuffix(strings.TrimPrefix(name, root+"/"), ".txt")] = text.Bytes()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// create writes a file unless there is one, or something else, of that name.
func create(dir, name string, data []byte) (Result, error) {
	target := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return Result{}, err
	}
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return Result{name, "skipped", "it is there already"}, nil
	} else if err != nil {
		return Result{}, err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(target) // half a file would be skipped the next time
		return Result{}, err
	}
	return Result{name, "created", ""}, nil
}

// ignore adds the lines to .gitignore that it lacks.
func ignore(dir string) (Result, error) {
	const name = ".gitignore"
	before, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, name, []byte("# What Berth makes.\n"+strings.Join(ignored, "\n")+"\n"))
	} else if err != nil {
		return Result{}, err
	}
	lines := strings.Fields(string(before))
	var missing []string
	for _, line := range ignored {
		if !slices.Contains(lines, line) {
			missing = append(missing, line)
		}
	}
	if len(missing) == 0 {
		return Result{name, "skipped", "it has the lines already"}, nil
	}
	text := "\n# What Berth makes.\n" + strings.Join(missing, "\n") + "\n"
	if len(before) > 0 && before[len(before)-1] != '\n' {
		text = "\n" + text
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return Result{}, err
	}
	_, err = f.WriteString(text)
	return Result{name, "changed", fmt.Sprintf("%d lines added", len(missing))}, errors.Join(err, f.Close())
}

// requireModules makes go.mod require this module, and have mage as a tool.
func requireModules(ctx context.Context, o Options) (Result, error) {
	const name = "go.mod"
	before, err := os.ReadFile(filepath.Join(o.Dir, name))
	done := "changed"
	if errors.Is(err, fs.ErrNotExist) {
		done = "created"
		if err := goCommand(ctx, o.Dir, "mod", "init", moduleName(o.Dir)); err != nil {
			return Result{}, err
		}
	} else if err != nil {
		return Result{}, err
	}
	hasBerth, hasMage, err := required(before)
	if err != nil {
		return Result{}, fmt.Errorf("reading %s: %w", filepath.Join(o.Dir, name), err)
	}
	if hasBerth && hasMage {
		return Result{name, "skipped", "it requires Berth and has mage as a tool already"}, nil
	}
	if !hasBerth {
		// Both, for go.sum to have what an input needs that the commands don't import.
		if err := goCommand(ctx, o.Dir, "get", berth+"/magefiles/commands@"+o.Version, berth+"/ci/wheels@"+o.Version); err != nil {
			return Result{}, err
		}
	}
	if !hasMage {
		// The version is the one that Berth requires, or a newer one that is there.
		if err := goCommand(ctx, o.Dir, "mod", "edit", "-tool="+mage); err != nil {
			return Result{}, err
		}
	}
	return Result{name, done, "it requires Berth, and has mage as a tool"}, nil
}

// required reports what a go.mod has of what Berth needs.
func required(text []byte) (hasBerth, hasMage bool, err error) {
	f, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return false, false, err
	}
	if f.Module != nil && f.Module.Mod.Path == berth {
		return false, false, fmt.Errorf("%w: this is Berth's own repository. Change into yours", usage.Err)
	}
	for _, r := range f.Require {
		hasBerth = hasBerth || r.Mod.Path == berth
	}
	for _, t := range f.Tool {
		hasMage = hasMage || t.Path == mage
	}
	return hasBerth, hasMage, nil
}

// goCommand runs the go command, which says itself what it fetches.
func goCommand(ctx context.Context, dir string, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	var said bytes.Buffer
	c.Dir, c.Stderr = dir, &said
	c.Env = append(os.Environ(), "GOWORK=off")
	if err := c.Run(); ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

var notInPaths = regexp.MustCompile(`[^a-z0-9._-]+`)

// moduleName is that of a module of which nobody but its own repository knows.
func moduleName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	name := strings.Trim(notInPaths.ReplaceAllString(strings.ToLower(filepath.Base(dir)), "-"), "-._")
	if name == "" {
		return "workspace"
	}
	return name
}

// baseStage matches the beginning of a stage called base, as the templates have it.
var baseStage = regexp.MustCompile(`(?im)^\s*FROM\s.*\sAS\s+base\s*$`)
