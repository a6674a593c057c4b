package finding_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/meshctl/meshctl/internal/finding"
)

func TestStepsTakeApartWhatChildAndItemMake(t *testing.T) {
	path := finding.Child("", "spec")
	path = finding.Item(finding.Child(path, "route"), 2)
	path = finding.Child(finding.Child(path, "labels"), `app.kubernetes.io/a"b]`)
	path = finding.Child(finding.Child(path, "80"), "x-y")
	if want := `spec.route[2].labels["app.kubernetes.io/a\"b]"]["80"].x-y`; path != want {
		t.Errorf("path is %s, want %s", path, want)
	}
	want := []finding.Step{{Key: "spec"}, {Key: "route"}, {Index: 2}, {Key: "labels"}, {Key: `app.kubernetes.io/a"b]`}, {Key: "80"}, {Key: "x-y"}}
	if diff := cmp.Diff(want, finding.Steps(path)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func FuzzStepsNeverPanics(f *testing.F) {
	for _, s := range []string{"a.b[0]", `a["x"].c`, "a[", `a["`, `["\x`, "..", "[x]"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { finding.Steps(s) })
}

func TestNearest(t *testing.T) {
	fields := []string{"destination", "precedence", "match", "route", "httpReqTimeout", "httpReqRetries"}
	for name, want := range map[string]string{
		"destnation":     "destination",
		"precedents":     "precedence",
		"rotue":          "route",
		"http-req-retry": "httpReqRetries",
		"HTTPReqTimeout": "httpReqTimeout",
		"weight":         "",
		"x":              "",
		"":               "",
	} {
		if got := finding.Nearest(name, fields); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
