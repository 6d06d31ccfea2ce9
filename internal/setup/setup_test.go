package setup

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/moduletest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSetUp sets up repositories of all kinds, as a person types it. Nothing that was
// there changes, go.mod and .gitignore get lines, and a second run changes nothing.
func TestSetUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it asks for modules")
	}
	version, env := moduletest.Serve(t, "../..")
	for name, c := range map[string]struct {
		args  string
		files map[string]string
	}{
		"empty":   {"", nil},
		"pytorch": {"-template=pytorch", nil},
		"wheels":  {"-template=pytorch", map[string]string{"pylock.toml": "lock-version = \"1.0\"\n"}},
		"Python": {"", map[string]string{
			"pyproject.toml": "[project]\nname = \"x\"\n", "train.py": "print(1)\n", ".gitignore": "__pycache__/\n/berth",
		}},
		"Go": {"", map[string]string{
			"go.mod": "module example.com/mine\n\ngo 1.26\n\ntool golang.org/x/tools/cmd/stringer\n\nrequire (\n" +
				"\tgolang.org/x/mod v0.41.0 // indirect\n\tgolang.org/x/sync v0.23.0 // indirect\n\tgolang.org/x/tools v0.51.0 // indirect\n)\n",
			"main.go": "package main\n\nfunc main() {}\n",
		}},
		"Docker": {"", map[string]string{
			"docker/Dockerfile": "FROM scratch\nCOPY a /\n", ".dockerignore": "*\n!a\n", "a": "a\n", "Dockerfile": "FROM scratch\n",
		}},
		"half": {"", map[string]string{
			"docker/packages.toml": "# mine\n", ".gitignore": "/.berth/\n/artifacts/\n/berth\n/rootfs.tar\n/shell.tar\n/wheels.tar\n/magefiles/mage_output_file.go\n",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "Mein Projekt äöü")
			require.NoError(t, os.Mkdir(dir, 0o755))
			for file, text := range c.files {
				path := filepath.Join(dir, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}
			said := setUp(t, dir, env, version, strings.Fields(c.args)...)
			for file, text := range c.files {
				data, err := os.ReadFile(filepath.Join(dir, file))
				require.NoError(t, err)
				if file == "go.mod" {
					for _, kept := range []string{"module example.com/mine\n", "golang.org/x/tools/cmd/stringer\n", "golang.org/x/sync v0.23.0"} {
						assert.Contains(t, string(data), kept)
					}
					continue
				}
				assert.True(t, strings.HasPrefix(string(data), text), "%s was changed:\n%s", file, data)
			}
			before := tree(t, dir)
			again := setUp(t, dir, env, version, strings.Fields(c.args)...)
			assert.Equal(t, before, tree(t, dir), "a second run changes something")
			golden(t, "testdata/"+name+".golden", said+"\nThe second time:\n"+again)

			list := exec.Command("go", "tool", "mage", "-l")
			list.Dir, list.Env = dir, append(os.Environ(), env...)
			out, err := list.CombinedOutput()
			require.NoError(t, err, string(out))
			assert.Contains(t, string(out), "  build   ")
		})
	}
}

// setUp types go run.
func setUp(t *testing.T, dir string, env []string, version string, args ...string) string {
	t.Helper()
	c := exec.Command("go", append([]string{"run", moduletest.Path + "@" + version}, args...)...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	require.NoError(t, err, stderr.String())
	return string(out)
}

// tree is everything in a folder.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		all[name] = string(data)
		return err
	}))
	return all
}

func golden(t *testing.T, file, have string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(have), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), have)
}

func TestBaseStage(t *testing.T) {
	for text, has := range map[string]bool{
		"FROM scratch AS base\n": true, "x\nfrom a as base\r\n": true, "FROM base\n": false, "FROM a AS baseline\n": false, "# FROM a AS base\n": false,
	} {
		assert.Equal(t, has, baseStage.MatchString(strings.ReplaceAll(text, "\r", "")), text)
	}
	for _, has := range []bool{true, false} {
		files, err := filesOf("shell", choice{BaseStage: has})
		require.NoError(t, err)
		assert.Equal(t, has, strings.Contains(string(files["magefiles/berth.go"]), "BaseStage"))
	}
}

// TestPylock: beside a pylock.toml, PyTorch's template takes wheels instead of Debian's PyTorch.
func TestPylock(t *testing.T) {
	wheels := map[string]string{
		"docker/Dockerfile": "/wheels/install", "docker/Dockerfile.dockerignore": "!wheels.tar\n",
		"docker/packages.toml": `"python3-pip"`, "magefiles/berth.go": "wheels.Input{}",
	}
	for lock, template := range map[string]string{"pylock.toml": "pytorch", "Pylock": "pytorch", "pylock.toml ": "shell"} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, strings.TrimSpace(lock)), nil, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n\nrequire "+moduletest.Path+" v0.1.0\n\ntool "+mage+"\n"), 0o644))
		require.NoError(t, Run(t.Context(), Options{Dir: dir, Template: template}, func(Result) {}))
		for file, text := range wheels {
			data, err := os.ReadFile(filepath.Join(dir, file))
			require.NoError(t, err)
			assert.Equal(t, lock == "pylock.toml", strings.Contains(string(data), text), "%q, %s: %s\n%s", lock, template, file, data)
			assert.NotContains(t, string(data), "{{")
			assert.NotContains(t, string(data), "\n\n\n")
		}
	}
}

func TestModuleName(t *testing.T) {
	for dir, want := range map[string]string{"/a/My Project": "my-project", "/x/äö": "workspace", "/x/a.b_c": "a.b_c"} {
		assert.Equal(t, want, moduleName(dir))
	}
}

// TestNotHere refuses a folder in which nothing can be set up.
func TestNotHere(t *testing.T) {
	err := Run(t.Context(), Options{Dir: t.TempDir(), Template: "none"}, nil)
	assert.ErrorContains(t, err, "Choose one of pytorch, shell")
	_, _, err = required([]byte("module github.com/berthdev/berth\n"))
	assert.ErrorContains(t, err, "Change into yours")
	_, _, err = required([]byte("<<<<<<< HEAD\n"))
	assert.Error(t, err)
}
