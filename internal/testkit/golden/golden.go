// Package golden compares what a test made with a file that was reviewed, and rewrites the file when the test runs with -update.
package golden

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aymanbagabas/go-udiff"
)

// registered once, when a test binary links this package; go test parses it with its own flags.
var update = flag.Bool("update", false, "rewrite golden files instead of comparing with them")

// Compare fails t unless the file at path holds got. An empty got stands for a file that is absent.
func Compare(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		write(t, path, got)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("reading %s: %v", path, err)
	}
	if diff := udiff.Unified(path, "got", string(want), string(got)); diff != "" {
		t.Errorf("%s differs (run with -update to accept):\n%s", path, diff)
	}
}

func write(t testing.TB, path string, got []byte) {
	t.Helper()
	if len(got) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("removing %s: %v", path, err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatalf("making the folder of %s: %v", path, err)
	}
	if err := os.WriteFile(path, got, 0o644); err != nil {
		t.Fatalf("writing %s: %v", path, err)
	}
}

// Cases are the folders or files that match pattern, and fails t when there is none: a test without cases tests nothing.
func Cases(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatalf("finding cases %s: %v", pattern, err)
	}
	if len(found) == 0 {
		t.Fatalf("no case matches %s", pattern)
	}
	return found
}
