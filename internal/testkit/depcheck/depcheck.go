// Package depcheck holds the repository to its plan: which room may use which, what only some rooms may import, and what no file may contain.
//
// In: a module's folder. Out: one line per breach. rooms.go is the plan; everything here reads it.
package depcheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath   string
	Name         string
	Doc          string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// Check gives every breach in the module at dir, sorted, and how many packages it looked at.
func Check(dir string) (breaches []string, packages int, err error) {
	pkgs, err := list(dir)
	if err != nil {
		return nil, 0, err
	}
	c := &checker{}
	for _, p := range pkgs {
		c.names(p)
		c.comment(p)
		c.imports(p)
		if err := c.source(p); err != nil {
			return nil, 0, err
		}
		if p.ImportPath == module+"/cmd/meshctl" {
			c.meshctl(p)
		}
	}
	entries, err := entries(dir)
	if err != nil {
		return nil, 0, err
	}
	for _, e := range entries {
		if !slices.Contains(topLevel(), e) {
			c.breach("layout", e, "does not belong at the top of the repository")
		}
	}
	slices.Sort(c.breaches)
	return slices.Compact(c.breaches), len(pkgs), nil
}

func list(dir string) ([]listed, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Doc,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages of %s: %w: %s", dir, err, stderr.String())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// entries are the names at the top of dir, without what git ignores.
func entries(dir string) ([]string, error) {
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	var names []string
	if out, err := cmd.Output(); err == nil {
		for file := range strings.Lines(string(out)) {
			top, _, _ := strings.Cut(strings.TrimSpace(file), "/")
			names = append(names, top)
		}
		slices.Sort(names)
		return slices.Compact(names), nil
	}
	// Not a checkout: an unpacked archive has nothing but what belongs there, and what building adds.
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the top of the repository: %w", err)
	}
	for _, e := range found {
		if !slices.Contains([]string{".git", ".cache", "bin"}, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

type checker struct{ breaches []string }

// breach records one line: rule, place, what is wrong.
func (c *checker) breach(rule, place, format string, args ...any) {
	c.breaches = append(c.breaches, fmt.Sprintf("%s: %s: %s", rule, place, fmt.Sprintf(format, args...)))
}

func (c *checker) names(p listed) {
	for _, part := range append(strings.Split(strings.TrimPrefix(p.ImportPath, module+"/"), "/"), p.Name) {
		if slices.Contains(bannedNames(), part) {
			c.breach("name", p.ImportPath, "%q says nothing about what is inside", part)
		}
	}
}

func (c *checker) comment(p listed) {
	if len(p.GoFiles) == 0 {
		return // a folder of tests
	}
	want := "Package " + p.Name + " "
	if p.Name == "main" {
		want = "Command " + path.Base(p.ImportPath) + " "
	}
	if !strings.HasPrefix(p.Doc, want) {
		c.breach("comment", p.ImportPath, "the package comment must begin with %q", want)
	}
}

func (c *checker) imports(p listed) {
	name, r, ok := roomOf(p.ImportPath)
	if !ok {
		c.breach("plan", p.ImportPath, "is in no room of the plan (internal/testkit/depcheck/rooms.go)")
		return
	}
	for _, i := range p.Imports {
		c.direction(p.ImportPath, name, r, i, false)
		c.library(p.ImportPath, r, i)
	}
	for _, i := range append(p.TestImports, p.XTestImports...) {
		c.direction(p.ImportPath, name, r, i, true)
	}
}

// direction judges one import by the layers. Tests may use the rest of their own layer and the test kit.
func (c *checker) direction(from, name string, r room, imported string, test bool) {
	if !strings.HasPrefix(imported, module+"/") {
		if first, _, _ := strings.Cut(imported, "/"); r.bare && !test && strings.Contains(first, ".") {
			c.breach("bare", from, "uses %s, but only the standard library is allowed", imported)
		}
		return
	}
	target, t, ok := roomOf(imported)
	switch {
	case !ok:
		return // said where that package itself is looked at
	case target == name && (r.tree || test):
	case target == name:
	case r.layer == testOnly:
	case t.layer == testOnly && test:
	case t.layer == testOnly:
		c.breach("direction", from, "uses %s, which is for tests", imported)
	case r.bare && !test && !t.bare:
		c.breach("bare", from, "uses %s, which is not one of the bare rooms", imported)
	case t.layer < r.layer:
	case t.layer == r.layer && (test || slices.Contains(r.sideways, target)):
	default:
		c.breach("direction", from, "uses %s, which is not below it", imported)
	}
}

func (c *checker) library(from string, r room, imported string) {
	for prefix, allowed := range libraries() {
		if (imported == prefix || strings.HasPrefix(imported, prefix+"/")) && !allowed(r.layer, r) {
			c.breach("library", from, "may not use %s", imported)
		}
	}
}

func (c *checker) meshctl(p listed) {
	for _, dep := range p.Deps {
		if name, _, ok := roomOf(dep); ok && slices.Contains(meshctlLeaves(), name) {
			c.breach("meshctl", p.ImportPath, "links %s", dep)
		}
	}
}
