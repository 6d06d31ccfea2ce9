package ci

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/ci/wheels"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
	"github.com/berthdev/berth/internal/wheeltest"
)

// withWheels is a project whose image has the Python and pip of a suite of Debian, and
// wheels of all kinds, served on loopback. python is the Python's second number.
func withWheels(t *testing.T, suite, python string) (Project, *wheeltest.Index) {
	t.Helper()
	if len(debian.HostMirrors()["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	const nvidia = "# shared by all of them\n"
	all := []wheeltest.Wheel{
		wheeltest.New(t, "pure", "1.0", "py3-none-any", map[string]string{
			"pure/__init__.py":                    "def main(): print('pure', __file__)\nassert 'd' not in {'a', 'b', 'c'}\n",
			"pure/py2.py":                         "print 'no Python 3 compiles this'\n",
			"pure-1.0.dist-info/entry_points.txt": "[console_scripts]\npure = pure:main\n",
		}),
		wheeltest.New(t, "stable", "2.0", "cp38-abi3-manylinux2014_x86_64", map[string]string{"stable.abi3.so": wheeltest.Extension(t,
			"stable", 42)}),
		wheeltest.New(t, "Own_Build", "3.0+cu128", "cp3"+python+"-cp3"+python+"-linux_x86_64", map[string]string{
			"ownbuild.cpython-3" + python + "-x86_64-linux-gnu.so": wheeltest.Extension(t, "ownbuild", 43),
		}),
		wheeltest.New(t, "data", "4", "py3-none-any", map[string]string{
			"data-4.data/scripts/data-tool":        "#!python\nimport datamodule; print('data', datamodule.x)\n",
			"data-4.data/data/share/data/file.txt": "text\n", "data-4.data/purelib/datamodule.py": "x = 4\n",
			"data-4.data/headers/data.h": "// a header\n",
		}),
		wheeltest.New(t, "nvidia-a", "1", "py3-none-manylinux_2_27_x86_64", map[string]string{"nvidia/__init__.py": nvidia,
			"nvidia/a/lib.so": "a"}),
		wheeltest.New(t, "nvidia-b", "1", "py3-none-manylinux_2_27_x86_64", map[string]string{"nvidia/__init__.py": nvidia,
			"nvidia/b/lib.so": "b"}),
	}
	index := wheeltest.Serve(t, all...)
	text := "lock-version = \"1.0\"\nrequires-python = \">=3.9\"\n"
	for _, w := range all {
		text += fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\nindex = %q\nwheels = [{url = %q, size = %d, hashes = {sha256 = %q}}]\n",
			strings.ReplaceAll(strings.ToLower(w.Name), "_", "-"), w.Version, index.HTML()+"/", index.FileURL(w), len(w.Data), w.SHA256())
	}
	packages := "architecture = \"amd64\"\n"
	for archive, name := range map[string]string{"debian": suite, "debian-security": suite + "-security"} {
		packages += fmt.Sprintf("[[suite]]\narchive = %q\nname = %q\ncomponents = [\"main\"]\n", archive, name)
	}
	for _, name := range []string{"python3", "python3-pip", "mawk", "passwd"} {
		packages += fmt.Sprintf("[[package]]\nname = %q\nwhy = \"the wheels need it\"\n", name)
	}
	p := Project{
		Root: tree(t, map[string]string{
			"docker/Dockerfile": strings.NewReplacer("FROM base\n", documented(t, "dockerfile"), "ADD shell.tar /\n",
				"").Replace(ofSetUp(t, "common/docker/Dockerfile", false)),
			"docker/Dockerfile.dockerignore": "*\n!rootfs.tar\n!shell.tar\n!wheels.tar\n", "docker/packages.toml": packages, "pylock.toml": text,
		}),
		Name: dockertest.Process + "-wheels", Dockerfile: "docker/Dockerfile", Inputs: []input.Input{debian.Input{}, wheels.Input{}},
	}
	return p, index
}

// documented returns what docs/wheels.md has of a language, without its indent.
func documented(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/wheels.md")
	require.NoError(t, err)
	_, block, found := strings.Cut(string(text), "```"+language+"\n")
	require.True(t, found)
	block, _, _ = strings.Cut(block, "```")
	return strings.TrimRight(regexp.MustCompile(`(?m)^ +`).ReplaceAllString(block, ""), "\n") + "\n"
}

// ofSetUp returns a file as the set-up writes it, beside a pylock.toml or without one.
func ofSetUp(t *testing.T, file string, wheels bool) string {
	t.Helper()
	parsed, err := template.ParseFiles("../internal/setup/" + file)
	require.NoError(t, err)
	var text strings.Builder
	require.NoError(t, parsed.Execute(&text, struct{ BaseStage, Wheels bool }{true, wheels}))
	return text.String()
}

// TestSetUpAsDocumented: beside a pylock.toml, the template of PyTorch has what docs/wheels.md
// says to add, which the next test does.
func TestSetUpAsDocumented(t *testing.T) {
	commands := func(text string) string { return regexp.MustCompile(`(?m)^(#.*)?\n`).ReplaceAllString(text, "") }
	assert.Contains(t, commands(ofSetUp(t, "common/docker/Dockerfile", true)), commands(documented(t, "dockerfile")))
	line, _, _ := strings.Cut(documented(t, "go"), " // ")
	assert.Contains(t, ofSetUp(t, "templates/pytorch/magefiles/berth.go.txt", true), line)
}

// TestWheels goes from a pylock.toml to an image in which somebody who isn't root imports
// what was installed; then on to one of another date, without the server.
func TestWheels(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds images with Python")
	}
	if raced { // nothing of it is about races
		out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=30m", "-v", "-run=^TestWheels$", ".").CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "--- PASS: TestWheels/bookworm")
		return
	}
	for suite, python := range map[string]string{"bookworm": "11", "trixie": "13"} {
		t.Run(suite, func(t *testing.T) {
			if suite != "bookworm" && !testenv.Long() {
				t.Skip("bookworm stands for the others")
			}
			testWheels(t, suite, python)
		})
	}
}

