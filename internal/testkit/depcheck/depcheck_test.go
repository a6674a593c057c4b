package depcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

func TestTheRepositoryFollowsItsPlan(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	breaches, packages, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	if packages < 10 {
		t.Errorf("looked at %d packages only", packages)
	}
	for _, b := range breaches {
		t.Error(b)
	}
}

// Each fixture is a small module with one breach; its comment is the line expected, or "nothing" where all is well.
func TestEveryRuleFindsItsBreach(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("finding fixtures: %d, %v", len(fixtures), err)
	}
	unproven := map[string]bool{}
	for _, rule := range []string{"layout", "name", "comment", "plan", "direction", "bare", "library", "meshctl", "init", "exit", "outside", "variable"} {
		unproven[rule] = true
	}
	for _, file := range fixtures {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSpace(string(a.Comment))
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range append(a.Files, txtar.File{Name: "go.mod", Data: []byte("module " + module + "\n\ngo 1.26\n")}) {
				path := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, _, err := Check(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				got = []string{"nothing"}
			}
			if strings.Join(got, "\n") != want {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), want)
			}
			for line := range strings.Lines(want) {
				rule, _, _ := strings.Cut(line, ":")
				delete(unproven, rule)
			}
		})
	}
	for rule := range unproven {
		t.Errorf("no fixture breaks the rule %q", rule)
	}
}
