package manifest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/golden"
)

// options of a case are in its first line, as in "# options: namespace=a default=b keep".
func options(data []byte) manifest.Options {
	var opt manifest.Options
	line, _, _ := strings.Cut(string(data), "\n")
	list, ok := strings.CutPrefix(line, "# options:")
	if !ok {
		return opt
	}
	for _, word := range strings.Fields(list) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "namespace":
			opt.Namespace = value
		case "default":
			opt.DefaultNamespace = value
		case "keep":
			opt.KeepAPIVersions = true
		default:
			panic("unknown option " + word)
		}
	}
	return opt
}

func TestDecode(t *testing.T) {
	for _, path := range golden.Cases(t, "testdata/*/in.*") {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			objs, fs := manifest.Decode(filepath.Base(path), data, options(data))
			golden.Compare(t, filepath.Join(dir, "findings.txt"), lines(fs))
			golden.Compare(t, filepath.Join(dir, "objects.yaml"), render(t, objs))
		})
	}
}

func lines(fs []finding.Finding) []byte {
	var b bytes.Buffer
	for _, f := range fs {
		fmt.Fprintln(&b, f)
	}
	return b.Bytes()
}

// render writes what would be sent to the API server.
func render(t testing.TB, objs []*objects.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, o := range objs {
		u, err := o.Unstructured()
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "---\n# document %d, %s, %T\n%s", o.Origin.Document, o.Origin.Position(""), o.Value, text)
	}
	return b.Bytes()
}
