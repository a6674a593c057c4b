package depcheck

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// source looks into the package's own files: no init, no package variable that changes, no exit outside commands, and nothing of the outside
// world below layer 3. Tests and generated files are left alone.
func (c *checker) source(p listed) error {
	_, r, ok := roomOf(p.ImportPath)
	if !ok {
		return nil
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if !ast.IsGenerated(f) {
			files = append(files, f)
		}
	}
	at := func(n ast.Node) string {
		pos := fset.Position(n.Pos())
		return p.ImportPath + "/" + filepath.Base(pos.Filename) + ":" + strconv.Itoa(pos.Line)
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				c.breach("init", at(fn), "package initialisers are not used here")
			}
		}
		if r.layer != commands && r.layer != testOnly {
			c.calls("exit", f, at, map[string][]string{"os": {"Exit"}, "log": {"Fatal*"}})
		}
		if r.layer <= pure {
			c.calls("outside", f, at, outside())
		}
	}
	if r.layer != testOnly {
		c.variables(files, at)
	}
	return nil
}

// outside is what layers 0 to 2 may not touch, by import path: names, with * at the end for a beginning, or alone for the whole package.
func outside() map[string][]string {
	return map[string][]string{
		"time":         {"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"},
		"math/rand":    {"*"},
		"math/rand/v2": {"*"},
		"crypto/rand":  {"*"},
		"os":           {"*"},
		"os/exec":      {"*"},
		"os/signal":    {"*"},
		"syscall":      {"*"},
		"net":          {"Dial*", "Listen*", "Lookup*", "Interface*", "Resolve*"},
		"net/http":     {"Get", "Head", "Post*", "Client", "Transport", "Default*", "Listen*", "Serve*", "Server", "FileServer*", "NewRequest*"},
	}
}

// calls reports every use of a forbidden name of an imported package.
func (c *checker) calls(rule string, f *ast.File, at func(ast.Node) string, forbidden map[string][]string) {
	local := map[string]string{}
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil || forbidden[path] == nil {
			continue
		}
		name := strings.TrimSuffix(path, "/v2")
		name = name[strings.LastIndex(name, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		local[name] = path
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || x.Obj != nil { // a local name that hides the package
			return true
		}
		path := local[x.Name]
		if slices.ContainsFunc(forbidden[path], func(pattern string) bool {
			prefix, open := strings.CutSuffix(pattern, "*")
			return pattern == sel.Sel.Name || open && strings.HasPrefix(sel.Sel.Name, prefix)
		}) {
			c.breach(rule, at(sel), "uses %s.%s", path, sel.Sel.Name)
		}
		return true
	})
}

// variables reports package-level variables that can change: those something assigns to or takes the address of, those without a value, and
// those that hold a lock, a channel or an atomic.
func (c *checker) variables(files []*ast.File, at func(ast.Node) string) {
	declared := map[string]*ast.ValueSpec{}
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			embeds := func(doc *ast.CommentGroup) bool {
				return doc != nil && slices.ContainsFunc(doc.List, func(line *ast.Comment) bool { return strings.HasPrefix(line.Text, "//go:embed ") })
			}
			for _, s := range g.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if name.Name == "_" || embeds(g.Doc) || embeds(spec.Doc) {
						continue
					}
					declared[name.Name] = spec
					switch {
					case len(spec.Values) == 0:
						c.breach("variable", at(name), "%s has no value, so something must set it", name.Name)
					case changes(spec.Type) || i < len(spec.Values) && changes(spec.Values[i]):
						c.breach("variable", at(name), "%s can change", name.Name)
					}
				}
			}
		}
	}
	// isVariable says whether the expression is, or is part of, one of those variables.
	isVariable := func(e ast.Expr) (string, bool) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				spec := declared[x.Name]
				return x.Name, spec != nil && (x.Obj == nil || x.Obj.Decl == spec)
			default:
				return "", false
			}
		}
	}
	report := func(e ast.Expr, what string) {
		if name, ok := isVariable(e); ok {
			c.breach("variable", at(e), "%s is %s", name, what)
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						report(e, "assigned to")
					}
				}
			case *ast.IncDecStmt:
				report(n.X, "counted")
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					report(n.X, "pointed at")
				}
			case *ast.CallExpr:
				if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") && len(n.Args) > 0 {
					report(n.Args[0], "emptied")
				}
			}
			return true
		})
	}
}

// changes says whether a type or a value is made to be changed.
func changes(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.CallExpr:
		fn, ok := x.Fun.(*ast.Ident)
		return ok && (fn.Name == "make" || fn.Name == "new")
	case *ast.ChanType:
		return true
	case *ast.CompositeLit:
		return changes(x.Type)
	case *ast.SelectorExpr:
		pkg, ok := x.X.(*ast.Ident)
		return ok && (pkg.Name == "sync" || pkg.Name == "atomic")
	case *ast.StarExpr:
		return changes(x.X)
	case *ast.UnaryExpr:
		return changes(x.X)
	case *ast.IndexExpr: // atomic.Pointer[T]
		return changes(x.X)
	}
	return false
}
