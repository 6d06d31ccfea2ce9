package ci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/usage"
)

// withCommands is a project whose commands are quick.
func withCommands(p Project) Project {
	p.Lint = []string{"echo linted"}
	p.Test = []string{"echo tested; test -d magefiles"}
	p.Smoke = []string{"echo smoked", "echo 1 2.5 >$BERTH_LOSSES; echo 2 0.5 >>$BERTH_LOSSES"}
	return p
}

func stagesOf(r stage.Report) string {
	var all []string
	for _, s := range r.Stages {
		all = append(all, s.Stage+" "+string(s.State))
	}
	return strings.Join(all, ", ")
}

// TestPipelineBroken breaks each stage on purpose, and looks at the exit code and at all
// that is written. verify, which takes minutes, is broken in TestPipelineWhole.
func TestPipelineBroken(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an image")
	}
	dockertest.Connect(t)
	for name, c := range map[string]struct {
		change func(*Project)
		want   string
		code   int
		says   string
	}{
		"lint": {func(p *Project) { p.Lint = append(p.Lint, "echo a mistake >&2; false") },
			"lint failed, unit passed, build passed, smoke passed, verify skipped", ExitFailure, "a mistake"},
		"lint, by its pins": {func(p *Project) {
			appendTo(t, *p, "docker/packages.toml", "\n[[package]]\nname = \"hello\"\nwhy = \"to say so\"\n")
		},
			"lint failed, unit passed, build passed, smoke passed, verify skipped", ExitPinsDiffer, "hello"},
		"lint, by what isn't pinned": {func(p *Project) {
			flows := p.Path(".github/workflows")
			require.NoError(t, os.MkdirAll(flows, 0o755))
			text := "on: push\njobs:\n  a:\n    steps:\n      - uses: example/action@v1\n"
			require.NoError(t, os.WriteFile(filepath.Join(flows, "x.yml"), []byte(text), 0o644))
		},
			"lint failed, unit passed, build passed, smoke passed, verify skipped", ExitFailure, "uses: example/action@v1 names no commit"},
		"unit": {func(p *Project) { p.Test = []string{"exit 3"} },
			"lint passed, unit failed, build passed, smoke passed, verify skipped", ExitFailure, "exit code 3"},
		"build": {func(p *Project) { appendTo(t, *p, "docker/Dockerfile", "RUN echo no such thing >&2; false\n") },
			"lint passed, unit passed, build failed, smoke skipped, verify skipped", ExitFailure, "no such thing"},
		"smoke": {func(p *Project) { p.Smoke = append(p.Smoke, "echo no kernel; exit 143") }, // as if TERM had ended it
			"lint passed, unit passed, build passed, smoke failed, verify skipped", ExitFailure, "no kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			p := withCommands(checkout(t, 0o022))
			c.change(&p)
			report, err := Pipeline(t.Context(), p, PipelineOptions{GPUs: "none"})
			require.Error(t, err)
			assert.Equal(t, c.code, ExitCode(err), "%v", err)
			assert.Equal(t, c.want, stagesOf(report))
			files := map[string]string{}
			for _, name := range []string{"report.json", "junit.xml", "summary.md"} {
				text, err := os.ReadFile(p.Path("artifacts/ci/" + name))
				require.NoError(t, err)
				files[name] = string(text)
				assert.Contains(t, string(text), c.says, name)
			}
			var read stage.Report
			require.NoError(t, json.Unmarshal([]byte(files["report.json"]), &read))
			assert.Equal(t, stagesOf(report), stagesOf(read))
			checks, err := stage.ReadJUnit([]byte(files["junit.xml"]))
			require.NoError(t, err)
			broken, _, _ := strings.Cut(name, ",")
			var failed []string
			for _, k := range checks {
				if k.Failure != "" {
					failed = append(failed, strings.Fields(k.Group)[0])
				}
			}
			assert.Equal(t, []string{broken}, failed)
			left, err := filepath.Glob(p.Path("artifacts/ci/command-*"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

func TestPipelinePasses(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an image")
	}
	dockertest.Connect(t)
	p := withCommands(checkout(t, 0o022))
	signalled := make(chan os.Signal, 1)
	signal.Notify(signalled, syscall.SIGHUP)
	defer signal.Stop(signalled)
	report, err := Pipeline(t.Context(), p, PipelineOptions{Only: "lint,unit,build,smoke", GPUs: "none"})
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	<-signalled // smoke has left the signals to other stages, which may last longer
	assert.Equal(t, "lint passed, unit passed, build passed, smoke passed", stagesOf(report))
	smoke := report.Stages[3]
	assert.Len(t, smoke.Checks, 2)
	assert.Equal(t, []stage.Curve{{Name: p.Smoke[1], Steps: []float64{1, 2}, Losses: []float64{2.5, 0.5}}}, smoke.Curves)
	require.Len(t, smoke.Notes, 1, "one loud line")
	assert.Contains(t, smoke.Notes[0], "NO GPU")
	log, err := os.ReadFile(p.Path("artifacts/ci/smoke.log"))
	require.NoError(t, err)
	assert.Contains(t, string(log), "smoked\n")
}

// TestPipelineWhole proves the image twice: once it holds, once it differs.
func TestPipelineWhole(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it builds four times from nothing: mage test -long")
	}
	dockertest.Connect(t)
	p := withCommands(checkout(t, 0o022))
	report, err := Pipeline(t.Context(), p, PipelineOptions{})
	require.NoError(t, err)
	assert.Equal(t, "lint passed, unit passed, build passed, smoke passed, verify passed", stagesOf(report))
	appendTo(t, p, "docker/Dockerfile", "RUN date +%N >/stamp\n")
	report, err = Pipeline(t.Context(), p, PipelineOptions{})
	require.ErrorIs(t, err, ErrNotReproducible)
	assert.Equal(t, ExitFailure, ExitCode(err))
	assert.Equal(t, "lint passed, unit passed, build passed, smoke passed, verify failed", stagesOf(report))
	assert.Contains(t, report.Markdown(), "/stamp")
}

func TestPipelineOptions(t *testing.T) {
	p := withCommands(checkout(t, 0o022))
	_, err := Pipeline(t.Context(), p, PipelineOptions{Only: "lint,nonsense"})
	require.ErrorIs(t, err, usage.Err)
	assert.ErrorContains(t, err, "lint, unit, build, smoke, verify")
	assert.NoFileExists(t, p.Path("artifacts/ci/report.json"), "bad input changes nothing")
	_, err = Pipeline(t.Context(), p, PipelineOptions{Only: "unit", InImage: true})
	require.ErrorIs(t, err, usage.Err)
	assert.ErrorContains(t, err, "TestStage")
}

// TestUnitTestsInTheImage runs commands in the test stage: what passed isn't run again,
// what failed is, and there is no network.
func TestUnitTestsInTheImage(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an image")
	}
	dockertest.Connect(t)
	p := checkout(t, 0o022)
	p.TestStage, p.TestIgnore = "test", "docker/test.dockerignore"
	try := func(command string) (stage.Result, string) {
		p.Test = []string{command}
		report, err := Pipeline(t.Context(), p, PipelineOptions{Only: "unit", InImage: true})
		require.Len(t, report.Stages, 1, "%v", err)
		log, err := os.ReadFile(report.Stages[0].Log)
		require.NoError(t, err)
		return report.Stages[0], string(log)
	}
	const passes = `date +%s.%N; ls /sys/class/net; echo '<testsuite><testcase name="mine"/></testsuite>' >$BERTH_JUNIT`
	first, said := try(passes)
	assert.Equal(t, stage.Passed, first.State, first.Why)
	assert.Equal(t, []stage.Check{{Name: "mine"}}, first.Checks)
	assert.Equal(t, []string{"lo"}, strings.Fields(said)[1:], "networks")
	again, saidAgain := try(passes)
	assert.Equal(t, stage.Passed, again.State)
	assert.Equal(t, said, saidAgain, "it ran again")

	const fails = "date +%s.%N; exit 3"
	failed, said := try(fails)
	assert.Equal(t, stage.Failed, failed.State)
	assert.Contains(t, failed.Checks[0].Failure, "exit code 3")
	_, saidAgain = try(fails)
	assert.NotEqual(t, said, saidAgain, "a failure came from the cache")

	packages := "./trainer/report ./trainer/data"
	if testenv.Long() {
		packages = "./trainer/..."
	}
	command := "go test -json -short " + packages
	inside, _ := try(command)
	p.Test = []string{command}
	report, err := Pipeline(t.Context(), p, PipelineOptions{Only: "unit"})
	require.NoError(t, err)
	assert.NotEmpty(t, inside.Checks)
	assert.Equal(t, verdicts(report.Stages[0].Checks), verdicts(inside.Checks))
	start := time.Now()
	_, _ = try(command)
	t.Logf("a cached re-run took %s", time.Since(start))
}

// verdicts says of each check whether it failed. What a machine can't do, such as mount, is
// left out by its tests.
func verdicts(checks []stage.Check) map[string]string {
	all := map[string]string{}
	for _, c := range checks {
		all[c.Group+" "+c.Name] = fmt.Sprint("failed: ", c.Failure != "")
	}
	return all
}

func TestTrialChecks(t *testing.T) {
	goTest := []byte(`{"Action":"fail","Package":"x","Test":"TestA"}` + "\n" + `{"Action":"pass","Package":"x","Test":"TestB"}` + "\n")
	for name, c := range map[string]struct {
		t      trial
		names  string
		failed int
	}{
		"passed":                         {trial{command: "c"}, "c", 0},
		"failed":                         {trial{command: "c", code: 2, output: []byte("out\x00put")}, "c", 1},
		"tests of its own":               {trial{command: "c", code: 1, output: goTest}, "TestA TestB", 1},
		"failed though its tests passed": {trial{command: "c", code: 1, junit: []byte(`<testsuite><testcase name="a"/></testsuite>`)}, "a c", 1},
		"passed though a test failed":    {trial{command: "c", output: goTest}, "TestA TestB c", 2},
		"what it wrote isn't JUnit":      {trial{command: "c", junit: []byte("no")}, "c", 1},
		"no tests":                       {trial{command: "c", junit: []byte("<testsuite/>")}, "c", 0},
	} {
		var names []string
		failed := 0
		for _, k := range c.t.checks() {
			names = append(names, k.Name)
			if k.Failure != "" {
				failed++
			}
		}
		assert.Equal(t, c.names, strings.Join(names, " "), name)
		assert.Equal(t, c.failed, failed, name)
	}
}
