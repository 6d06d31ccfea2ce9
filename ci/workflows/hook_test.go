package workflows

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// A jobStart is what a runner tells its hook.
type jobStart struct {
	event, payload      string // the event's name, and its payload: a file of testdata/events, without .json
	repository, allowed string
}

// env is the environment of the hook, which has nothing of this process's.
func (j jobStart) env(t *testing.T) []string {
	payload, err := filepath.Abs("testdata/events/" + j.payload + ".json")
	require.NoError(t, err)
	if filepath.IsAbs(j.payload) {
		payload = j.payload
	}
	return []string{"GITHUB_EVENT_NAME=" + j.event, "GITHUB_EVENT_PATH=" + payload, "GITHUB_REPOSITORY=" + j.repository,
		"BERTH_RUNNER_REPOSITORIES=" + j.allowed}
}

const (
	harbour = "harbour/ships"
	both    = "harbour/boats,harbour/ships"

	none     = "the event is none of those"
	fork     = "the pull request comes from a fork"
	another  = "the repository is another"
	noObject = "not one JSON object"
)

func TestHook(t *testing.T) {
	testenv.NeedsCommand(t, testenv.JQ, "/usr/bin/jq")
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "event.json")
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	push, err := os.ReadFile("testdata/events/push.json")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		jobStart
		refused string // why; "" if it isn't
	}{
		"a push":                                 {jobStart{"push", "push", harbour, harbour}, ""},
		"a manual run":                           {jobStart{"workflow_dispatch", "workflow_dispatch", harbour, both}, ""},
		"a pull request":                         {jobStart{"pull_request", "pull_request", harbour, both}, ""},
		"a fork's pull request":                  {jobStart{"pull_request", "fork", harbour, both}, fork},
		"a fork that is gone":                    {jobStart{"pull_request", "deleted_fork", harbour, harbour}, fork},
		"pull_request_target":                    {jobStart{"pull_request_target", "fork", harbour, harbour}, none},
		"pull_request_target, same repository":   {jobStart{"pull_request_target", "pull_request", harbour, harbour}, none},
		"a run after a fork's":                   {jobStart{"workflow_run", "workflow_run", harbour, harbour}, none},
		"a comment":                              {jobStart{"issue_comment", "issue_comment", harbour, harbour}, none},
		"a fork's own push":                      {jobStart{"push", "push_of_fork", "stranger/ships", harbour}, another},
		"a fork's own push, under a false name":  {jobStart{"push", "push_of_fork", harbour, harbour}, "the event is of another repository"},
		"a push as a pull request":               {jobStart{"pull_request", "push", harbour, harbour}, fork},
		"a repository that isn't on the list":    {jobStart{"push", "push", harbour, "harbour/boats"}, another},
		"the beginning of one that is":           {jobStart{"push", "push", harbour, "harbour/ships2"}, another},
		"no list":                                {jobStart{"push", "push", harbour, ""}, another},
		"no repository, and a list that is rash": {jobStart{"push", "push", "", ",,"}, another},
		"no event":                               {jobStart{"", "push", harbour, harbour}, none},
		"no payload":                             {jobStart{"push", "/nonexistent", harbour, harbour}, "can't be read"},
		"an empty payload":                       {jobStart{"push", file(""), harbour, harbour}, noObject},
		"half a payload":                         {jobStart{"push", file(string(push[:len(push)/2])), harbour, harbour}, "can't be read"},
		"two payloads":                           {jobStart{"push", file(string(push) + string(push)), harbour, harbour}, noObject},
		"a list":                                 {jobStart{"push", file("[" + string(push) + "]"), harbour, harbour}, noObject},
		"words":                                  {jobStart{"push", file(`"pass"`), harbour, harbour}, noObject},
		"a repository that is no object":         {jobStart{"push", file(`{"repository": "harbour/ships"}`), harbour, harbour}, "another repository"},
		"a pull request that is no object": {jobStart{"pull_request",
			file(`{"repository": {"full_name": "harbour/ships"}, "pull_request": "harbour/ships"}`), harbour, harbour}, "can't be read"},
	} {
		for _, shell := range []string{"bash", "sh"} { // a runner takes the first that there is
			var out bytes.Buffer
			hook := exec.Command(shell, "-e", "runner-hook.sh")
			hook.Env, hook.Stdout, hook.Stderr = c.env(t), &out, &out
			err := hook.Run()
			if c.refused == "" {
				assert.NoError(t, err, "%s: %s", name, &out)
				assert.Empty(t, out.String(), name)
				continue
			}
			assert.Equal(t, 1, hook.ProcessState.ExitCode(), "%s: %s", name, &out)
			assert.Contains(t, out.String(), "::error::Refused: ", name)
			assert.Contains(t, out.String(), c.refused, name)
			assert.NotContains(t, out.String(), "stranger", "%s: what a stranger wrote isn't printed", name)
			assert.NoFileExists(t, "owned", name)
		}
	}
}

