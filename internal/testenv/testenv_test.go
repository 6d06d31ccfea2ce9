package testenv

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRequires(t *testing.T) {
	for list, want := range map[string]bool{"": false, "docker,root": true, "docker, root ": true, "docker": false, "root": true} {
		have, err := requires(list, Root)
		assert.NoError(t, err)
		assert.Equal(t, want, have, list)
	}
	for _, list := range []string{"docker,rot", "Root", "docker;root"} {
		_, err := requires(list, Docker)
		assert.ErrorContains(t, err, "no test needs", list)
	}
	_, err := requires("", "nonsense")
	assert.ErrorContains(t, err, `no test needs "nonsense"`)
}

// TestSkip skips in a process of its own, whose end tells what became of it.
func TestSkip(t *testing.T) {
	if os.Getenv("BERTH_TEST_SKIP") != "" {
		NeedsCommand(t, DpkgDeb, "no such command")
		return
	}
	run := func(require string) (string, error) {
		c := exec.Command(os.Args[0], "-test.run=^TestSkip$", "-test.v")
		c.Env = append(os.Environ(), "BERTH_TEST_SKIP=1", envRequire+"="+require)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	out, err := run("root")
	assert.NoError(t, err)
	assert.Contains(t, out, "--- SKIP")
	assert.Contains(t, out, "needs dpkg-deb: ")
	out, err = run("root,dpkg-deb")
	assert.Error(t, err)
	assert.Contains(t, out, "BERTH_TEST_REQUIRE lists dpkg-deb, but ")
	out, err = run("rooot")
	assert.Error(t, err)
	assert.Contains(t, out, `no test needs "rooot"`)
}
