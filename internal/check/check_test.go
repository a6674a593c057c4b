package check_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/golden"
	"github.com/meshctl/meshctl/rules"
)

// judge reads and judges files as the command line does.
func judge(t testing.TB, files map[string][]byte) []finding.Finding {
	t.Helper()
	var objs []*objects.Object
	var fs []finding.Finding
	for name, data := range files {
		read, found := manifest.Decode(name, data, manifest.Options{DefaultNamespace: "default"})
		objs, fs = append(objs, read...), append(fs, found...)
	}
	for _, o := range objs {
		fs = append(fs, check.Object(o)...)
	}
	fs = append(fs, check.Set(objects.NewSet(objs...), objs)...)
	finding.Sort(fs)
	return fs
}

func TestFindings(t *testing.T) {
	for _, path := range golden.Cases(t, "testdata/*/in.yaml") {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, f := range judge(t, map[string][]byte{"in.yaml": data}) {
				fmt.Fprintln(&b, f)
			}
			golden.Compare(t, filepath.Join(dir, "findings.txt"), b.Bytes())
		})
	}
}

// The shop with any one of the routes is as it should be.
func TestTheTourIsValidWithoutAWarning(t *testing.T) {
	shop := map[string][]byte{}
	var routes []string
	entries, err := rules.FS.ReadDir("bookinfo")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		data, err := rules.FS.ReadFile("bookinfo/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, "bookinfo-"), name == "ingress.yaml":
			shop[name] = read(name)
		case strings.HasPrefix(name, "route-"):
			routes = append(routes, name)
		}
	}
	if len(shop) < 5 || len(routes) < 8 {
		t.Fatalf("%d files of the shop and %d of routes", len(shop), len(routes))
	}
	for _, route := range routes {
		t.Run(route, func(t *testing.T) {
			files := map[string][]byte{route: read(route)}
			for name, data := range shop {
				files[name] = data
			}
			for _, f := range judge(t, files) {
				if f.Severity > finding.Info {
					t.Error(f)
				}
			}
		})
	}
}

func TestHostname(t *testing.T) {
	for want, svc := range map[string]v1alpha2.IstioService{
		"a.rules.svc.cluster.local": {Name: "a"},
		"a.shop.svc.cluster.local":  {Name: "a", Namespace: "shop"},
		"a.rules.service.consul":    {Name: "a", Domain: "service.consul"},
		"*.cnn.com":                 {Service: "*.cnn.com"},
	} {
		if got := check.Hostname(svc, "rules", "cluster.local"); got != want {
			t.Errorf("Hostname(%+v) = %s, want %s", svc, got, want)
		}
	}
	if got := check.Hostname(v1alpha2.IstioService{Name: "a"}, "", ""); got != "a" {
		t.Errorf("without namespace and domain: %s", got)
	}
}

// Whatever can be read can be judged, and the order of objects does not matter.
func FuzzJudge(f *testing.F) {
	for _, path := range golden.Cases(f, "testdata/*/in.yaml") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, fs := manifest.Decode("fuzz", data, manifest.Options{DefaultNamespace: "default"})
		for _, o := range objs {
			for _, found := range check.Object(o) {
				if found.Message == "" || found.Field == "" {
					t.Errorf("a finding without message or field: %#v", found)
				}
			}
		}
		if slices.ContainsFunc(fs, func(f finding.Finding) bool { return f.Code == finding.DuplicateObject }) {
			return
		}
		reversed := make([]*objects.Object, len(objs))
		for i, o := range objs {
			reversed[len(objs)-1-i] = o
		}
		one, other := check.Set(objects.NewSet(objs...), objs), check.Set(objects.NewSet(reversed...), reversed)
		finding.Sort(one)
		finding.Sort(other)
		if fmt.Sprint(one) != fmt.Sprint(other) {
			t.Errorf("the order of objects matters:\n%v\n%v", one, other)
		}
	})
}
