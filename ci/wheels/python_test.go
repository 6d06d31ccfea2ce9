package wheels

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"deps.dev/util/pypi"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/testenv"
)

var trixie = Python{Version: "3.13.5", Glibc: "2.41", Architecture: "amd64"}

// packaging runs a Python program that has the machine's own packaging, which pip brings,
// and reads what it prints as JSON. It gets a value as JSON, too.
func packaging(t *testing.T, program string, in, out any) {
	t.Helper()
	python := testenv.NeedsCommand(t, testenv.Pip, "python3")
	data, err := json.Marshal(in)
	require.NoError(t, err)
	c := exec.Command(python, "-c", "import json, sys\nfrom pip._vendor.packaging import markers, specifiers, tags\n"+
		"given = json.load(sys.stdin)\n"+program)
	c.Stdin = strings.NewReader(string(data))
	var said strings.Builder
	c.Stderr = &said
	printed, err := c.Output()
	if strings.Contains(said.String(), "No module named") {
		testenv.Skip(t, testenv.Pip, "%s", &said)
	}
	require.NoError(t, err, said.String())
	require.NoError(t, json.Unmarshal(printed, out))
}

// TestTagsAsPackagingHasThem compares tags and their order.
func TestTagsAsPackagingHasThem(t *testing.T) {
	for _, p := range []Python{trixie, {"3.11.2", "2.36", "amd64"}, {"3.9.2", "2.31", "arm64"}} {
		var want []string
		packaging(t, `
version, platforms = tuple(map(int, given["version"].split(".")[:2])), given["platforms"]
interpreter = "cp%d%d" % version
all = list(tags.cpython_tags(version, [interpreter], platforms)) + list(tags.compatible_tags(version, interpreter, platforms))
print(json.dumps([str(t) for t in all]))`, map[string]any{"version": p.Version, "platforms": p.platforms()}, &want)
		var have []string
		for _, tag := range p.tags() {
			have = append(have, tag.Python+"-"+tag.ABI+"-"+tag.Platform)
		}
		assert.Equal(t, want, have, p)
	}
}

// TestPlatformsAsPackagingHasThem asks for those of another machine.
func TestPlatformsAsPackagingHasThem(t *testing.T) {
	for _, p := range []Python{trixie, {"3.11.2", "2.36", "amd64"}, {"3.9.2", "2.31", "arm64"}} {
		var want []string
		packaging(t, `
import itertools
from pip._vendor.packaging import _manylinux as m
m._get_glibc_version = lambda: tuple(map(int, given["glibc"].split(".")))
m._have_compatible_abi = lambda *any: True
linux = "linux_" + given["machine"]
try:
    all = list(m.platform_tags(linux, given["machine"]))
except Exception:
    all = list(m.platform_tags([given["machine"]]))
print(json.dumps(all + [linux]))`, map[string]string{"glibc": p.Glibc, "machine": machines[p.Architecture]}, &want)
		assert.Equal(t, want, p.platforms(), p)
	}
}

