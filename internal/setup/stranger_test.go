package setup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/moduletest"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/wheeltest"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// A stranger has a repository, and this module from a proxy: no checkout of it.
type stranger struct {
	*testing.T
	dir string
	env []string
}

func newStranger(t *testing.T, template string, files map[string][]byte) stranger {
	t.Helper()
	version, env := moduletest.Serve(t, "../..")
	s := stranger{t, filepath.Join(t.TempDir(), dockertest.Name(t)+" Ä"), append(env, "BERTH_ENGINE_SOURCE=source")}
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), data, 0o644))
	}
	setUp(t, s.dir, s.env, version, "-template="+template)
	return s
}

// types runs a command in a folder of the repository, and returns what it printed.
func (s stranger) types(folder string, command ...string) string {
	s.Helper()
	c := exec.CommandContext(s.Context(), command[0], command[1:]...)
	c.Dir, c.Env = filepath.Join(s.dir, folder), append(os.Environ(), s.env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	started := time.Now()
	require.NoError(s, c.Run(), "%s\n%s%s", strings.Join(command, " "), &out, &errs)
	s.Logf("%s: %.1f s", strings.Join(command, " "), time.Since(started).Seconds())
	return out.String()
}

func (s stranger) mage(args ...string) string {
	s.Helper()
	return s.types(".", append([]string{"go", "tool", "mage"}, args...)...)
}

// TestStranger does what a person does who sets Berth up in a folder of theirs: no
// git, blanks and letters beyond ASCII in its name.
func TestStranger(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an image")
	}
	docker := dockertest.Connect(t)
	s := newStranger(t, "shell", nil)
	assert.Contains(t, s.mage("-l"), "  verify   ")
	assert.Contains(t, s.mage("-h", "run"), "-cmd")
	if testenv.Long() {
		s.mage("pin")
	} else {
		// What this repository locks saves the time to resolve, and to fetch anew.
		for _, name := range []string{"packages.toml", "packages.lock"} {
			data, err := os.ReadFile(filepath.Join("../../docker", name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, "docker", name), data, 0o644))
		}
		files, err := filesOf("shell", choice{})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, "magefiles/berth.go"), files["magefiles/berth.go"], 0o644))
	}
	s.mage("pin", "-check")

	var first struct{ Image, ID, Digest string }
	require.NoError(t, json.Unmarshal([]byte(s.mage("build", "-json")), &first))
	t.Cleanup(func() { exec.Command("docker", "rmi", first.Image).Run() })
	have, err := docker.Image(t.Context(), first.Image)
	require.NoError(t, err)
	assert.Equal(t, first.ID, have.ID)
	assert.Contains(t, s.mage("build"), first.Digest+" (up to date)")
	out := s.mage("run", "-cmd=pwd; touch ~/here; grep -c PS1= /etc/bash.bashrc ~/.bashrc; echo $USER")
	assert.Contains(t, out, "/my_workspace\n/etc/bash.bashrc:")
	assert.FileExists(t, filepath.Join(s.dir, ".berth/home/here"))
	assert.Contains(t, s.mage("build"), "up to date", "what a container leaves in its home is no input")

	s.mage("-compile", "../berth") // relative to magefiles
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "deep/er"), 0o755))
	assert.Contains(t, s.types("deep/er", "../../berth", "run", "-cmd=pwd"), "/my_workspace/deep/er\n")
	assert.Contains(t, s.types("deep/er", "../../berth", "build"), first.Digest+" (up to date)")
	if testenv.Long() {
		assert.Contains(t, s.mage("verify"), first.Digest+" twice, bit for bit")
	}
}

// TestPyTorch trains an epoch in the image of the template.
func TestPyTorch(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it builds an image of more than a gigabyte, three times: mage test -long")
	}
	dockertest.Connect(t)
	s := newStranger(t, "pytorch", nil)
	s.mage("pin")
	var built struct{ Image, Digest string }
	require.NoError(t, json.Unmarshal([]byte(s.mage("build", "-json")), &built))
	t.Cleanup(func() { exec.Command("docker", "rmi", built.Image).Run() })
	out := s.mage("run", "-cmd=python3 train.py --epochs=1")
	t.Log(out)
	assert.Regexp(t, `test_acc = 0\.[6-9]`, out, "an epoch trains to three quarters, or so")
	assert.Contains(t, s.mage("verify"), built.Digest+" twice, bit for bit")
}

// TestWheels builds and tries the image of the template beside a pylock.toml: of a wheel with
// that name, as PyTorch's own is on no index near.
func TestWheels(t *testing.T) {
	if !testenv.Long() {
		t.Skip("it builds an image with Python, twice: mage test -long")
	}
	dockertest.Connect(t)
	torch := wheeltest.New(t, "torch", "9.9+cu130", "py3-none-any", map[string]string{"torch/__init__.py": "import importlib.metadata\n" +
		"__version__ = importlib.metadata.version('torch')\nclass ones(int):\n    __matmul__ = int.__mul__\n"})
	index := wheeltest.Serve(t, torch)
	s := newStranger(t, "pytorch", map[string][]byte{"pylock.toml": fmt.Appendf(nil, "lock-version = \"1.0\"\ncreated-by = \"test\"\n\n"+
		"[[packages]]\nname = \"torch\"\nversion = \"9.9+cu130\"\n\n[[packages.wheels]]\nname = %q\nurl = %q\nhashes = {sha256 = %q}\n",
		torch.File, index.FileURL(torch), torch.SHA256())})
	s.mage("pin")
	index.Close()
	var built struct{ Image, Digest string }
	require.NoError(t, json.Unmarshal([]byte(s.mage("build", "-json")), &built))
	t.Cleanup(func() { exec.Command("docker", "rmi", built.Image).Run() })
	s.mage("smoke")
	assert.Contains(t, s.mage("run", "-cmd=python3 -c 'import torch; print(torch.__version__)'"), "9.9+cu130\n")
	assert.Contains(t, s.mage("verify"), built.Digest+" twice, bit for bit")
}
