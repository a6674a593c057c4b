package input

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/manifest"
)

func TestDecode(t *testing.T) {
	const named, generated = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: a}}"
	for name, tc := range map[string]struct{ text, want string }{
		"the same object in two files is told":           {named, "two.yaml:1:46: error M0007: ConfigMap a: metadata.name: the same object is in one.yaml:1:46"},
		"objects that the server names are not the same": {generated, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sources := []Source{{Name: "one.yaml", Data: []byte(tc.text)}, {Name: "two.yaml", Data: []byte(tc.text)}}
			objs, fs := Decode(sources, manifest.Options{})
			if len(objs) != 2 || (len(fs) == 0) != (tc.want == "") || !strings.Contains(fmt.Sprint(fs), tc.want) {
				t.Errorf("%d objects, findings %v, want %q", len(objs), fs, tc.want)
			}
		})
	}
}
