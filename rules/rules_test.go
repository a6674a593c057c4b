package rules_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/rules"
)

// tourFiles are a user's files, kept as that user wrote them: odd indentation, missing namespaces and all.
var tourFiles = map[string]string{
	"ingress.yaml":                 "ae70094256cdad09e9371b4bd93ad2a1fd46bf1e87acd0c17f67ad143ac2b906",
	"quota-handler.yaml":           "416fa7ae28c8a9c3f667cbc9121967d814efc64329ae710494e0cd87dff77df8",
	"quota-instance-and-rule.yaml": "b017922c209ebe3e58c2ea7eeaa08cf56d7b860acd7d5adf3695f574cb309ceb",
	"route-all-v2.yaml":            "1a5cf19f4512cee2d2b0640fd5c9f4438c3e52dc16da360d86cd8a5fec2531a4",
	"route-default-v1.yaml":        "7dd59d9848730143e80f95531aca7e1692ac4a492d73f27a95f164ccf0aa0f5d",
	"route-user-jason-v2.yaml":     "51e67a3650fb34a53b34f48534188689456df127072449549e82f992037d51d7",
	"route-v1-90-v2-10.yaml":       "c812f152c7ff1f221d36a0abb329dad4b6e1dea9a9ecf89b91df8cc448312c6b",
}

// seedDir holds the originals where the repository stands beside them; elsewhere the recorded digests have to do.
const seedDir = "../../shared/seed"

func TestTourFilesAreByteForByteTheUsers(t *testing.T) {
	for name, want := range tourFiles {
		got, err := fs.ReadFile(rules.FS, "bookinfo/"+name)
		if err != nil {
			t.Errorf("reading %s: %v", name, err)
			continue
		}
		sum := sha256.Sum256(got)
		if hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s has sha256 %x, want %s", name, sum, want)
		}
	}
	if _, err := os.Stat(seedDir); err != nil {
		t.Logf("no originals at %s: compared with the recorded digests only", seedDir)
		return
	}
	originals, err := filepath.Glob(filepath.Join(seedDir, "*.yaml"))
	if err != nil || len(originals) == 0 {
		t.Fatalf("finding originals in %s: %d files, %v", seedDir, len(originals), err)
	}
	for _, path := range originals {
		name := filepath.Base(path)
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fs.ReadFile(rules.FS, "bookinfo/"+name)
		if err != nil {
			t.Errorf("reading %s: %v", name, err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the original", name)
		}
		if tourFiles[name] == "" {
			t.Errorf("%s has no recorded digest", name)
		}
	}
}

// object is what every shipped document must have.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Selector any `json:"selector"`
	} `json:"spec"`
}

func TestBookinfoFilesHoldTheObjectsTheyAreNamedFor(t *testing.T) {
	want := map[string][]string{
		"bookinfo-v1.yaml": {
			"v1/Service/details", "extensions/v1beta1/Deployment/details-v1",
			"v1/Service/reviews", "extensions/v1beta1/Deployment/reviews-v1",
			"v1/Service/productpage", "extensions/v1beta1/Deployment/productpage-v1",
		},
		"bookinfo-ratings.yaml":    {"v1/Service/ratings", "extensions/v1beta1/Deployment/ratings-v1"},
		"bookinfo-reviews-v2.yaml": {"extensions/v1beta1/Deployment/reviews-v2"},
		"bookinfo-reviews-v3.yaml": {"extensions/v1beta1/Deployment/reviews-v3"},
		"route-rule-all-v1.yaml": {
			"config.istio.io/v1alpha2/RouteRule/productpage-default", "config.istio.io/v1alpha2/RouteRule/reviews-default",
			"config.istio.io/v1alpha2/RouteRule/ratings-default", "config.istio.io/v1alpha2/RouteRule/details-default",
		},
		"route-rule-reviews-v3.yaml":         {"config.istio.io/v1alpha2/RouteRule/reviews-default"},
		"route-rule-reviews-50-v3.yaml":      {"config.istio.io/v1alpha2/RouteRule/reviews-default"},
		"route-rule-reviews-v2-v3.yaml":      {"config.istio.io/v1alpha2/RouteRule/reviews-v2-v3"},
		"route-rule-reviews-test-v2.yaml":    {"config.istio.io/v1alpha2/RouteRule/reviews-test-v2"},
		"route-rule-ratings-test-delay.yaml": {"config.istio.io/v1alpha2/RouteRule/ratings-test-delay"},
		"destination-policy-reviews.yaml":    {"config.istio.io/v1alpha2/DestinationPolicy/reviews-random"},
	}
	entries, err := fs.ReadDir(rules.FS, "bookinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if want[e.Name()] == nil && tourFiles[e.Name()] == "" {
			t.Errorf("%s is in no list of this test", e.Name())
		}
	}
	for name, objects := range want {
		data, err := fs.ReadFile(rules.FS, "bookinfo/"+name)
		if err != nil {
			t.Errorf("reading %s: %v", name, err)
			continue
		}
		var got []string
		for _, doc := range strings.Split(string(data), "\n---\n") {
			var o object
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got = append(got, o.APIVersion+"/"+o.Kind+"/"+o.Metadata.Name)
			if o.Kind == "Deployment" && o.Spec.Selector != nil {
				t.Errorf("%s: Deployment %s has a selector; files of 2017 have none", name, o.Metadata.Name)
			}
		}
		if strings.Join(got, " ") != strings.Join(objects, " ") {
			t.Errorf("%s holds\n %v\nwant\n %v", name, got, objects)
		}
	}
}
