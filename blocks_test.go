package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"mvdan.cc/sh/v3/syntax"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/moduletest"
	"github.com/berthdev/berth/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// Each block of commands in a document has a comment right above it that says who runs it:
//
//	<!-- run here -->                            TestBlocks, in a clone
//	<!-- run here, needs docker, mirror -->      the same, where the machine has these (package testenv)
//	<!-- run in an empty folder -->              TestBlocks, elsewhere
//	<!-- run by ci.TestBuild, ci.TestTrain -->   these tests, which type the commands or call what they call
//	<!-- run by .ci/run -->                      that script
//	<!-- not run: gpu -->                        nobody, for one of the reasons below
//
// Beside what package testenv knows, a block may need long: BERTH_TEST_LONG. A comment that begins
// with "All blocks" is for the rest of the document, except for blocks with a comment of their own.
//
// In blocks that TestBlocks runs, the lines that follow a command are its output: a number
// stands for any number, and … for anything. It fails where they begin with "Error:".
var mark = regexp.MustCompile(`^\s*<!-- (All blocks )?(run here|run in an empty folder|run by|not run:)(?:,? (.*?))? -->$`)

// reasons are why a block may be run by nobody.
var reasons = map[string]string{
	"gpu":             "it needs a GPU",
	"internet":        "it needs the internet",
	"root":            "it changes the machine, as root",
	"registry":        "it needs a registry of somebody's",
	"another machine": "it is for another machine, or another service",
}

// A block is one of a document, with the comment that says who runs it.
type block struct {
	document string
	line     int
	language string
	text     string
	who, how string // parts of the comment
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.document, b.line) }

// hasCommands reports whether the language of a block is that of commands.
func (b block) hasCommands() bool {
	return slices.Contains([]string{"sh", "bash", "console"}, b.language)
}

// isRun reports whether TestBlocks runs it.
func (b block) isRun() bool { return b.who == "run here" || b.who == "run in an empty folder" }

// commands are those of a block, with the output that it shows: in bash, which may have
// functions, all is one; else a line that ends in a backslash goes on.
func (b block) commands() (all []typedCommand) {
	if b.language == "bash" {
		return []typedCommand{{command: strings.TrimSuffix(b.text, "\n")}}
	}
	for line := range strings.Lines(b.text) {
		line = strings.TrimSuffix(line, "\n")
		if last := len(all) - 1; last >= 0 && strings.HasSuffix(all[last].command, "\\") {
			all[last].command += "\n" + line
		} else if b.language == "sh" {
			all = append(all, typedCommand{command: line})
		} else if command, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, typedCommand{command: command})
		} else if len(all) > 0 {
			all[len(all)-1].output = append(all[len(all)-1].output, line)
		}
	}
	return all
}

type typedCommand struct {
	command string
	output  []string
}

// blocks reads the blocks of all documents.
func blocks(t *testing.T) (all []block) {
	t.Helper()
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		found, err := blocksOf(name, string(text))
		require.NoError(t, err)
		all = append(all, found...)
	}
	return all
}

func blocksOf(document, text string) (all []block, err error) {
	var everywhere, before []string // marks of the document, and of the line above
	var open *block
	indent := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case open != nil && trimmed == "```":
			all, open = append(all, *open), nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(trimmed, "```"):
			indent, _, _ = strings.Cut(line, "`")
			open = &block{document: document, line: i + 1, language: strings.TrimPrefix(trimmed, "```")}
			if before == nil {
				before = everywhere
			}
			if before != nil {
				open.who, open.how = before[2], before[3]
			}
			before = nil
		case strings.HasPrefix(line, "    ") && (i == 0 || strings.TrimSpace(strings.Split(text, "\n")[i-1]) == ""):
			return nil, fmt.Errorf("%s:%d: blocks are set between lines of ```", document, i+1)
		default:
			before = mark.FindStringSubmatch(line)
			if before != nil && before[1] != "" {
				everywhere, before = before, nil
			}
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s doesn't end", *open)
	}
	return all, nil
}

// TestBlocksAreRun: each block of commands says who runs it, and that is so.
func TestBlocksAreRun(t *testing.T) {
	found := 0
	for _, b := range blocks(t) {
		if b.hasCommands() {
			found++
		}
		assert.NoError(t, b.check())
	}
	assert.Greater(t, found, 30)
}

