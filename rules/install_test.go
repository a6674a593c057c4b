package rules_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/testkit/golden"
	"github.com/meshctl/meshctl/internal/version"
	"github.com/meshctl/meshctl/rules"
)

//go:generate go test -run ^TestTheInstallFileHoldsTheDefinitions$ . -args -update

// definitions is the last line of the install file that is written by hand.
const definitions = "# The definitions of config.istio.io/v1alpha2, copied from rules/crds.\n"

// The test writes the file's end when it runs with -update, and reads from the disk what generators wrote a moment ago.
func TestTheInstallFileHoldsTheDefinitions(t *testing.T) {
	text, err := os.ReadFile("install/istio.yaml")
	if err != nil {
		t.Fatal(err)
	}
	byHand, _, found := bytes.Cut(text, []byte(definitions))
	if !found {
		t.Fatalf("no line %q", definitions)
	}
	want := append(byHand, definitions...)
	for i, file := range golden.Cases(t, "crds/*.yaml") {
		crd, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			want = append(want, "---\n"...)
		}
		want = append(want, bytes.TrimPrefix(crd, []byte("---\n"))...)
	}
	golden.Compare(t, "install/istio.yaml", want)
}

func TestTheInstallFileNamesTheImagesOfThisVersion(t *testing.T) {
	text, err := fs.ReadFile(rules.FS, "install/istio.yaml")
	if err != nil {
		t.Fatal(err)
	}
	images := 0
	for line := range strings.Lines(string(text)) {
		image, ok := strings.CutPrefix(strings.TrimSpace(line), "image: ")
		if !ok {
			continue
		}
		images++
		if want := fmt.Sprintf(":%s", version.Version); !strings.HasPrefix(image, "docker.io/meshctl/") || !strings.HasSuffix(image, want) {
			t.Errorf("image %s, want docker.io/meshctl/…%s", image, want)
		}
	}
	if images == 0 {
		t.Error("no image in it")
	}
}
