package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// goSource checks Go code that speaks to Dagger: the images of From.
func (f *file) goSource() {
	if !strings.Contains(f.text, ".From(") || !strings.Contains(f.text, "dagger") {
		return // most files: not worth parsing
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, f.name, f.text, parser.SkipObjectResolution)
	if err != nil {
		return // the compiler says so
	}
	dagger := false
	for _, spec := range parsed.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		// A module of Dagger's has the package generated, as internal/dagger.
		dagger = dagger || name == "dagger.io/dagger" || strings.HasSuffix(name, "/internal/dagger")
	}
	if !dagger {
		return
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		call, ok := node.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		text, isText := call.Args[0].(*ast.BasicLit)
		if !ok || !isText || method.Sel.Name != "From" || text.Kind != token.STRING {
			return true
		}
		if image, err := strconv.Unquote(text.Value); err == nil && image != "" {
			line := set.Position(text.Pos()).Line
			f.image(line, line, f.only(line, image), "From", image, image)
		}
		return true
	})
}