func (b block) check() error {
	switch {
	case b.language == "" && b.who == "":
		return fmt.Errorf("%s: name its language behind the ```: sh or console for commands, text for what is none", b)
	case b.who == "" && !b.hasCommands():
		return nil
	case b.who == "":
		return fmt.Errorf("%s: say in a comment above who runs it, as blocks_test.go explains", b)
	case b.who == "not run:" && reasons[b.how] == "":
		return fmt.Errorf("%s: %q is none of the reasons not to run it: %v", b, b.how, reasons)
	}
	for _, c := range b.commands() {
		if _, err := syntax.NewParser().Parse(strings.NewReader(c.command), ""); b.hasCommands() && err != nil {
			return fmt.Errorf("%s: %q: %w", b, c.command, err)
		}
	}
	if b.who != "run by" {
		return nil
	}
	return runBy(b, strings.Split(b.how, ", "))
}

// runBy reports what of a block no test runs.
func runBy(b block, tests []string) error {
	said := map[string]bool{}
	for _, name := range tests {
		if data, err := os.ReadFile(name); err == nil {
			for _, typed := range line.FindAllStringSubmatch(string(data), -1) {
				said[typed[1]] = true
			}
			continue
		}
		dot := strings.LastIndex(name, ".")
		if dot < 0 {
			return fmt.Errorf("%s: write %s as FOLDER.Test", b, name)
		}
		words, err := wordsOf(name[:dot], name[dot+1:])
		if err != nil {
			return fmt.Errorf("%s: %w", b, err)
		}
		for w := range words {
			said[w] = true
		}
	}
	for _, c := range b.commands() {
		for line := range strings.Lines(c.command) {
			line, _, _ = strings.Cut(line, " #")
			line = strings.TrimSpace(line)
			if line == "" || said[line] {
				continue
			}
			for _, word := range telling(line) {
				if !said[word] {
					return fmt.Errorf("%s: nothing that %s does says the %s of %q", b, strings.Join(tests, " or "), word, line)
				}
			}
		}
	}
	return nil
}

// line matches commands in scripts and workflows.
var line = regexp.MustCompile(`(?m)^\s*(?:exec |run: )?(.*)$`)

// assignments are those before a command.
var assignments = regexp.MustCompile(`^(?:\w+=\S* )*`)

// telling are the words of a command that say what it does: the target and its flags, or
// else the program. What only prepares one says nothing.
func telling(command string) []string {
	command = assignments.ReplaceAllString(quoted.ReplaceAllString(command, "''"), "")
	rest, isTarget := strings.CutPrefix(command, "go tool mage ")
	words := strings.Fields(rest)
	if !isTarget {
		if slices.Contains([]string{"echo", "cd", "export", "mkdir"}, words[0]) {
			return nil
		}
		return []string{path.Base(words[0])}
	}
	telling := words[:1]
	for _, w := range words[1:] {
		if f := flagName.FindString(w); f != "" {
			telling = append(telling, f)
		}
	}
	return telling
}

var testName = regexp.MustCompile(`^(Test|Benchmark)[A-Z]`)

// wordsOf collects what a test says, and what the functions of its package's tests say that it
// calls: the words of its texts, flags without their values, and the names of what it
// calls and sets in Go, as the command line spells them.
func wordsOf(dir, test string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	functions := map[string][]ast.Node{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			return nil, err
		}
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				functions[d.Name.Name] = append(functions[d.Name.Name], d)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if v, ok := s.(*ast.ValueSpec); ok {
						functions[v.Names[0].Name] = append(functions[v.Names[0].Name], v)
					}
				}
			}
		}
	}
	if len(functions[test]) == 0 || !testName.MatchString(test) {
		return nil, fmt.Errorf("there is no test %s in %s", test, dir)
	}
	words, seen := map[string]bool{}, map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, n := range functions[name] {
			ast.Inspect(n, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					text, _ := strconv.Unquote(n.Value)
					for _, w := range strings.Fields(text) {
						words[path.Base(w)] = true
						words[w] = true
						words[flagName.FindString(w)] = true
					}
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "t" {
						return false // t.Run isn't one
					}
				case *ast.Ident:
					if n.IsExported() {
						words[lowerFirst(n.Name)] = true
						words["-"+lowerFirst(n.Name)] = true
					}
					visit(n.Name)
				}
				return true
			})
		}
	}
	visit(test)
	return words, nil
}

