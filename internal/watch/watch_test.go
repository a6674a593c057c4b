package watch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

const patience = 20 * time.Second

// lax installs the mesh's kinds without their schemas, as another release might have left them.
func lax(t *testing.T, client dynamic.Interface) {
	t.Helper()
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for kind, plural := range map[string]string{"RouteRule": "routerules", "DestinationPolicy": "destinationpolicies", "EgressRule": "egressrules"} {
		crd := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": plural + ".config.istio.io"},
			"spec": map[string]any{
				"group": "config.istio.io", "scope": "Namespaced", "names": map[string]any{"kind": kind, "plural": plural},
				"versions": []any{map[string]any{
					"name": "v1alpha2", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
					"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
				}},
			},
		}}
		if _, err := crds.Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// watched collects what a Watcher says.
type watched struct {
	t       *testing.T
	w       *Watcher
	updates chan Update
}

func start(t *testing.T, server *apiserver.Server, client dynamic.Interface) *watched {
	t.Helper()
	w, err := New(Config{Kube: server.Client(t), Dynamic: client, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	x := &watched{t: t, w: w, updates: make(chan Update, 10_000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, func(u Update) { x.updates <- u }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return x
}

// until returns the first update that is as wanted.
func (x *watched) until(what string, wanted func(Update) bool) Update {
	x.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case u := <-x.updates:
			if wanted(u) {
				return u
			}
		case <-deadline:
			x.t.Fatalf("waiting for %s: gave up; still waiting for %v", what, x.w.Waiting())
		}
	}
}

func TestWatching(t *testing.T) {
	server := apiserver.Shared(t)
	client, err := dynamic.NewForConfig(server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	kube := server.Client(t)
	ns := server.Namespace(t)
	service := func(name string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	for i := range 50 { // all of these are in the first update, or a Pilot that restarts would take services away
		if _, err := kube.CoreV1().Services(ns).Create(t.Context(), service(fmt.Sprint("s", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	lax(t, client)
	x := start(t, server, client)
	count := func(u Update) int {
		return len(slices.DeleteFunc(slices.Clone(u.Set.Kind("", "Service")), func(o *objects.Object) bool { return o.Value.GetNamespace() != ns }))
	}
	first := x.until("the first update", func(Update) bool { return true })
	if count(first) != 50 {
		t.Fatalf("%d services in the first update, want 50", count(first))
	}
	if w := x.w.Waiting(); len(w) != 0 {
		t.Errorf("waiting for %v", w)
	}

	t.Run("an object that cannot be read becomes findings and harms nothing", func(t *testing.T) {
		rules := client.Resource(v1alpha2.GroupVersion.WithResource("routerules")).Namespace(ns)
		make := func(name string, spec map[string]any) {
			t.Helper()
			u := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "config.istio.io/v1alpha2", "kind": "RouteRule", "metadata": map[string]any{"name": name}, "spec": spec,
			}}
			if _, err := rules.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		make("bad", map[string]any{"destination": map[string]any{"name": "x"}, "precedence": "high"})
		make("good", map[string]any{"destination": map[string]any{"name": "x"}, "precedence": int64(1)})
		key := func(name string) objects.Key {
			return objects.Key{Group: "config.istio.io", Kind: "RouteRule", Namespace: ns, Name: name}
		}
		u := x.until("both rules", func(u Update) bool { return u.Set.Get(key("good")) != nil && u.Set.Get(key("bad")) != nil })
		if r, ok := u.Set.Get(key("good")).Value.(*v1alpha2.RouteRule); !ok || r.Spec.Precedence != 1 {
			t.Errorf("the good rule is %#v", u.Set.Get(key("good")).Value)
		}
		if len(u.Findings) != 1 || u.Findings[0].Object.Name != "bad" || u.Findings[0].Field != "spec.precedence" || u.Findings[0].Message == "" {
			t.Errorf("findings %+v", u.Findings)
		}
		if _, err := rules.Patch(t.Context(), "bad", types.MergePatchType, []byte(`{"spec":{"precedence":2}}`), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		x.until("no findings once it is corrected", func(u Update) bool { return len(u.Findings) == 0 })
		// A status is no change of the mesh; the next object is.
		if _, err := rules.Patch(t.Context(), "good", types.MergePatchType, []byte(`{"status":{"observedGeneration":7}}`), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for {
			if r, ok := x.w.Object(key("good")).Value.(*v1alpha2.RouteRule); ok && r.Status.ObservedGeneration == 7 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the status did not arrive")
			}
			<-time.After(5 * time.Millisecond) // polling
		}
		select {
		case u := <-x.updates:
			t.Errorf("a status alone made an update of %d objects", u.Set.Len())
		default:
		}
	})

	t.Run("of a pod only what matters is kept, and changes only when that does", func(t *testing.T) {
		p, err := kube.CoreV1().Pods(ns).Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"app": "x"}, Annotations: map[string]string{"a": "b", "sidecar.istio.io/status": "s"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "plain", Image: "i", Env: []corev1.EnvVar{{Name: "SECRET", Value: "x"}}}, {Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}},
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		key := objects.Key{Kind: "Pod", Namespace: ns, Name: "p"}
		u := x.until("the pod", func(u Update) bool { return u.Set.Get(key) != nil })
		got, ok := u.Set.Get(key).Value.(*corev1.Pod)
		if !ok || len(got.Spec.Containers) != 1 || got.Spec.Containers[0].Image != "" || got.Spec.Containers[0].Ports[0].Name != "http" || got.UID != p.UID ||
			len(got.Annotations) != 1 || got.Labels["app"] != "x" || len(got.ManagedFields) != 0 {
			t.Errorf("kept %+v", got)
		}
		if _, ok := x.w.Pod(ns, "p"); !ok {
			t.Error("the pod is not found by name")
		}
		// What a kubelet reports every now and then is no change, neither now nor along with the next one.
		before := u.Set
		conditions := []byte(`{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`)
		if _, err := kube.CoreV1().Pods(ns).Patch(t.Context(), "p", types.MergePatchType, conditions, metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
		p.ObjectMeta = metav1.ObjectMeta{Name: "after"}
		if _, err := kube.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		after := objects.Key{Kind: "Pod", Namespace: ns, Name: "after"}
		u = x.until("the pod after it", func(u Update) bool { return u.Set.Get(after) != nil })
		if edits := u.Set.Since(before); len(edits) != 1 || edits[0].Key() != after || x.w.Object(key) != before.Get(key) {
			t.Errorf("edits %v", edits)
		}
	})

	t.Run("the first of many changes comes at once and the rest merged", func(t *testing.T) {
		for i := range 200 {
			if _, err := kube.CoreV1().Services(ns).Create(t.Context(), service(fmt.Sprint("burst", i)), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		first := x.until("the first of them", func(u Update) bool { return count(u) > 50 })
		if count(first) > 60 {
			t.Errorf("the first update has %d of them already", count(first)-50)
		}
		n := 1
		x.until("the last of them", func(u Update) bool { n++; return count(u) == 250 })
		if n > 150 {
			t.Errorf("%d updates for 200 changes", n)
		}
		t.Logf("%d updates for 200 changes", n)
	})

	t.Run("what is deleted is gone", func(t *testing.T) {
		if err := kube.CoreV1().Services(ns).Delete(t.Context(), "s0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		x.until("one service less", func(u Update) bool { return count(u) == 249 })
	})
}

func TestAFindingOfAnUnreadableObjectAlwaysHasWords(t *testing.T) {
	gvk := v1alpha2.GroupVersion.WithKind("RouteRule")
	for name, spec := range map[string]any{
		"a spec that is text":         "text",
		"a list where a mapping is":   map[string]any{"destination": []any{"x"}},
		"a weight that is fractional": map[string]any{"route": []any{map[string]any{"weight": 1.5}}},
		"a duration that is none":     map[string]any{"httpReqTimeout": map[string]any{"simpleTimeout": map[string]any{"timeout": "soon"}}},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "config.istio.io/v1alpha2", "kind": "RouteRule", "metadata": map[string]any{"name": "r", "namespace": "n"}, "spec": spec,
			}}
			value, err := (&source{}).trim(u)
			if err != nil {
				t.Fatal(err)
			}
			o := &objects.Object{GVK: gvk, Value: value.(objects.Value)}
			fs := unreadable(o)
			if o.Value != objects.Value(u) || len(fs) == 0 || fs[0].Object.Name != "r" || !strings.HasPrefix(fs[0].Field, "spec") || fs[0].Message == "" || fs[0].Position.File != "" {
				t.Errorf("object %T, findings %+v", o.Value, fs)
			}
		})
	}
}
