package finding_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/meshctl/meshctl/internal/finding"
)

func TestRegistryDescribesEveryCode(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if value, ok := spec.Values[0].(*ast.BasicLit); ok {
			code, err := strconv.Unquote(value.Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[spec.Names[0].Name] = code
		}
		return true
	})
	if len(codes) == 0 {
		t.Fatal("codes.go declares no code")
	}
	last := ""
	for _, d := range finding.Registry() {
		if codes[d.Name] != string(d.Code) {
			t.Errorf("%s is described as %s, codes.go says %q", d.Name, d.Code, codes[d.Name])
		}
		delete(codes, d.Name)
		if d.Meaning == "" || d.Do == "" {
			t.Errorf("%s is not described", d.Name)
		}
		if string(d.Code) <= last {
			t.Errorf("%s comes after %s", d.Code, last)
		}
		last = string(d.Code)
	}
	for name := range codes {
		t.Errorf("%s is not described", name)
	}
}
