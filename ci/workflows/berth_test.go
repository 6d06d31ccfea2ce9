package workflows

import (
	"bytes"
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/berthdev/berth/internal/usage"
)

// here is this repository; the others are what strangers have.
var (
	here   = Place{Folder: ".", Module: ".", Root: "."}
	places = []Place{
		here,
		{Folder: "sub", Module: "sub", Root: "sub", Branch: "trunk"},
		{Folder: "images/tr ain", Module: ".", Root: ".", Branch: "release/2"},
		{Folder: "Ein Ordner/Ä", Module: "Ein Ordner", Root: "Ein Ordner"},
	}
)

// TestGolden compares with the files by which this repository itself is checked.
func TestGolden(t *testing.T) {
	files, err := Files(here)
	require.NoError(t, err)
	assert.Equal(t, []string{".github/workflows/berth-gpu.yml", ".github/workflows/berth.yml"}, slices.Sorted(maps.Keys(files)))
	for name, text := range files {
		have, err := os.ReadFile(filepath.Join("../..", name))
		require.NoError(t, err)
		assert.Equal(t, string(text), string(have), "%s isn't what is generated. Type: go tool mage workflows", name)
	}
}

func TestActionlint(t *testing.T) {
	config := filepath.Join(t.TempDir(), "actionlint.yaml")
	require.NoError(t, os.WriteFile(config, []byte("self-hosted-runner:\n  labels: [gpu]\n"), 0o600))
	lint := func(name string, text []byte) []*actionlint.Error {
		var out bytes.Buffer
		linter, err := actionlint.NewLinter(&out, &actionlint.LinterOptions{ConfigFile: config})
		require.NoError(t, err)
		found, err := linter.Lint(name, text, nil)
		require.NoError(t, err)
		return found
	}
	for _, p := range places {
		files, err := Files(p)
		require.NoError(t, err)
		for name, text := range files {
			assert.Empty(t, lint(name, text), "%s\n%s", name, text)
		}
	}
	assert.NotEmpty(t, lint("x.yml", []byte("on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'echo ${{ github.nothing }}'}]}}")))
}

// TestLeastRights reads what is written, not what it was made from.
func TestLeastRights(t *testing.T) {
	pinned := regexp.MustCompile(`uses: [a-z]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+\n`)
	for _, p := range places {
		files, err := Files(p)
		require.NoError(t, err)
		for name, text := range files {
			assert.Equal(t, bytes.Count(text, []byte("uses:")), len(pinned.FindAll(text, -1)), name)
			assert.NotContains(t, string(text), "secrets", name)
			assert.NotContains(t, string(text), "pull_request_target", name)
			assert.Equal(t, 1, bytes.Count(text, []byte("permissions:\n  contents: read\nconcurrency:")), name)
			assert.Equal(t, bytes.Count(text, []byte("actions/checkout@")), bytes.Count(text, []byte("persist-credentials: false")), name)
			assert.Contains(t, string(text), "timeout-minutes: ", name)
			assert.True(t, bytes.HasPrefix(text, []byte(Generated)), name)
			// Text of an event may only be compared or be a value of env, never be part of a script.
			var w Workflow
			require.NoError(t, yaml.Unmarshal(uncommented(text), &w))
			for _, job := range w.Jobs {
				for _, step := range job.Steps {
					assert.NotContains(t, step.Run, "${{", name)
				}
			}
		}
	}
}

// uncommented is a workflow whose actions are plain words of one field, as Action reads them.
func uncommented(text []byte) []byte {
	return regexp.MustCompile(`uses: (\S+) # (\S+)`).ReplaceAll(text, []byte("uses: {name: '$1', version: '$2'}"))
}

func TestSeveralProjects(t *testing.T) {
	all := map[string]string{}
	for _, p := range places {
		files, err := Files(p)
		require.NoError(t, err)
		for name, text := range files {
			assert.NotContains(t, all, name)
			for _, line := range []string{"name: ", Generated} {
				first := regexp.MustCompile(`(?m)^` + line + `.*$`).FindString(string(text))
				for other, text := range all {
					assert.False(t, line == "name: " && strings.Contains(text, first+"\n"), "%s and %s wait for each other", name, other)
				}
			}
			all[name] = string(text)
		}
	}
	assert.Len(t, all, 2*len(places))
}

func TestNamesThatWorkflowsCannotHave(t *testing.T) {
	for _, name := range []string{"${{ github.token }}", "a*", "a[b]", "!a", "a\nb", "a'b", `a"b`, "a#b", "~", "../a", "..", "a:b", " a"} {
		for _, p := range []Place{{Folder: name}, {Module: name}, {Root: name}, {Branch: name}} {
			_, err := Files(p)
			assert.ErrorIs(t, err, usage.Err, name)
		}
	}
}

// FuzzFiles reads back what it writes.
func FuzzFiles(f *testing.F) {
	for _, p := range places {
		f.Add(p.Folder, p.Module, p.Root, p.Branch)
	}
	f.Add("- a", "true", "1e3", "null")
	f.Fuzz(func(t *testing.T, folder, module, root, branch string) {
		p := Place{folder, module, root, branch}
		files, err := Files(p)
		if err != nil {
			assert.ErrorIs(t, err, usage.Err)
			return
		}
		for name, text := range files {
			assert.True(t, filepath.IsLocal(name) && filepath.Dir(name) == filepath.FromSlash(Dir), name)
			var w Workflow
			require.NoError(t, yaml.Unmarshal(uncommented(text), &w), "%s", text)
			for _, job := range w.Jobs {
				step := job.Steps[len(job.Steps)-2]
				assert.Equal(t, filepath.Clean(folder), filepath.Clean(step.WorkingDirectory))
			}
			assert.Len(t, w.On["push"].Branches, 1)
			assert.Equal(t, cmp.Or(branch, "main"), w.On["push"].Branches[0])
		}
	})
}