func testWheels(t *testing.T, suite, python string) {
	docker := dockertest.Connect(t)
	p, index := withWheels(t, suite, python)
	report := progress.New(os.Stderr)
	changes, err := Pin(t.Context(), p, PinOptions{Report: report})
	require.NoError(t, err)
	assert.Contains(t, changes, "+ wheel own-build 3.0+cu128")
	require.NoError(t, CheckPins(p))
	tag := newTag(t, docker)
	first, err := Build(t.Context(), p, BuildOptions{Tag: tag, Report: report})
	require.NoError(t, err)

	testenv.NeedsCommand(t, testenv.DockerCommand, "docker")
	sh := func(command string) string {
		out, err := exec.Command("docker", "run", "--rm", "--name="+dockertest.Name(t), "--user=1234:1234", tag, "sh", "-c",
			command).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	site := "/usr/local/lib/python3." + python + "/dist-packages/"
	assert.Equal(t, "pure "+site+"pure/__init__.py\ndata 4\n42 43 "+site+"nvidia/__init__.py\n", sh("pure; data-tool; "+
		"python3 -c 'import stable, ownbuild, nvidia.a, nvidia.b; print(stable.answer(), ownbuild.answer(), nvidia.__file__)'"))
	assert.Contains(t, sh("python3 -v -c 'import pure'"), "# code object from '"+site+"pure/__pycache__/__init__.cpython-3"+python+".pyc'",
		"it was compiled at the import")
	assert.Empty(t, sh("find /usr/local/bin /usr/local/share/data "+site+" -not -type d -newermt '1980-01-01 00:00:01Z'"),
		"files with a date")
	assert.Equal(t, "/usr/include/python3."+python+"/data/data.h\n/usr/local/share/data/file.txt\n",
		sh("find /usr -name data.h -o -path '*/data/file.txt' | sort"), "the headers are where Debian's pip has them")

	// A pin that moves the packages' date: pip installs anew, on top of another layer, and the
	// wheels' layer is the same. What is cached is enough for it.
	index.Close()
	lock := readFile(t, p, lockFile)
	line := regexp.MustCompile(`(?m)^snapshot (\d{4})`).FindStringSubmatch(lock)
	require.NotEmpty(t, line)
	year, err := strconv.Atoi(line[1])
	require.NoError(t, err)
	writeFile(t, p, lockFile, strings.Replace(lock, line[0], fmt.Sprintf("snapshot %d", year+1), 1))
	second, err := Build(t.Context(), p, BuildOptions{Tag: tag, Report: report})
	require.NoError(t, err)
	require.Len(t, first.Layers, 2)
	assert.NotEqual(t, first.Layers[0], second.Layers[0], "the base has another date")
	assert.Equal(t, first.Layers[1], second.Layers[1], "the wheels' layer follows the packages' date")
	if testenv.Long() {
		verified, err := Verify(t.Context(), p, VerifyOptions{Report: report})
		require.NoError(t, err)
		assert.Equal(t, second.Digest, verified.Digest)
	}
}

// TestWheelsThatCollide says which file is in question, and builds nothing.
func TestWheelsThatCollide(t *testing.T) {
	a := wheeltest.New(t, "a", "1", "py3-none-any", map[string]string{"shared/__init__.py": "1\n"})
	b := wheeltest.New(t, "b", "1", "py3-none-any", map[string]string{"shared/__init__.py": "2\n"})
	index := wheeltest.Serve(t, a, b)
	lock := "wants x\npython 3.11.2\nglibc 2.36\narchitecture amd64\n"
	for _, w := range []wheeltest.Wheel{a, b} {
		lock += fmt.Sprintf("wheel %s 1 %s %d %s %s -\n", w.Name, w.File, len(w.Data), w.SHA256(), index.FileURL(w))
	}
	dockertest.Cache(t)
	p := Project{
		Root: tree(t, map[string]string{"docker/Dockerfile": "FROM scratch\n", "docker/wheels.lock": lock}), Name: "x",
		Dockerfile: "docker/Dockerfile", Inputs: []input.Input{wheels.Input{}},
	}
	_, err := Materials(t.Context(), p, MaterialsOptions{Dir: t.TempDir()})
	require.ErrorContains(t, err,
		"a-1-py3-none-any.whl and b-1-py3-none-any.whl both install lib/python3.11/dist-packages/shared/__init__.py")
	assert.Contains(t, Explain(err, "mage"), "Leave one of the packages out")
}