// typedBy names, for each target that no block that is run here has, a test that types it or calls
// what it calls. Documents name targets in sentences, too.
var typedBy = map[string]string{
	"attach":     "docker/launch.TestAttachAndLeave",
	"build":      "ci.TestBuild",
	"ci":         ".github/workflows/berth.yml",
	"clean":      "ci.TestKilledCommandsLeaveNothing",
	"data":       "ci.TestData",
	"gpu:status": "ci.TestRunsShareTheGPUs",
	"logs":       "ci.TestALeaseLastsAsLongAsItsLaunch",
	"ps":         "ci.TestALeaseLastsAsLongAsItsLaunch",
	"publish":    "ci.TestPublish",
	"run":        "ci.TestBuildAndRunByHand",
	"shell":      "docker/launch.TestShell",
	"smoke":      "ci.TestSmoke",
	"stop":       "ci.TestALeaseLastsAsLongAsItsLaunch",
	"test":       ".ci/run",
	"train":      "ci.TestTrain",
	"verify":     "ci.TestVerifyNamesTheFileThatDiffers",
}

// TestTargetsAreRun: each target is.
func TestTargetsAreRun(t *testing.T) {
	// Run by nobody: they would remove the engine that all tests share, take hours, or move locks.
	here := []string{"engine:prune", "bench", "pinEngine"}
	for _, b := range blocks(t) {
		for _, c := range b.commands() {
			for _, match := range typed.FindAllStringSubmatch(c.command, -1) {
				if b.isRun() {
					here = append(here, match[1])
				}
			}
		}
	}
	for target := range flagsOfTargets(t) {
		if test, ok := typedBy[target]; ok {
			assert.NotContains(t, here, target, "strike it off the list")
			assert.NoError(t, runBy(block{document: "README.md", language: "sh", text: "go tool mage " + target}, []string{test}))
		} else {
			assert.Contains(t, here, target)
		}
	}
}

// TestBlocksThatNobodyRuns: what is missing or wrong is found.
func TestBlocksThatNobodyRuns(t *testing.T) {
	const command = "```sh\ngo tool mage build -locked # all of it\n```\n"
	for document, says := range map[string]string{
		command:                                                        "say in a comment above who runs it",
		"<!-- run here -->\n\n" + command:                              "say in a comment above who runs it",
		"```\ngo tool mage build\n```\n":                               "name its language",
		"Type\n\n    go tool mage build\n":                             "x.md:3: blocks are set between lines of ```",
		"<!-- not run: too slow -->\n" + command:                       `"too slow" is none of the reasons`,
		"<!-- run by TestBuild -->\n" + command:                        "write TestBuild as FOLDER.Test",
		"<!-- run by ci.TestNonsense -->\n" + command:                  "no test TestNonsense in ci",
		"<!-- run by ci.TestBuild -->\n" + command:                     "nothing that ci.TestBuild does says the -locked",
		"<!-- run by .ci/run -->\n" + command:                          "nothing that .ci/run does says the build",
		"```sh\n":                                                      "x.md:1 doesn't end",
		"<!-- run by ci.TestSmoke -->\n```sh\ngo tool mage smoke\n```": "",
		"<!-- All blocks not run: root -->\n\n```\nreboot\n```\n- a\n  <!-- not run: gpu -->\n  ```sh\n  nvidia-smi\n  ```\n": "",
		"<!-- not run: gpu -->\n```sh\nfor g in 0 1; do\n```\n":                                                               "must be followed by a statement list",
		"```go\nfunc main() {}\n```\n": "",
	} {
		blocks, err := blocksOf("x.md", document)
		for _, b := range blocks {
			err = errors.Join(err, b.check())
		}
		if says == "" {
			assert.NoError(t, err, document)
		} else {
			assert.ErrorContains(t, err, says, document)
		}
	}
}

// TestShape: documents show the shape of what is said.
func TestShape(t *testing.T) {
	for said, matches := range map[string]bool{
		"libx 1.2\n\t<- y (Depends)\nand so on\nfor lines\nEnd\n": true, "libx 1.2\n\t<- y (Depends)\nEnd\n": true,
		"libx 12\n\t<- y (Depends)\nEnd\n": false, "libx 1.2\n\t<- y (Depends)\nEnd\nmore\n": false, "": false,
	} {
		assert.Equal(t, matches, regexp.MustCompile(shape([]string{"libx 3.40", "\t<- … (Depends)", "…", "End"})).MatchString(said), said)
	}
}