// TestMarkersAsPackagingHasThem evaluates markers that are drawn, and those that tools write.
func TestMarkersAsPackagingHasThem(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	draw := rand.New(rand.NewPCG(seed, 0))
	pick := func(all ...string) string { return all[draw.IntN(len(all))] }
	comparison := func() string {
		variable := pick("python_version", "python_full_version", "implementation_version", "sys_platform", "os_name",
			"platform_machine", "platform_system", "implementation_name", "platform_python_implementation")
		values := []string{"linux", "win32", "darwin", "x86_64", "aarch64", "arm64", "posix", "nt", "CPython", "cpython", "Linux",
			"win32 cygwin", "Windows"}
		operators := []string{"==", "!=", "in", "not in"}
		if strings.Contains(variable, "version") {
			values = []string{"3", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.13.0", "3.13.5", "3.13.10", "3.13.5.0",
				"2.7", "4", "3.12.4", "3.14.0a1", "3.13.5rc1", "3.13.5.post1"}
			operators = []string{"==", "!=", "<", "<=", ">", ">="}
			switch draw.IntN(5) {
			case 0:
				return variable + " ~= '" + pick("3.8", "3.13", "3.13.0", "3.13.5", "2.7", "3.12.1") + "'"
			case 1:
				return variable + " " + pick("==", "!=") + " '" + pick("3.*", "3.13.*", "3.12.*", "3.13.5.*", "2.*") + "'"
			case 2:
				return variable + pick(" in ", " not in ") + `"` + pick("2.7 3.13", "3.13.5", "3.1", "3.12, 3.13") + `"`
			}
		}
		if draw.IntN(10) == 0 && variable != "python_full_version" {
			// What pip has is too old to compare a pre-release that stands on the left.
			return fmt.Sprintf("%q %s %s", values[draw.IntN(min(len(values), 12))], pick("==", "!="), variable)
		}
		return fmt.Sprintf("%s %s %q", variable, pick(operators...), pick(values...))
	}
	var marker func(depth int) string
	marker = func(depth int) string {
		switch n := draw.IntN(4); {
		case depth == 0 || n == 0:
			return comparison()
		case n == 1:
			return "(" + marker(depth-1) + ")"
		default:
			return marker(depth-1) + pick(" and ", " or ") + marker(depth-1)
		}
	}
	all := []string{
		"python_version < '3.11' and sys_platform == 'linux' or extra == 'x'",
		"(platform_machine == 'x86_64' and sys_platform == 'linux') or (platform_machine == 'arm64' and sys_platform == 'darwin')",
		"platform_python_implementation != 'PyPy' and platform_system == 'Linux'", "os.name == 'posix'", "python_implementation=='CPython'",
		"python_full_version >= '3.11.4'", "python_full_version < '3.13.0rc1'",
	}
	for range 2000 {
		all = append(all, marker(3))
	}
	values := trixie.environment()
	values["extra"] = ""
	var want []bool
	packaging(t, `print(json.dumps([markers.Marker(m).evaluate(given["environment"]) for m in given["markers"]]))`,
		map[string]any{"environment": values, "markers": all}, &want)
	e := environment{values: values}
	for i, m := range all {
		have, err := e.evaluate(m)
		require.NoError(t, err, m)
		assert.Equal(t, want[i], have, m)
	}
}

// TestRequiresPythonAsPackagingHasIt compares version specifiers.
func TestRequiresPythonAsPackagingHasIt(t *testing.T) {
	all := []string{
		">=3.9", ">= 3.9", ">=3.9,<4", ">=3.9, <3.13", "~=3.9", "~=3.13.2", "~=3.13.6", "==3.13.*", "==3.12.*", "!=3.13.*", "!=3.13.1,>3",
		">3.13", "<3.13.5", "<=3.13", "<3.14", ">=3.13.5", ">3.13.4", "==3.13.5", "==3.13", ">=2.7,!=3.0.*,!=3.1.*", "<4.0,>=3.10", ">=3.14.0a1",
	}
	var want []bool
	packaging(t, `print(json.dumps([specifiers.SpecifierSet(s).contains("3.13.5", prereleases=True) for s in given]))`, all, &want)
	for i, s := range all {
		have, err := trixie.suits(s)
		require.NoError(t, err, s)
		assert.Equal(t, want[i], have, s)
	}
	_, err := trixie.suits("nonsense")
	assert.Error(t, err)
}

func TestMarkers(t *testing.T) {
	e := environment{values: trixie.environment(), lists: map[string][]string{"extras": {"cu128"}, "dependency_groups": {"Dev_x"}}}
	for marker, want := range map[string]bool{
		"": true, "'cu128' in extras": true, "'cpu' not in extras and 'dev-x' in dependency_groups": true, "'cpu' in extras": false,
		"((sys_platform=='linux'))": true, `python_version == "3.13"`: true,
	} {
		have, err := e.evaluate(marker)
		require.NoError(t, err, marker)
		assert.Equal(t, want, have, marker)
	}
	for marker, text := range map[string]string{
		"platform_release >= '6'": "known only where the image runs", "python_version": "ends too early", "foo == 'x'": `no variable "foo"`,
		"python_version == '3' or": "too early", "(python_version == '3'": "isn't closed", "python_version == '3')": "should end before )",
		"extras == 'x'": "on the right", "'x' == extras": "can't be compared", "'a' == 'b'": "variable with a text", "os_name not 'x'": `"in"`,
		"os_name == x": "no variable", "os_name ; 'x'": "makes no sense at", strings.Repeat("(", 5000): "too deep",
		"os_name ~= 'x'": "can't be compared",
	} {
		_, err := e.evaluate(marker)
		assert.ErrorContains(t, err, text, marker)
	}
}

