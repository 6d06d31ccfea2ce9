package ci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/moduletest"
)

// compiled is the binary of the targets, as `mage -compile` makes it, for a
// project of the tests' name.
var compiled = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth-test-")
	if err != nil {
		return "", err
	}
	removeCompiled = func() { os.RemoveAll(dir) }
	const name = `"demo-cnn"`
	copied, magefile := filepath.Join(dir, "copy"), filepath.Join(dir, "copy", "magefiles", "magefile.go")
	if err := moduletest.Copy("..", copied); err != nil {
		return "", err
	}
	text, err := os.ReadFile(magefile)
	if err != nil {
		return "", err
	} else if strings.Count(string(text), name) != 1 {
		return "", fmt.Errorf("%s doesn't have the name %s once", magefile, name)
	}
	if err := os.WriteFile(magefile, []byte(strings.Replace(string(text), name, strconv.Quote(project.Name), 1)), 0o644); err != nil {
		return "", err
	}
	c := exec.Command("go", "tool", "mage", "-compile", filepath.Join(dir, "berth"))
	c.Dir = copied
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(dir, "berth"), nil
})

// removeCompiled removes the binary, if it was made.
var removeCompiled = func() {}

// berth runs a target in dir and returns what it printed and its exit code.
func berth(t *testing.T, dir string, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	binary, err := compiled()
	require.NoError(t, err)
	c := exec.CommandContext(t.Context(), binary, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

func TestExitCodes(t *testing.T) {
	stale := checkout(t, 0o022)
	appendTo(t, stale, "docker/packages.toml", "\n[[package]]\nname = \"hello\"\nwhy = \"to say so\"\n")
	broken := checkout(t, 0o022)
	appendTo(t, broken, lockFile, "package hello\n")
	unknown := checkout(t, 0o022)
	appendTo(t, unknown, "docker/packages.toml", "\n[nonsense]\n")
	older := checkout(t, 0o022)
	writeFile(t, older, "go.mod", strings.Replace(readFile(t, older, "go.mod"), "\ngo 1.26", "\ngo 1.99", 1))
	noGo := checkout(t, 0o022)
	require.NoError(t, os.Remove(noGo.Path(goLockFile)))
	noDocker := []string{"DOCKER_HOST=unix:///nowhere/docker.sock"}

	for name, c := range map[string]struct {
		dir  string
		env  []string
		args string
		code int
		says string
	}{
		"pins as asked for":        {project.Root, nil, "pin -check", 0, ""},
		"pins differ":              {stale.Root, nil, "pin -check", ExitPinsDiffer, "not locked: hello"},
		"pins differ, advice":      {stale.Root, nil, "pin -check", ExitPinsDiffer, "berth pin"},
		"another Go than go.mod's": {older.Root, nil, "pin -check", ExitPinsDiffer, "docker/golang.lock locks 1."},
		"no Go locked":             {noGo.Root, nil, "build", ExitFailure, "no toolchain is locked"},
		"a lock cut short":         {broken.Root, nil, "build", ExitFailure, `"package hello" is no line of a lock`},
		"an unknown key":           {unknown.Root, nil, "pin -check", ExitFailure, `what is "nonsense"?`},
		"no checkout":              {t.TempDir(), nil, "build", ExitUsage, "isn't in a project"},
		"no such flag":             {project.Root, nil, "build -nonsense=1", ExitUsage, "nonsense"},
		"no such target":           {project.Root, nil, "nonsense", ExitUsage, "nonsense"},
		"Docker isn't running":     {project.Root, noDocker, "build", ExitPrerequisite, "sudo systemctl start docker"},
		"the same, for run":        {project.Root, noDocker, "run -cmd=true", 125, "sudo systemctl start docker"},
		"the same, for engines":    {project.Root, noDocker, "engine:status", ExitPrerequisite, "sudo systemctl start docker"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := berth(t, c.dir, c.env, strings.Fields(c.args)...)
			assert.Equal(t, c.code, code, stderr)
			assert.Contains(t, stderr, c.says)
		})
	}
}

func TestBuildAndRunByHand(t *testing.T) {
	dockertest.Connect(t)
	p := checkout(t, 0o022)
	build(t, p, "")
	stdout, stderr, code := berth(t, filepath.Join(p.Root, "docker"), nil, "build", "-json")
	require.Zero(t, code, stderr)
	var r Result
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	assert.True(t, r.Cached)
	assert.Equal(t, project.Tag(), r.Image)

	// From a folder of the checkout to the same folder inside, with the command's
	// own exit code.
	stdout, stderr, code = berth(t, filepath.Join(p.Root, "docker"), nil, "run", "-cmd=pwd; ls /usr/share/datasets/fashion-mnist; exit 42")
	assert.Equal(t, 42, code, stderr)
	assert.Contains(t, stdout, "/my_workspace/docker\n")
	assert.Contains(t, stdout, "train-images-idx3-ubyte.gz")
}

// TestTrain trains as a person does, on the sample, in a checkout of its own.
func TestTrain(t *testing.T) {
	dockertest.Connect(t)
	p := checkout(t, 0o022)
	_, stderr, code := berth(t, filepath.Join(p.Root, "docker"), nil, "build")
	require.Zero(t, code, stderr)
	stdout, stderr, code := berth(t, filepath.Join(p.Root, "docker"), nil, "train", "-epochs=2",
		"-args=--data-dir=testdata/fashion-mnist-1000 --batch-size=100")
	require.Zero(t, code, stderr)
	assert.Contains(t, stdout, "[ 2/ 2] Time elapsed: ")

	var record struct {
		Outcome string
		Digest  string `json:"image_digest"`
		Sum     string `json:"checkpoint_sha256"`
		Epochs  []struct{}
	}
	require.NoError(t, json.Unmarshal([]byte(readFile(t, p, "artifacts/train/run.json")), &record))
	assert.Equal(t, "finished", record.Outcome)
	assert.Len(t, record.Epochs, 2)
	stdout, stderr, code = berth(t, p.Root, nil, "build", "-json")
	require.Zero(t, code, stderr)
	var built Result
	require.NoError(t, json.Unmarshal([]byte(stdout), &built))
	assert.Equal(t, built.Digest, record.Digest, "the record names the image")
	assert.FileExists(t, p.Path("artifacts/train/curve.png"))
	assert.FileExists(t, p.Path("artifacts/train/trainer.checkpoint"))

	// Outside of the image: the same program from the same source, to the same bits.
	outside := exec.CommandContext(t.Context(), "go", "run", "./trainer", "train", "--num-epochs=2", "--data-dir=testdata/fashion-mnist-1000",
		"--batch-size=100",
		"--num-workers=1", "--checkpoint-dir=", "--json="+p.Path("outside.json"))
	outside.Dir = project.Root
	out, err := outside.CombinedOutput()
	require.NoError(t, err, string(out))
	inside := record.Sum
	require.NoError(t, json.Unmarshal([]byte(readFile(t, p, "outside.json")), &record))
	assert.Equal(t, inside, record.Sum)

	// What was begun can be gone on with.
	stdout, stderr, code = berth(t, p.Root, nil, "train", "-epochs=3", "-args=--resume --data-dir=testdata/fashion-mnist-1000")
	require.Zero(t, code, stderr)
	assert.Contains(t, stdout, "Resuming after step 16, 2 of 3 epochs are done")
}

func TestData(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, code := berth(t, project.Root, []string{"DOCKER_HOST=unix:///nowhere"}, "data", "-o="+dir)
	require.Zero(t, code, stderr)
	assert.Len(t, strings.Fields(stdout), 4)
	info, err := os.Stat(filepath.Join(dir, "train-images-idx3-ubyte.gz"))
	require.NoError(t, err)
	assert.Greater(t, info.Size(), int64(20e6))
}

func TestSmoke(t *testing.T) {
	dockertest.Connect(t)
	stdout, stderr, code := berth(t, checkout(t, 0o022).Root, nil, "smoke")
	require.Zero(t, code, stdout+stderr)
	assert.Regexp(t, `(?m)^trainer smoke .*: ok \(\d+\.\d s\)$`, stdout)
}

func TestImageIsSound(t *testing.T) {
	dockertest.Connect(t)
	p := checkout(t, 0o022)
	build(t, p, "")
	stdout, stderr, code := berth(t, p.Root, nil, "run", "-cmd=dpkg --audit && dpkg -l | grep -c ^ii && "+
		"dpkg --verify | grep -v ' c /etc/bash.bashrc$'; echo $LANG; ls -d /usr/lib/x86_64-linux-gnu/libEGL.so.1")
	require.Zero(t, code, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 3, stdout)
	lock, err := debian.ReadLock(p.Path(lockFile))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(len(lock.Packages)), lines[0], "not every package is installed")
	assert.Equal(t, "C.UTF-8", lines[1])
}