// TestMagefilesInDocuments: whoever copies a whole magefile has one that compiles.
func TestMagefilesInDocuments(t *testing.T) {
	var files []string
	for i, b := range blocks(t) {
		if !strings.HasPrefix(b.text, "//go:build mage\n") {
			continue
		}
		file := filepath.Join(t.TempDir(), fmt.Sprintf("berth%d.go", i))
		require.NoError(t, os.WriteFile(file, []byte(b.text), 0o644))
		out, err := exec.CommandContext(t.Context(), "go", "vet", "-tags=mage", file).CombinedOutput()
		require.NoError(t, err, "%s: %s", b, out)
		files = append(files, file)
	}
	assert.NotEmpty(t, files)
}

// TestBlocks types what the documents show, in a clone or in an empty folder.
func TestBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles the targets")
	}
	t.Setenv("MAGEFILE_CACHE", t.TempDir())
	here := sync.OnceValue(func() string { return cloned(t) })
	served := sync.OnceValue(func() []string {
		_, env := moduletest.Serve(t, ".")
		return env
	})
	for _, b := range blocks(t) {
		if !b.isRun() {
			continue
		}
		t.Run(b.String(), func(t *testing.T) {
			for _, need := range strings.FieldsFunc(strings.TrimPrefix(b.how, "needs "), func(r rune) bool { return r == ',' || r == ' ' }) {
				lookFor(t, need)
			}
			if b.who == "run here" {
				b.run(t, here(), os.Environ())
			} else {
				b.run(t, t.TempDir(), append(os.Environ(), served()...))
			}
		})
	}
}

// lookFor skips a test where the machine lacks what a block needs.
func lookFor(t *testing.T, need string) {
	t.Helper()
	switch need {
	case testenv.Docker:
		dockertest.Connect(t)
	case testenv.Mirror:
		if len(debian.HostMirrors()["debian"]) == 0 {
			testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
		}
	case testenv.Cgo:
		if out, err := exec.Command("go", "env", "CGO_ENABLED").Output(); err != nil || strings.TrimSpace(string(out)) != "1" {
			testenv.Skip(t, testenv.Cgo, "go env CGO_ENABLED says %s %v", out, err)
		}
	case "long":
		if !testenv.Long() {
			t.Skip("it takes minutes")
		}
	case testenv.OpenSSL:
		testenv.NeedsCommand(t, need, need)
	default:
		t.Fatalf("nothing looks for %q", need)
	}
}

// cloned is a clone of this repository, with what isn't committed yet.
func cloned(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, moduletest.Copy(".", dir))
	out, err := exec.CommandContext(t.Context(), "git", "init", "--quiet", dir).CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// run types the commands of a block into one shell, and compares exit codes and outputs.
func (b block) run(t *testing.T, dir string, env []string) {
	commands := b.commands()
	const between = "\x1e"
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "%s\nprintf '\\036%%s\\036' $? | tee /dev/stderr\n", c.command)
	}
	shell := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	shell.Dir, shell.Env = dir, append(env, "NO_COLOR=1")
	var stdout, stderr strings.Builder
	shell.Stdout, shell.Stderr = &stdout, &stderr
	require.NoError(t, shell.Run(), stderr.String())
	said, complained := strings.Split(stdout.String(), between), strings.Split(stderr.String(), between)
	require.Len(t, said, 2*len(commands)+1, "%s\n%s", &stdout, &stderr)
	for i, c := range commands {
		have, code := said[2*i], said[2*i+1]
		fails := slices.ContainsFunc(c.output, func(line string) bool { return strings.HasPrefix(line, "Error:") })
		if fails {
			assert.NotEqual(t, "0", code, c.command)
			have += complained[2*i]
		} else if !doctor.MatchString(c.command) { // which ends with 3 where this machine has a fault
			assert.Equal(t, "0", code, "%s\n%s", c.command, complained[2*i])
		}
		if len(c.output) > 0 {
			assert.Regexp(t, shape(c.output), strings.TrimSpace(have)+"\n", c.command)
		}
	}
}

var doctor = regexp.MustCompile(`^go tool mage doctor *(#|$)`)

var numberOrMore = regexp.MustCompile(`\d+|…`)

// shape matches output of the shape that a document shows.
func shape(lines []string) string {
	p := `\A`
	for _, line := range lines {
		if strings.TrimSpace(line) == "…" {
			p += `(?:.*\n)*`
			continue
		}
		begin := 0
		for _, at := range numberOrMore.FindAllStringIndex(line, -1) {
			p += regexp.QuoteMeta(line[begin:at[0]])
			if line[at[0]:at[1]] == "…" {
				p += `.*`
			} else {
				p += `\d+`
			}
			begin = at[1]
		}
		p += regexp.QuoteMeta(line[begin:]) + `\n`
	}
	return p + `\z`
}