func FuzzMarker(f *testing.F) {
	for _, seed := range []string{
		"python_version < '3.11' and (sys_platform == \"linux\" or 'x' in extras)", "os_name not in 'a b'", "((",
		"python_version ~= '3'", "'\x00' === os_name",
	} {
		f.Add(seed)
	}
	e := environment{values: trixie.environment(), lists: map[string][]string{"extras": {"x"}}}
	f.Fuzz(func(t *testing.T, marker string) {
		holds, err := e.evaluate(marker)
		if err != nil && holds {
			t.Fatal("it holds, and makes no sense")
		}
		// In parentheses it is the same; the outermost may be one too many.
		if again, aerr := e.evaluate("(" + marker + ")"); err == nil && strings.TrimSpace(marker) != "" && aerr == nil && again != holds {
			t.Fatalf("%q: %t, in parentheses %t", marker, holds, again)
		}
	})
}

func TestBest(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  int
	}{
		{"the newest glibc that there is", []string{"a-1-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
			"a-1-cp313-cp313-manylinux_2_28_x86_64.whl", "a-1-cp313-cp313-manylinux_2_42_x86_64.whl"}, 1},
		{"one's own before abi3 before pure", []string{"a-1-py3-none-any.whl", "a-1-cp39-abi3-manylinux_2_28_x86_64.whl",
			"a-1-cp313-cp313-linux_x86_64.whl"}, 2},
		{"the newer abi3", []string{"a-1-cp37-abi3-manylinux2014_x86_64.whl", "a-1-cp311-abi3-manylinux2014_x86_64.whl",
			"a-1-cp314-abi3-manylinux2014_x86_64.whl"}, 1},
		{"bare linux", []string{"a-1-cp313-cp313-linux_x86_64.whl"}, 0},
		{"bare linux after manylinux", []string{"a-1-cp313-cp313-linux_x86_64.whl", "a-1-cp313-cp313-manylinux1_x86_64.whl"}, 1},
		{"no free threading", []string{"a-1-cp313-cp313t-manylinux_2_28_x86_64.whl"}, -1},
		{"no other machines", []string{"a-1-cp313-cp313-manylinux_2_28_aarch64.whl", "a-1-cp313-cp313-win_amd64.whl",
			"a-1-cp313-cp313-musllinux_1_2_x86_64.whl", "a-1-cp313-cp313-macosx_11_0_arm64.whl"}, -1},
		{"py2.py3", []string{"a-1-py2.py3-none-any.whl"}, 0},
		{"py2", []string{"a-1-py2-none-any.whl"}, -1},
		{"the higher build", []string{"a-1-1-py3-none-any.whl", "a-1-10-py3-none-any.whl", "a-1-9b-py3-none-any.whl",
			"a-1-py3-none-any.whl"}, 1},
		{"libraries without a Python", []string{"a-1-py3-none-manylinux_2_27_x86_64.whl"}, 0},
	} {
		var names []*pypi.WheelInfo
		for _, file := range c.files {
			n, err := pypi.ParseWheelName(file)
			require.NoError(t, err)
			names = append(names, n)
		}
		assert.Equal(t, c.want, trixie.best(names), c.name)
	}
}

func TestPythonOf(t *testing.T) {
	lock := func(text string) debian.Lock {
		l := debian.Lock{Architecture: "amd64"}
		for _, one := range strings.Fields(text) {
			name, v, _ := strings.Cut(one, "=")
			l.Packages = append(l.Packages, debian.Package{Name: name, Version: v})
		}
		return l
	}
	p, err := PythonOf(lock("libc6=2.41-12 python3=3.13.5-1 python3-pip=25.1.1+dfsg-1 python3.13=3.13.7-2"), "x.lock")
	require.NoError(t, err)
	assert.Equal(t, Python{"3.13.7", "2.41", "amd64"}, p)
	p, err = PythonOf(lock("libc6=2.41-12 python3=3.14~rc2-1 python3-pip=1 python3.14=3.14.0~rc2-2"), "x.lock")
	require.NoError(t, err)
	assert.Equal(t, "3.14.0rc2", p.Version)
	_, err = PythonOf(lock("libc6=2.41-12 python3=3.13.5-1 python3.13=3.13.7-2"), "x.lock")
	require.ErrorContains(t, err, "x.lock has no python3-pip, which wheels need")
	assert.Contains(t, advice.Text(err, "mage"), "Name python3 and python3-pip")
	l := lock("libc6=2.41-12 python3=3.13.5-1 python3-pip=1 python3.13=3.13.7-2")
	l.Architecture = "riscv64"
	_, err = PythonOf(l, "x.lock")
	assert.ErrorContains(t, err, "riscv64")
}
