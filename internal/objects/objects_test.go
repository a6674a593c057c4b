package objects_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

func service(namespace, name, version string) *objects.Object {
	return &objects.Object{
		GVK:    schema.GroupVersionKind{Version: "v1", Kind: "Service"},
		Value:  &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
		Origin: objects.Origin{Version: version},
	}
}

func names(objs []*objects.Object) []string {
	var out []string
	for _, o := range objs {
		out = append(out, o.Ref().String()+" "+o.Origin.Version)
	}
	return out
}

func TestASetIsInOneOrderWhateverTheInput(t *testing.T) {
	a, b, c := service("x", "b", "1"), service("x", "a", "2"), service("a", "z", "3")
	want := []string{"Service a/z 3", "Service x/a 2", "Service x/b 1"}
	for _, in := range [][]*objects.Object{{a, b, c}, {c, b, a}, {b, c, a}} {
		set := objects.NewSet(in...)
		if diff := cmp.Diff(want, names(set.All())); diff != "" {
			t.Errorf("all (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, names(set.Kind("", "Service"))); diff != "" {
			t.Errorf("of the kind (-want +got):\n%s", diff)
		}
	}
}

func TestAnOverlayReplacesObjectsOfTheSameName(t *testing.T) {
	set := objects.NewSet(service("x", "a", "old"), service("x", "b", "old"))
	over := set.Overlay(objects.NewSet(service("x", "b", "new"), service("x", "c", "new")))
	if diff := cmp.Diff([]string{"Service x/a old", "Service x/b new", "Service x/c new"}, names(over.All())); diff != "" {
		t.Errorf("overlay (-want +got):\n%s", diff)
	}
	if got := set.Get(objects.Key{Kind: "Service", Namespace: "x", Name: "b"}); got.Origin.Version != "old" {
		t.Error("the set beneath has changed")
	}
}

func TestWhatIsSentIsWhatTheDocumentSays(t *testing.T) {
	content := map[string]any{
		"apiVersion": "config.istio.io/v1alpha2", "kind": "RouteRule",
		"metadata": map[string]any{"name": "a"}, "spec": map[string]any{"destination": map[string]any{"name": "x"}},
	}
	rule := &v1alpha2.RouteRule{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	rule.Spec.Destination.Name = "x"
	o := &objects.Object{GVK: v1alpha2.GroupVersion.WithKind("RouteRule"), Value: rule, Content: content}
	u, err := o.Unstructured()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(content, u.Object); diff != "" {
		t.Errorf("sent (-document +sent):\n%s", diff)
	}
	u.SetName("b")
	if o.Content["metadata"].(map[string]any)["name"] != "a" {
		t.Error("changing what is sent changes the object")
	}
	o.Content = nil
	if u, err = o.Unstructured(); err != nil {
		t.Fatal(err)
	}
	if u.GetKind() != "RouteRule" || u.GetName() != "a" || u.GetAPIVersion() != "config.istio.io/v1alpha2" {
		t.Errorf("of an object from a cluster: %v", u.Object)
	}
	if _, there := u.Object["status"]; there {
		t.Error("an empty status is sent")
	}
}

func TestPositionWithoutFieldsIsTheFile(t *testing.T) {
	if got := (objects.Origin{File: "a.yaml"}).Position("spec"); got != (finding.Position{File: "a.yaml"}) {
		t.Errorf("position %v", got)
	}
}
