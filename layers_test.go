package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/berthdev/berth"

// layers says which rooms a room may import, tests apart: itself, and these. A name
// stands for everything below it, and the longest one counts. docs/architecture.md
// says why.
var layers = map[string][]string{
	".":                    {"internal"},
	"magefiles":            {"ci", "docker", "internal", "magefiles/commands", "magefiles/targets"},
	"magefiles/commands":   {"ci", "docker", "internal", "magefiles/targets"},
	"magefiles/targets":    {},
	"ci":                   {"ci", "docker", "internal"},
	"ci/engine":            {"ci/debian", "ci/golang", "ci/image", "docker/daemon", "docker/owned", "internal"},
	"ci/image":             {"docker/daemon", "docker/owned", "internal"},
	"ci/input":             {"internal"},
	"ci/debian":            {"ci/image", "ci/input", "docker/daemon", "docker/owned", "internal"},
	"ci/golang":            {"ci/input", "internal"},
	"ci/wheels":            {"ci/debian", "ci/input", "internal"},
	"ci/shell":             {"ci/input", "internal", "rootfs"},
	"ci/attest":            {},
	"ci/lint":              {"internal"},
	"ci/stage":             {"internal"},
	"ci/doctor":            {"ci/debian", "ci/engine", "docker", "internal"},
	"ci/workflows":         {"internal"},
	"docker/launch":        {"docker", "internal", "rootfs"},
	"docker/gpu":           {"docker/daemon", "internal"},
	"docker/gpu/lease":     {"internal"},
	"docker/owned":         {"docker/daemon", "internal"},
	"docker/daemon":        {"internal/advice", "internal/trouble"},
	"docker/display":       {"internal"},
	"docker/identity":      {"internal"},
	"internal":             {},
	"internal/dockertest":  {"docker/daemon", "internal", "rootfs"}, // for tests alone
	"rootfs":               {},
	"testdata":             {},
	"trainer":              {"testdata", "trainer/cuda"},
	"trainer/cuda":         {"trainer/cuda/kernels", "trainer/data", "trainer/nn"},
	"trainer/cuda/kernels": {},

	"internal/dockertest/loader": {"ci/debian", "docker/daemon", "internal"}, // builds its images
}

// forTests are rooms that nothing but tests may import.
var forTests = []string{
	"internal/cudatest", "internal/dockertest", "internal/dockertest/hook", "internal/dockertest/loader", "internal/dockertest/smi",
	"internal/moduletest", "internal/testenv", "internal/wheeltest", "trainer/cuda/internal/ptx",
	"trainer/device/devicetest", "trainer/nn/reference",
}

// violations lists the imports that layers doesn't allow, by the importing package.
func violations(imports map[string][]string) (all []string) {
	for from, list := range imports {
		room := longest(from)
		for _, to := range list {
			within := func(name string) bool { return to == name || strings.HasPrefix(to, name+"/") }
			test := slices.Contains(forTests, to) && !slices.Contains(forTests, from)
			if test || longest(to) != room && !slices.ContainsFunc(layers[room], within) {
				all = append(all, from+" -> "+to)
			}
		}
	}
	slices.Sort(all)
	return all
}

// longest is the name in layers that a package belongs to.
func longest(name string) (room string) {
	for r := range layers {
		if (name == r || strings.HasPrefix(name, r+"/")) && len(r) > len(room) {
			room = r
		}
	}
	return room
}

func TestLayers(t *testing.T) {
	imports := map[string][]string{}
	for line := range strings.Lines(goList(t, "-tags=mage", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")) {
		words := strings.Fields(line)
		from := within(words[0])
		require.NotEmpty(t, longest(from), "%s is in none of the rooms", from)
		for _, to := range words[1:] {
			if to == module || strings.HasPrefix(to, module+"/") {
				imports[from] = append(imports[from], within(to))
			}
		}
	}
	assert.Empty(t, violations(imports))
}

// within is the name of a package of this module.
func within(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// TestViolations imports upward, and sideways.
func TestViolations(t *testing.T) {
	for from, to := range map[string]string{
		"docker/launch":      "ci",
		"ci/debian":          "ci/engine",
		"ci/golang":          "ci/debian",
		"ci/wheels":          "ci/engine",
		"ci/image":           "ci",
		"ci/workflows":       "ci",
		"ci":                 "magefiles/targets",
		"magefiles/commands": "trainer/nn",
		"magefiles/targets":  "magefiles/commands",
		"trainer/loop":       "internal/cache",
		"internal/cache":     "docker/daemon",
		".":                  "ci",
		"ci/engine":          "internal/dockertest",
		"trainer/cuda":       "trainer/cuda/internal/ptx",
	} {
		assert.Equal(t, []string{from + " -> " + to}, violations(map[string][]string{from: {to}}))
	}
	assert.Empty(t, violations(map[string][]string{"ci": {"ci/engine", "docker/launch"}, "trainer": {"trainer/nn"}, "internal/cache": {"internal/advice"}}))
}

// TestImportersGetNoMore is for those who import the commands: the demo's libraries,
// and those of tests, are none of their business.
func TestImportersGetNoMore(t *testing.T) {
	deps := strings.Fields(goList(t, "-deps", "./magefiles/commands"))
	for _, d := range deps {
		for _, unwanted := range []string{"gonum.org/", "gorgonia.org/", module + "/trainer", "github.com/stretchr/", "github.com/rhysd/", "github.com/nektos/", "testing"} {
			assert.False(t, d == unwanted || strings.HasPrefix(d, unwanted) && strings.HasSuffix(unwanted, "/") || strings.HasPrefix(d, unwanted+"/"), d)
		}
	}
	assert.Contains(t, deps, module+"/ci")
}

// TestTargetsImportNothing is for the time that each call of mage takes: it has the go
// command load the targets with all that they import, twice.
func TestTargetsImportNothing(t *testing.T) {
	others := strings.Fields(goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./magefiles/targets"))
	assert.ElementsMatch(t, []string{module + "/magefiles/targets", "github.com/magefile/mage/mg"}, others)
	all := strings.Fields(goList(t, "-deps", "./magefiles/targets"))
	assert.NotContains(t, all, "net")
	assert.Less(t, len(all), 100)
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	require.NoError(t, err)
	return string(out)
}
