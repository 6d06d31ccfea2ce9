package workflows

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/moduletest"
	"github.com/berthdev/berth/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// A runner runs the workflows of a repository on this machine, with act, which is
// pinned and built in a module of its own. Actions come from folders, not from GitHub.
type runner struct {
	*testing.T
	act, repository, home, kept string
}

// newRunner is for a repository on disk, which gets the workflows of its project.
func newRunner(t *testing.T, repository string, p Place) runner {
	t.Helper()
	testenv.NeedsCommand(t, testenv.Linux, "bash")
	if testing.Short() {
		t.Skip("it builds act")
	}
	out, err := exec.Command("go", "-C", "testdata/act", "tool", "-n", "act").Output()
	require.NoError(t, err)
	r := runner{t, strings.TrimSpace(string(out)), repository, t.TempDir(), t.TempDir()}
	files, err := Files(p)
	require.NoError(t, err)
	for name, text := range files {
		r.write(name, string(text))
	}
	for _, line := range []string{"init -q -b main", "remote add origin https://github.com/harbour/ships.git", "add -A", "commit -q -m All"} {
		args := append([]string{"-C", repository, "-c", "user.name=T", "-c", "user.email=t@harbour.example"}, strings.Fields(line)...)
		out, err := exec.Command("git", args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	return r
}

func (r runner) write(name, text string) {
	r.Helper()
	file := filepath.Join(r.repository, filepath.FromSlash(name))
	require.NoError(r, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(r, os.WriteFile(file, []byte(text), 0o644))
}

// runs lets an event happen, and returns what the workflow's log says. (act loses the last output of steps now and
// then; what it says itself, and the summary, are always there.)
func (r runner) runs(event, payload, workflow string) (string, error) {
	r.Helper()
	events, err := filepath.Abs("testdata/events")
	require.NoError(r, err)
	args := []string{event, "-e", filepath.Join(events, payload+".json"), "-W", workflow,
		"--local-repository", Checkout.Ref() + "=" + r.action("true"),
		"--local-repository", SetupGo.Ref() + "=" + r.action(`ls -l "${{ inputs.go-version-file }}"`, "go-version-file"),
		"--local-repository", UploadArtifact.Ref() + "=" + r.action(`cp -r "${{ inputs.path }}" "`+r.kept+`/${{ inputs.name }}"`, "path", "name"),
	}
	for _, label := range []string{"ubuntu-latest", "self-hosted", "linux", "x64", "gpu"} {
		args = append(args, "-P", label+"=-self-hosted")
	}
	for _, variable := range r.env() {
		args = append(args, "--env", variable)
	}
	c := exec.CommandContext(r.Context(), r.act, args...)
	c.Dir = r.repository
	c.Env = append(os.Environ(), "HOME="+r.home, "XDG_CONFIG_HOME="+r.home, "XDG_CACHE_HOME="+filepath.Join(r.home, "cache"))
	out, err := c.CombinedOutput()
	r.Logf("%s", out)
	return string(out), err
}

// env is what the steps have of this process's environment: what go keeps between builds, though their home is
// another, and the tests' engine and cache. They don't have BERTH_TEST_LONG, or tests would run themselves.
func (r runner) env() (all []string) {
	r.Helper()
	names := []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GONOSUMDB", "GOFLAGS"}
	out, err := exec.Command("go", append([]string{"env"}, names...)...).Output()
	require.NoError(r, err)
	for i, value := range strings.Split(string(out), "\n")[:len(names)] {
		all = append(all, names[i]+"="+value)
	}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "BERTH_") && !strings.HasPrefix(name, "BERTH_TEST_") || strings.HasPrefix(name, "DOCKER_") {
			all = append(all, variable)
		}
	}
	return all
}

// action makes an action that runs a line of the shell with some inputs.
func (r runner) action(line string, inputs ...string) string {
	r.Helper()
	dir := r.TempDir()
	text := "name: Double\ninputs:\n"
	for _, name := range inputs {
		text += "  " + name + ": {required: true}\n"
	}
	text += "runs:\n  using: composite\n  steps:\n    - shell: bash\n      run: " + line + "\n"
	require.NoError(r, os.WriteFile(filepath.Join(dir, "action.yml"), []byte(text), 0o644))
	return dir
}

// ciTarget is a project's own target, in place of Berth's: it reports what it is called with, and where.
const ciTarget = `//go:build mage

package main

import (
	"fmt"
	"os"
)

// CI reports that it ran.
func CI(g *string) error {
	text := "GPUs: none asked for\n"
	if g != nil {
		text = "GPUs: " + *g + "\n"
	}
	fmt.Print(text)
	if err := os.MkdirAll("artifacts/ci", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("artifacts/ci/summary.md", []byte(text), 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(os.Getenv("GITHUB_STEP_SUMMARY"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	fmt.Fprint(f, text)
	return f.Close()
}
`

// shipyard is a repository with a project in a folder that needs nothing but mage.
func shipyard(t *testing.T, p Place) (repository string) {
	t.Helper()
	repository = t.TempDir()
	sums, err := os.ReadFile("../../go.sum")
	require.NoError(t, err)
	var mage bytes.Buffer
	version := ""
	for line := range strings.Lines(string(sums)) {
		if strings.HasPrefix(line, "github.com/magefile/mage ") {
			mage.WriteString(line)
			version = strings.TrimSuffix(strings.Fields(line)[1], "/go.mod")
		}
	}
	for name, text := range map[string]string{
		path.Join(p.Module, "go.mod"): "module shipyard\n\ngo 1.26.0\n\n" +
			"tool github.com/magefile/mage\n\nrequire github.com/magefile/mage " + version + " // indirect\n",
		path.Join(p.Module, "go.sum"):                mage.String(),
		path.Join(p.Folder, "magefiles/magefile.go"): ciTarget,
	} {
		file := filepath.Join(repository, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return repository
}

// TestRuns runs the workflows of projects as they are.
func TestRuns(t *testing.T) {
	for _, p := range []Place{here, {Folder: "images/tr ain", Module: ".", Root: "images/tr ain"}} {
		r := newRunner(t, shipyard(t, p), p)
		hosted, gpu := "berth"+p.suffix(), "berth-gpu"+p.suffix()
		for _, event := range []string{"push", "pull_request", "workflow_dispatch"} {
			for name, says := range map[string]string{hosted: "GPUs: none asked for", gpu: "GPUs: auto"} {
				out, err := r.runs(event, event, path.Join(Dir, name+".yml"))
				require.NoError(t, err)
				assert.Contains(t, out, "Job succeeded")
				assert.Contains(t, out, "Summary - "+says)
				kept, err := os.ReadFile(filepath.Join(r.kept, name, "summary.md"))
				require.NoError(t, err)
				assert.Equal(t, says+"\n", string(kept))
				require.NoError(t, os.RemoveAll(filepath.Join(r.kept, name)))
			}
		}
	}
}

// own is a fresh copy of this repository, whose image has a name of the tests', and goes with them.
func own(t *testing.T) (repository string) {
	t.Helper()
	repository = t.TempDir()
	require.NoError(t, moduletest.Copy("../..", repository))
	magefile := filepath.Join(repository, "magefiles", "magefile.go")
	text, err := os.ReadFile(magefile)
	require.NoError(t, err)
	require.Contains(t, string(text), `"demo-cnn"`)
	text = bytes.Replace(text, []byte(`"demo-cnn"`), []byte(`"`+dockertest.Process+`-own"`), 1)
	require.NoError(t, os.WriteFile(magefile, text, 0o644))
	return repository
}

// TestOwn runs this repository's workflow in a fresh copy of it, to the green end: lint, tests, build, smoke, verify.
func TestOwn(t *testing.T) {
	dockertest.Connect(t)
	assert.Contains(t, passes(t, "berth"), "NO GPU: the smoke commands ran without one")
}

// passes runs a workflow of this repository, and returns the summary that it keeps.
func passes(t *testing.T, name string) (summary string) {
	t.Helper()
	if !testenv.Long() {
		t.Skip("it runs the whole pipeline: mage test -long")
	}
	r := newRunner(t, own(t), here)
	out, err := r.runs("push", "push", path.Join(Dir, name+".yml"))
	require.NoError(t, err)
	assert.Contains(t, out, "Job succeeded")
	for _, file := range []string{"junit.xml", "report.json"} {
		assert.FileExists(t, filepath.Join(r.kept, name, file))
	}
	text, err := os.ReadFile(filepath.Join(r.kept, name, "summary.md"))
	require.NoError(t, err)
	return string(text)
}

// TestForks has pull requests of a fork reach GitHub's machines and not the runner:
// the job is left out, and without its condition the first step ends it.
func TestForks(t *testing.T) {
	r := newRunner(t, shipyard(t, here), here)
	out, err := r.runs("pull_request", "fork", path.Join(Dir, "berth.yml"))
	require.NoError(t, err)
	assert.Contains(t, out, "Summary - GPUs: none asked for")

	open := GPU(here)
	job := open.Jobs["gpu"]
	job.If = ""
	open.Jobs["gpu"] = job
	text, err := open.YAML("")
	require.NoError(t, err)
	r.write("open.yml", string(text))
	_, err = r.runs("pull_request", "pull_request", "open.yml")
	require.NoError(t, err, "the condition isn't what it fails for")
	require.FileExists(t, filepath.Join(r.kept, "berth-gpu/summary.md"))
	require.NoError(t, os.RemoveAll(filepath.Join(r.kept, "berth-gpu")))

	for _, payload := range []string{"fork", "deleted_fork"} {
		out, err = r.runs("pull_request", payload, path.Join(Dir, "berth-gpu.yml"))
		require.NoError(t, err)
		assert.NotContains(t, out, "Refuse forks", "no step runs")
		assert.NotContains(t, out, "Job succeeded")

		out, err = r.runs("pull_request", payload, "open.yml")
		require.Error(t, err)
		assert.Contains(t, out, "Failure - Main Refuse forks")
		assert.NotContains(t, out, "GPUs:")
		assert.NoDirExists(t, filepath.Join(r.kept, "berth-gpu"), "nothing is kept of a job that was refused")
	}
}
