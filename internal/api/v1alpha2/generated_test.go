package v1alpha2_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/testkit/golden"
)

// The command is the one in the go:generate line of types.go, with its output beside.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it builds controller-gen")
	}
	source, err := os.ReadFile("types.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, found := strings.Cut(string(source), "//go:generate ")
	line, _, _ = strings.Cut(line, "\n")
	const crds = "../../../rules/crds"
	if !found || !strings.Contains(line, "output:crd:dir="+crds) {
		t.Fatalf("types.go has no such go:generate line: %q", line)
	}
	dir := t.TempDir()
	words := strings.Fields(strings.ReplaceAll(line, "output:crd:dir="+crds, "output:crd:dir="+dir))
	command := exec.Command(words[0], append(words[1:], "output:object:dir="+dir)...)
	if out, err := command.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "true" && strings.Contains(string(out), "dial tcp") {
			t.Skipf("SKIPPED: the tool's modules are not here: %s", out)
		}
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	for _, pattern := range []string{filepath.Join(crds, "*.yaml"), "zz_generated.*.go"} {
		for _, have := range golden.Cases(t, pattern) {
			compare(t, have, filepath.Join(dir, filepath.Base(have)))
		}
	}
	if made := golden.Cases(t, filepath.Join(dir, "*")); len(made) != 4 {
		t.Errorf("the generator made %d files: %v", len(made), made)
	}
}

func compare(t *testing.T, have, want string) {
	t.Helper()
	a, err := os.ReadFile(have)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(want)
	if err != nil {
		t.Errorf("%s is not generated any more", have)
		return
	}
	if string(a) != string(b) {
		t.Errorf("%s is stale: run make gen", have)
	}
}
