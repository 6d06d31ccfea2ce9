package ci

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

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

// withWheels is a project whose image has Debian's Python and pip, and wheels of all
// kinds, served on loopback.
func withWheels(t *testing.T) (Project, *wheeltest.Index) {
	t.Helper()
	if len(debian.HostMirrors()["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	const nvidia = "# shared by all of them\n"
	all := []wheeltest.Wheel{
		wheeltest.New(t, "pure", "1.0", "py3-none-any", map[string]string{
			"pure/__init__.py":                    "def main(): print('pure', __file__)\nKINDS = {'a', 'b', 'c'}\nassert 'd' not in {'a', 'b', 'c'}\n",
			"pure/py2.py":                         "print 'no Python 3 compiles this'\n",
			"pure-1.0.dist-info/entry_points.txt": "[console_scripts]\npure = pure:main\n",
		}),
		wheeltest.New(t, "stable", "2.0", "cp38-abi3-manylinux2014_x86_64", map[string]string{"stable.abi3.so": wheeltest.Extension(t, "stable", 42)}),
		wheeltest.New(t, "Own_Build", "3.0+cu128", "cp311-cp311-linux_x86_64", map[string]string{
			"ownbuild.cpython-311-x86_64-linux-gnu.so": wheeltest.Extension(t, "ownbuild", 43),
		}),
		wheeltest.New(t, "data", "4", "py3-none-any", map[string]string{
			"data-4.data/scripts/data-tool":        "#!python\nimport datamodule; print('data', datamodule.x)\n",
			"data-4.data/data/share/data/file.txt": "text\n", "data-4.data/purelib/datamodule.py": "x = 4\n",
			"data-4.data/headers/data.h": "// a header\n",
		}),
		wheeltest.New(t, "nvidia-a", "1", "py3-none-manylinux_2_27_x86_64", map[string]string{"nvidia/__init__.py": nvidia, "nvidia/a/lib.so": "a"}),
		wheeltest.New(t, "nvidia-b", "1", "py3-none-manylinux_2_27_x86_64", map[string]string{"nvidia/__init__.py": nvidia, "nvidia/b/lib.so": "b"}),
	}
	index := wheeltest.Serve(t, all...)
	text := "lock-version = \"1.0\"\nrequires-python = \">=3.9\"\n"
	for _, w := range all {
		text += fmt.Sprintf("[[packages]]\nname = %q\nversion = %q\nindex = %q\nwheels = [{url = %q, size = %d, hashes = {sha256 = %q}}]\n",
			strings.ReplaceAll(strings.ToLower(w.Name), "_", "-"), w.Version, index.URL+"/html/", index.FileURL(w), len(w.Data), w.SHA256())
	}
	packages := "architecture = \"amd64\"\n"
	for archive, suite := range map[string]string{"debian": "bookworm", "debian-security": "bookworm-security"} {
		packages += fmt.Sprintf("[[suite]]\narchive = %q\nname = %q\ncomponents = [\"main\"]\n", archive, suite)
	}
	for _, name := range []string{"python3", "python3-pip", "mawk", "passwd"} {
		packages += fmt.Sprintf("[[package]]\nname = %q\nwhy = \"the wheels need it\"\n", name)
	}
	dockerfile, err := os.ReadFile("../internal/setup/common/docker/Dockerfile")
	require.NoError(t, err)
	p := Project{
		Root: tree(t, map[string]string{
			"docker/Dockerfile": strings.Replace(string(dockerfile), "FROM base\n", "FROM base AS wheels\nADD wheels.tar /\n"+
				"RUN --network=none /wheels/install /installed\n\nFROM base\nCOPY --from=wheels /installed/ /\n", 1),
			"docker/Dockerfile.dockerignore": "*\n!rootfs.tar\n!shell.tar\n!wheels.tar\n", "docker/packages.toml": packages, "pylock.toml": text,
		}),
		Name: dockertest.Process + "-wheels",
	}
	p.Inputs = []input.Input{debian.Input{}, wheels.Input{}}
	p.Dockerfile = "docker/Dockerfile"
	writeFile(t, p, p.Dockerfile, strings.Replace(readFile(t, p, p.Dockerfile), "ADD shell.tar /\n", "", 1))
	return p, index
}

func TestWheels(t *testing.T) {
	docker := dockertest.Connect(t)
	if testing.Short() {
		t.Skip("it builds an image with Python")
	}
	p, _ := withWheels(t)
	changes, err := Pin(t.Context(), p, PinOptions{Report: progress.New(os.Stderr)})
	require.NoError(t, err)
	assert.Contains(t, changes, "+ wheel own-build 3.0+cu128")
	require.NoError(t, CheckPins(p))
	tag := newTag(t, docker)
	_, err = Build(t.Context(), p, BuildOptions{Tag: tag, Report: progress.New(os.Stderr)})
	require.NoError(t, err)
	out, err := exec.Command("docker", "run", "--rm", "--user=1234:1234", tag, "sh", "-c",
		"pure; data-tool; python3 -c 'import stable, ownbuild, nvidia; print(stable.answer(), ownbuild.answer(), nvidia.__file__)'; find /usr/local -ls").CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}
