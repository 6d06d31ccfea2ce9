package testenv

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

// TestEverySkipCanBeForbidden reads the repository's tests: a skip with a reason is
// for the sake of time or comes here. (One without is for inputs of a fuzzer.)
func TestEverySkipCanBeForbidden(t *testing.T) {
	var silent []string
	seen := 0
	require.NoError(t, filepath.WalkDir("../..", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		seen++
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				return !calls(n.Cond, "testing", "Short") && !calls(n.Cond, "testenv", "Long")
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Skip") && len(n.Args) > 0 && !calls(n, "testenv", "Skip") {
					silent = append(silent, files.Position(n.Pos()).String())
				}
			}
			return true
		})
		return nil
	}))
	assert.Greater(t, seen, 40, "where are the tests?")
	assert.Empty(t, silent, "skips that BERTH_TEST_REQUIRE can't forbid. Call testenv.Skip")
}

// calls reports whether an expression calls that function of a package.
func calls(e ast.Expr, pkg, name string) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == name {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == pkg {
				found = true
			}
		}
		return !found
	})
	return found
}
