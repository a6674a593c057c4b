package store

import (
	"os"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

func TestDeleteNeverTakesACollection(t *testing.T) {
	err := (&Store{}).Delete(t.Context(), Target{}, "", metav1.DeletePropagationBackground, false)
	if err == nil || !strings.Contains(err.Error(), "a whole collection is never deleted") {
		t.Fatalf("got %v", err)
	}
}

func TestDeleteLeavesAnotherObjectOfTheName(t *testing.T) {
	server := apiserver.Shared(t)
	flags := genericclioptions.NewConfigFlags(true)
	*flags.KubeConfig = server.KubeconfigFor(t, server.Namespace(t))
	client, err := kube.Connect(flags)
	if err != nil {
		t.Fatal(err)
	}
	s := New(client)
	obj := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"), &obj.Object); err != nil {
		t.Fatal(err)
	}
	target, err := s.Place(obj)
	if err != nil {
		t.Fatal(err)
	}
	create := func() types.UID {
		stored, err := s.Create(t.Context(), target, obj, false)
		if err != nil {
			t.Fatal(err)
		}
		return stored.GetUID()
	}
	first := create()
	if err := s.Delete(t.Context(), target, first, metav1.DeletePropagationBackground, false); err != nil {
		t.Fatal(err)
	}
	second := create()
	if err := s.Delete(t.Context(), target, first, metav1.DeletePropagationBackground, false); !apierrors.IsConflict(err) {
		t.Errorf("got %v, want a conflict", err)
	}
	if stored, err := s.Get(t.Context(), target); err != nil || stored.GetUID() != second {
		t.Errorf("the second object: got %v, %v", stored, err)
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