// TestHookNeedsJQ runs the hook where no program is.
func TestHookNeedsJQ(t *testing.T) {
	path := []byte("PATH=/usr/local/bin:/usr/bin:/bin")
	require.Contains(t, string(RunnerHook), string(path))
	name := filepath.Join(t.TempDir(), "hook.sh")
	require.NoError(t, os.WriteFile(name, bytes.Replace(RunnerHook, path, []byte("PATH="+t.TempDir()), 1), 0o700))
	hook := exec.Command("sh", "-e", name)
	hook.Env = jobStart{"push", "push", harbour, harbour}.env(t)
	out, err := hook.CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), "jq isn't installed on the runner")
}

// TestHookEndsTheJob has a runner that goes on after a hook that failed, as the real one
// does with steps that have "if: always()", and one that also tries to end the hook.
func TestHookEndsTheJob(t *testing.T) {
	testenv.NeedsCommand(t, testenv.JQ, "/usr/bin/jq")
	hook, err := filepath.Abs("runner-hook.sh")
	require.NoError(t, err)
	for _, c := range []struct {
		payload, before string
		ends            bool
	}{
		{"pull_request", "", false},
		{"fork", "", true},
		{"fork", "while kill -0 $! && ! grep -q Refused log; do sleep 0.1; done\nkill -INT $!\nkill -TERM $!\n", true},
	} {
		dir := t.TempDir()
		worker := filepath.Join(dir, "Runner.Worker")
		script := "#!/bin/sh\nbash -e '" + hook + "' >log 2>&1 &\n" + c.before + "wait $!\n: >always\n"
		require.NoError(t, os.WriteFile(worker, []byte(script), 0o700))
		job := exec.Command(worker)
		job.Dir, job.Env = dir, append(jobStart{"pull_request", c.payload, harbour, harbour}.env(t), "PATH="+os.Getenv("PATH"))
		err := job.Run()
		if !c.ends {
			assert.NoError(t, err)
			assert.FileExists(t, filepath.Join(dir, "always"))
			continue
		}
		assert.Error(t, err)
		assert.Equal(t, syscall.SIGKILL, job.ProcessState.Sys().(syscall.WaitStatus).Signal())
		assert.NoFileExists(t, filepath.Join(dir, "always"))
	}
}

// TestHookIgnoresWhatJobsLeft has a jq that is told to find everything in order.
func TestHookIgnoresWhatJobsLeft(t *testing.T) {
	testenv.NeedsCommand(t, testenv.JQ, "/usr/bin/jq")
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".jq"), []byte(`def length: "pass" | halt_error(0);`), 0o600))
	hook := exec.Command("bash", "-e", "runner-hook.sh")
	hook.Env = append(jobStart{"pull_request", "fork", harbour, harbour}.env(t), "HOME="+home)
	out, err := hook.CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), fork)
}

// TestStep runs the step that refuses forks by itself.
func TestStep(t *testing.T) {
	for _, c := range []struct {
		event, head string
		passes      bool
	}{
		{"push", "", true},
		{"workflow_dispatch", "", true},
		{"pull_request", harbour, true},
		{"pull_request", "stranger/ships", false},
		{"pull_request", "", false}, // the fork is gone
		{"pull_request_target", harbour, false},
		{"workflow_run", "", false},
		{"", harbour, false},
	} {
		step := exec.Command("bash", "-e", "-c", refuse.Run)
		step.Env = []string{"GITHUB_EVENT_NAME=" + c.event, "HEAD_REPOSITORY=" + c.head, "GITHUB_REPOSITORY=" + harbour}
		out, err := step.CombinedOutput()
		assert.Equal(t, c.passes, err == nil, "%+v: %s", c, out)
		assert.Equal(t, !c.passes, bytes.Contains(out, []byte("nothing of forks")), "%+v: %s", c, out)
	}
}
