package ci

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"dagger.io/dagger"

	"github.com/berthdev/berth/ci/stage"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/process"
	"github.com/berthdev/berth/internal/usage"
)

// killDelay is how long a command of the project's may take to end once a person asks
// for it.
const killDelay = 5 * time.Second

// onHost runs a command by the shell of this machine, in the project's root.
func (l *pipeline) onHost(ctx context.Context, r *stage.Recorder, command string, f files) (int, error) {
	c := exec.CommandContext(ctx, "sh", "-c", command)
	c.Dir, c.Stdout, c.Stderr = l.project.Root, r.Log, r.Log
	c.Env = append(os.Environ(), f.env()...)
	err := process.RunGroup(c, killDelay)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// outcome is the folder of a container in which a command in the test stage leaves how
// it ended.
const outcome = "/berth-outcome"

// inImage runs a command in the project's test stage, without a network. One that passed
// on the same inputs isn't run again: its output is there at once. One that failed is.
func (l *pipeline) inImage(ctx context.Context, r *stage.Recorder, command string, f files) (code int, err error) {
	p := l.project
	p.testing = true
	if p.TestStage == "" {
		return 0, fmt.Errorf("-in=image: %w: the project names no stage of %s to test in. Set TestStage in its magefile", usage.Err, p.Dockerfile)
	}
	in, err := ReadInputs(p)
	if err != nil {
		return 0, err
	}
	dir, err := cache.Open()
	if err != nil {
		return 0, err
	}
	salt := dir.Path("failures", fmt.Sprintf("%x.json", sha256.Sum256(fmt.Appendf(nil, "%q %q", p.Root, command))))
	var failures int
	cache.ReadRecord(salt, &failures)
	m := maker{project: p, inputs: in, cache: dir, entries: string(dir), report: r.Report}
	s, err := m.stage(ctx)
	if err != nil {
		return 0, err
	}
	defer s.close()
	name := p.Dockerfile + ".berth-test"
	ignored := []string{name, name + ".dockerignore"}
	if len(s.bases) > 0 {
		ignored = append(ignored, s.dockerfile, s.dockerfile+".dockerignore")
	}
	built := s.staged().WithNewFile(name, testDockerfile(string(s.text), p.TestStage, command, failures)).
		WithNewFile(name+".dockerignore", strings.Join(ignored, "\n")).
		DockerBuild(dagger.DirectoryDockerBuildOpts{Dockerfile: name})
	if _, err := built.Directory(outcome).Export(ctx, filepath.Dir(f.junit)); err != nil {
		return 0, s.explain(err)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(f.junit), "code"))
	if err == nil {
		code, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		return 0, fmt.Errorf("reading how the command ended: %w", err)
	}
	output, err := os.ReadFile(filepath.Join(filepath.Dir(f.junit), "output"))
	if err != nil {
		return 0, err
	}
	if _, err := r.Log.Write(output); err != nil {
		return 0, err
	}
	if code != 0 {
		return code, cache.WriteRecord(salt, failures+1)
	}
	return 0, nil
}

// testDockerfile is a Dockerfile with one more stage, the last, in which a command has run.
// That stage is made whether the command passes or not, so that what it wrote can be
// read; the number of failures before keeps a failure from being taken for the next one's.
// Whoever the stage's user is may write there: root makes the folder, in a stage of its own.
func testDockerfile(dockerfile, stage, command string, failures int) string {
	script := fmt.Sprintf("(%s\n) >%s/output 2>&1; echo $? >%s/code", command, outcome, outcome)
	argv, _ := json.Marshal([]string{"sh", "-c", script})
	return fmt.Sprintf("%s\nFROM %s AS berth-outcome\nUSER 0\nRUN mkdir -p /made%s && chmod 777 /made%s\n"+
		"FROM %s\nCOPY --from=berth-outcome /made/ /\nENV %s=%s/junit.xml %s=%s/losses BERTH_FAILURES=%d\nRUN --network=none %s\n",
		dockerfile, stage, outcome, outcome, stage, envJUnit, outcome, envLosses, outcome, failures, argv)
}
