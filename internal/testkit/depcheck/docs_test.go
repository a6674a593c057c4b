package depcheck

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A path in code marks, as `internal/check/routerule.go` or `internal/cli/<verb>/`.
	codePath = regexp.MustCompile("`((?:\\.ci|\\.tools|cmd|completions|docs|internal|rules)/[^`\\s]*)`")
	// The target of a link inside the repository.
	link        = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	placeholder = regexp.MustCompile(`<[^>]*>|NNNN`)
)

// dangling gives the paths that a document names and the repository at root does not have.
func dangling(root, document string, text []byte) []string {
	var missing []string
	look := func(named, path string) {
		path = strings.TrimRight(placeholder.ReplaceAllString(path, "*"), ".,")
		if found, err := filepath.Glob(path); err != nil || len(found) == 0 {
			missing = append(missing, fmt.Sprintf("%s names %s, which does not exist", document, named))
		}
	}
	for _, m := range codePath.FindAllSubmatch(text, -1) {
		look(string(m[1]), filepath.Join(root, string(m[1])))
	}
	for _, m := range link.FindAllSubmatch(text, -1) {
		look(string(m[1]), filepath.Join(root, filepath.Dir(document), string(m[1])))
	}
	return missing
}

func TestEveryPathInTheDocumentsExists(t *testing.T) {
	const root = "../../.."
	documents := []string{"README.md"}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			path, err = filepath.Rel(root, path)
			documents = append(documents, path)
		}
		return err
	})
	if err != nil || len(documents) < 5 {
		t.Fatalf("finding documents: %d, %v", len(documents), err)
	}
	for _, document := range documents {
		text, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range dangling(root, document, text) {
			t.Error(m)
		}
	}
}

func TestAPathThatDoesNotExistIsFound(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "internal/cli/get"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "See `internal/cli/<verb>/`, `internal/gone.go`, [there](../internal/cli), [nowhere](nowhere.md#part) and [the web](https://example.org/x)."
	got := strings.Join(dangling(root, "docs/a.md", []byte(text)), "; ")
	want := "docs/a.md names internal/gone.go, which does not exist; docs/a.md names nowhere.md, which does not exist"
	if got != want {
		t.Errorf("found %q, want %q", got, want)
	}
}
