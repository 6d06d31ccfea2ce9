package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// documents are the files that people read.
func documents(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	return append(docs, "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(heading)) {
		switch {
		case r == ' ':
			b.WriteRune('-')
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		}
	}
	return b.String()
}

// TestLinks follows every link within the repository.
func TestLinks(t *testing.T) {
	followed := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			target := match[1]
			if strings.Contains(target, "://") {
				continue
			}
			file, fragment, _ := strings.Cut(target, "#")
			path := name
			if file != "" {
				path = filepath.Join(filepath.Dir(name), file)
			}
			if !assert.FileExists(t, path, "%s links to %s", name, target) {
				continue
			}
			followed++
			if fragment == "" {
				continue
			}
			there, err := os.ReadFile(path)
			require.NoError(t, err)
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(string(there), -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			assert.Contains(t, anchors, fragment, "%s links to %s", name, target)
		}
	}
	assert.Greater(t, followed, 20)
}

// TestEveryPageIsListed: docs/README.md leads to each page.
func TestEveryPageIsListed(t *testing.T) {
	list, err := os.ReadFile("docs/README.md")
	require.NoError(t, err)
	for _, page := range documents(t) {
		if name, ok := strings.CutPrefix(page, "docs/"); ok && name != "README.md" {
			assert.Contains(t, string(list), "]("+name+")")
		}
	}
}

// flagsOfTargets reads the targets of the magefile, as one types them, and their flags
// from the code. An argument without a flag is in capitals.
func flagsOfTargets(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("magefiles/targets/*.go")
	require.NoError(t, err)
	own, err := filepath.Glob("magefiles/*.go")
	require.NoError(t, err)
	all := map[string][]string{}
	for _, file := range append(files, own...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, declaration := range parsed.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() || f.Name.Name == "Use" {
				continue
			}
			name := lowerFirst(f.Name.Name)
			if f.Recv != nil {
				name = strings.ToLower(fmt.Sprint(f.Recv.List[0].Type)) + ":" + name
			}
			all[name] = []string{}
			for _, parameter := range f.Type.Params.List {
				for _, n := range parameter.Names {
					switch parameter.Type.(type) {
					case *ast.StarExpr:
						all[name] = append(all[name], "-"+n.Name)
					case *ast.Ident:
						all[name] = append(all[name], "an argument")
					}
				}
			}
		}
	}
	return all
}

func lowerFirst(s string) string {
	if s == strings.ToUpper(s) {
		return strings.ToLower(s) // CI
	}
	return strings.ToLower(s[:1]) + s[1:]
}

var (
	row      = regexp.MustCompile("(?m)^\\| (`[a-zA-Z:`, ]+`)(?: ¹)? \\|((?:[^|\\\\]|\\\\.)*)\\|")
	code     = regexp.MustCompile("`([^`]+)`")
	flagName = regexp.MustCompile(`^(-[a-zA-Z]+)`)
)

// TestTargetsInREADME: the table of targets has every target with every flag, and no other.
func TestTargetsInREADME(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "\n| target | flags |")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	documented := map[string][]string{}
	for _, match := range row.FindAllStringSubmatch(table, -1) {
		var flags []string
		for _, word := range code.FindAllStringSubmatch(match[2], -1) {
			if f := flagName.FindString(word[1]); f != "" {
				flags = append(flags, f)
			} else {
				flags = append(flags, "an argument")
			}
		}
		for _, name := range code.FindAllStringSubmatch(match[1], -1) {
			documented[name[1]] = flags
		}
	}
	targets := flagsOfTargets(t)
	require.Greater(t, len(targets), 20)
	for name, flags := range targets {
		there, ok := documented[name]
		if assert.True(t, ok, "README.md has no row for %s", name) {
			assert.ElementsMatch(t, flags, there, "the flags of %s", name)
		}
		delete(documented, name)
	}
	assert.Empty(t, documented, "README.md has rows for these, which are no targets")
}

// typed matches commands of Berth's in documents.
var typed = regexp.MustCompile(`(?m)(?:go tool mage|\./berth|^\$ berth) ([a-z][a-zA-Z]*(?::[a-z]+)?)((?: -(?:'[^']*'|[^\s'` + "`" + `|])+)*)`)

// quoted matches what a shell takes as it is.
var quoted = regexp.MustCompile(`'[^']*'`)

// TestCommandsInDocuments: each command that documents tell to type is a target, with flags
// that it has.
func TestCommandsInDocuments(t *testing.T) {
	targets := flagsOfTargets(t)
	found := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, match := range typed.FindAllStringSubmatch(string(text), -1) {
			flags, ok := targets[match[1]]
			if !assert.True(t, ok, "%s tells to type %q: there is no target %s", name, match[0], match[1]) {
				continue
			}
			found++
			for _, word := range strings.Fields(quoted.ReplaceAllString(match[2], "")) {
				if f := flagName.FindString(word); f != "" && f != "-h" {
					assert.True(t, slices.Contains(flags, f), "%s tells to type %q: %s has no %s", name, match[0], match[1], f)
				}
			}
		}
	}
	assert.Greater(t, found, 30)
}

var (
	goTest   = regexp.MustCompile("(?:go test|mage bench) [^`#>]*")
	choice   = regexp.MustCompile(`-(run|bench)[= ]('[^']*'|\S+)`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w*)\(`)
)

// TestTestsInDocuments: whoever repeats a measurement or a test by the command that a
// document names runs at least one.
func TestTestsInDocuments(t *testing.T) {
	found := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, command := range goTest.FindAllString(string(text), -1) {
			var folders []string
			for _, word := range strings.Fields(command) {
				if word == "." || strings.HasPrefix(word, "./") {
					folders = append(folders, word)
				}
			}
			if strings.HasPrefix(command, "mage") {
				folders = append(folders, "./...")
			}
			for _, match := range choice.FindAllStringSubmatch(command, -1) {
				names, err := regexp.Compile(strings.Trim(match[2], "'"))
				require.NoError(t, err, command)
				if names.String() == "^$" {
					continue
				}
				found++
				kind := "Test"
				if match[1] == "bench" || strings.HasPrefix(command, "mage") {
					kind = "Benchmark"
				}
				assert.True(t, slices.ContainsFunc(testsIn(t, folders), func(test string) bool {
					return strings.HasPrefix(test, kind) && names.MatchString(test)
				}), "%s names %q, which runs nothing", name, command)
			}
		}
	}
	assert.Greater(t, found, 10)
}

// testsIn lists the tests and benchmarks of packages.
func testsIn(t *testing.T, folders []string) (all []string) {
	t.Helper()
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		require.NoError(t, err)
		if folder == "./..." {
			out, err := exec.Command("git", "ls-files", "*_test.go").Output()
			require.NoError(t, err)
			files = strings.Fields(string(out))
		}
		assert.NotEmpty(t, files, folder)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, match := range testFunc.FindAllStringSubmatch(string(text), -1) {
				all = append(all, match[1])
			}
		}
	}
	return all
}
