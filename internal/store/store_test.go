package store

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestDeleteNeverTakesACollection(t *testing.T) {
	err := (&Store{}).Delete(t.Context(), Target{}, metav1.DeletePropagationBackground, false)
	if err == nil || !strings.Contains(err.Error(), "a whole collection is never deleted") {
		t.Fatalf("got %v", err)
	}
}

func TestNamespacesOf(t *testing.T) {
	for name, tc := range map[string]struct{ spec, want string }{
		"its own":                           {`{destination: {name: a}}`, "own"},
		"those of destinations and sources": {`{destination: {name: a, namespace: b}, match: {source: {name: c, namespace: d}}}`, "b d own"},
		"those of routes":                   {`{destination: {name: a}, route: [{destination: {name: a, namespace: b}}]}`, "b own"},
		"those of full names in a cluster":  {`{destination: {service: a.b.svc.cluster.local}}`, "b own"},
		"no host outside of the cluster":    {`{destination: {service: www.b.example}}`, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte("metadata: {namespace: own}\nspec: "+tc.spec), &u.Object); err != nil {
				t.Fatal(err)
			}
			got := NamespacesOf(u)
			slices.Sort(got)
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
		})
	}
}
