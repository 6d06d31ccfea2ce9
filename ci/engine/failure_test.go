package engine

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dagger.io/dagger"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/process"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Logs and errors of real builds, and what a person sees of them.
func TestFailures(t *testing.T) {
	dirs, err := filepath.Glob("testdata/failures/*")
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			read := func(name string) string {
				data, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				return string(data)
			}
			failed := errors.New(strings.TrimSuffix(read("error"), "\n"))
			got := ExplainFailure(failed, read("log")).Error("docker/Dockerfile", read("Dockerfile")).Error() + "\n"
			if *update {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "shown"), []byte(got), 0o644))
			}
			assert.Equal(t, read("shown"), got)
		})
	}
}

func TestFindStep(t *testing.T) {
	all := instructions("# escape=\\\nFROM a AS one\nRUN make \\\n\n  # why\n  all\nRUN <<A cat <<-\"B\"\nRUN make all\nA\n\tB\n" +
		"FROM b\nRUN make all\nRUN echo ${X:-y} $Z\nRUN same\nRUN same\n")
	at := func(stage, step string) (int, int) {
		in, _ := findStep(all, stage, step)
		return in.first, in.last
	}
	for _, c := range []struct {
		stage, step string
		first, last int
	}{
		{"one", "RUN make   all", 3, 6},
		{"stage-1", "RUN make all", 12, 12},
		{"", "RUN make all", 0, 0}, // two of them
		{"one", "RUN <<A cat <<-\"B\" (make all...)", 7, 10},
		{"stage-1", "RUN echo what (ever) 1", 13, 13},
		{"stage-1", "RUN same", 0, 0},
		{"stage-1", "RUN other", 0, 0},
	} {
		first, last := at(c.stage, c.step)
		assert.Equal(t, [2]int{c.first, c.last}, [2]int{first, last}, "%+v", c)
	}
}

func FuzzFailure(f *testing.F) {
	logs, err := filepath.Glob("testdata/failures/*/log")
	require.NoError(f, err)
	for _, name := range logs {
		log, err := os.ReadFile(name)
		require.NoError(f, err)
		dockerfile, err := os.ReadFile(filepath.Join(filepath.Dir(name), "Dockerfile"))
		require.NoError(f, err)
		f.Add("exit code: 3", string(log), string(dockerfile))
	}
	f.Fuzz(func(t *testing.T, failed, log, dockerfile string) {
		for _, in := range instructions(dockerfile) {
			if in.first < 1 || in.last < in.first || in.last > strings.Count(dockerfile, "\n")+1 {
				t.Errorf("%+v", in)
			}
		}
		assert.Error(t, ExplainFailure(errors.New(failed), log).Error("Dockerfile", dockerfile))
	})
}

// What the engine says today is still what the golden files were made from.
func TestFailureOfARealBuild(t *testing.T) {
	p := testProvider(t)
	log := &process.Tail{}
	p.LogOutput = log
	dir := programContext(t, "package main\n\nimport \"os\"\n\nfunc main() {\n\tprintln(\"it breaks\")\n\tos.Exit(7)\n}\n")
	e, err := p.connect(t.Context())
	require.NoError(t, err)
	_, err = e.Host().Directory(dir).DockerBuild(dagger.DirectoryDockerBuildOpts{}).Sync(t.Context())
	require.Error(t, err)
	require.NoError(t, e.Close())
	dockerfile, rerr := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	require.NoError(t, rerr)
	assert.EqualError(t, ExplainFailure(err, log.String()).Error("Dockerfile", string(dockerfile)), `building Dockerfile failed
 > [2/2] RUN ["/program"]:
   it breaks
Dockerfile:3
   1 |     FROM scratch
   2 |     COPY program /
   3 | >>> RUN ["/program"]
The step ended with exit code 7`)
	assert.NotContains(t, log.String(), "git remote")
}

func TestExplainCommand(t *testing.T) {
	// As Dagger said it of a hook that failed.
	err := errors.New(`cleanup failed: "runc delete container": /usr/local/bin/runc did not terminate successfully: exit status 1: ` +
		"container does not exist\n [traceparent:5d97a9a61779a45e84a0b745678ba20f-200b75ae846815f4]")
	const why = "runc run failed: unable to start container process: error during container init: error running hook #0: " +
		"error running hook: exit status 1, stdout: , stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded"
	log := "18  : withExec sh -c 'nvidia-smi' (expect: ANY)\n18  : [0.5s] | " + why + "\n18  : [0.5s] |\n"
	assert.EqualError(t, ExplainCommand(err, log), why)
	assert.EqualError(t, ExplainCommand(err, "18  : withExec echo '| runc run failed: x'\n"),
		`cleanup failed: "runc delete container": /usr/local/bin/runc did not terminate successfully: exit status 1: container does not exist`)
}

func FuzzExplainCommand(f *testing.F) {
	f.Add("18  : [0.5s] | runc run failed: no\n")
	f.Add("2   : ┆ [0.0s] | runc run failed: no")
	f.Fuzz(func(t *testing.T, log string) {
		assert.Error(t, ExplainCommand(errors.New("no"), log))
	})
}
