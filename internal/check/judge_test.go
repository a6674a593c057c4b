package check_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// chance makes objects that have much to do with each other, and much wrong with them.
type chance struct{ *rand.Rand }

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

func (c chance) wrap(gvk schema.GroupVersionKind, v objects.Value, name string) *objects.Object {
	v.SetNamespace(pick(c, "shop", "shop", "other", check.MeshNamespace))
	v.SetName(name)
	return &objects.Object{GVK: gvk, Value: v, Origin: objects.Origin{File: pick(c, "", "in.yaml")}}
}

func (c chance) labels() map[string]string {
	return pick(c, nil, map[string]string{"app": "a"}, map[string]string{"app": "a", "version": "v1"}, map[string]string{"app": "a", "version": "v2"}, map[string]string{"app": "b", "version": "v1"})
}

func (c chance) destination() v1alpha2.IstioService {
	if c.IntN(5) == 0 {
		return v1alpha2.IstioService{Service: pick(c, "*.example.com", "www.example.com", "a.shop.svc.cluster.local")}
	}
	return v1alpha2.IstioService{Name: pick(c, "a", "b", "ab"), Namespace: pick(c, "", "", "other")}
}

func (c chance) source() *v1alpha2.IstioService {
	return pick(c, nil, nil, &v1alpha2.IstioService{Name: pick(c, "a", "b")}, &v1alpha2.IstioService{Labels: map[string]string{"app": pick(c, "a", "b")}})
}

func (c chance) object() *objects.Object {
	mesh := v1alpha2.GroupVersion.WithKind
	switch c.IntN(8) {
	case 0:
		return c.wrap(corev1.SchemeGroupVersion.WithKind("Service"), &corev1.Service{Spec: corev1.ServiceSpec{
			Selector: c.labels(), Ports: []corev1.ServicePort{{Name: "http", Port: pick(c, int32(80), 81)}},
		}}, pick(c, "a", "b", "abc"))
	case 1:
		return c.wrap(corev1.SchemeGroupVersion.WithKind("Pod"), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: c.labels()}}, pick(c, "p", "q", "r"))
	case 2, 3:
		r := &v1alpha2.RouteRule{Spec: v1alpha2.RouteRuleSpec{Destination: c.destination(), Precedence: int32(c.IntN(2))}}
		r.Spec.Match = &v1alpha2.MatchCondition{Source: c.source()}
		if c.IntN(2) == 0 {
			text := pick(c, "x", "y")
			r.Spec.Match.Request = &v1alpha2.RequestMatcher{Headers: map[string]v1alpha2.StringMatch{"h": {Exact: &text}}}
		}
		r.Spec.Route = []v1alpha2.DestinationWeight{{Labels: c.labels(), Weight: pick(c, int32(100), 100, 100, 100, 7)}}
		if c.IntN(10) == 0 { // one that could not be read
			u := &unstructured.Unstructured{Object: map[string]any{"kind": "RouteRule", "spec": "?"}}
			return c.wrap(mesh("RouteRule"), u, pick(c, "r", "s", "t"))
		}
		return c.wrap(mesh("RouteRule"), r, pick(c, "r", "s", "t"))
	case 4:
		p := &v1alpha2.DestinationPolicy{Spec: v1alpha2.DestinationPolicySpec{Destination: c.destination(), Source: c.source()}}
		p.Spec.Destination.Labels = c.labels()
		p.Spec.LoadBalancing = &v1alpha2.LoadBalancing{Name: pick(c, v1alpha2.RoundRobin, v1alpha2.Random, "odd")}
		return c.wrap(mesh("DestinationPolicy"), p, pick(c, "p", "q"))
	case 5:
		e := &v1alpha2.EgressRule{}
		e.Spec.Destination.Service = pick(c, "*.example.com", "www.example.com", "*", "a b")
		e.Spec.Ports = []v1alpha2.EgressRulePort{{Port: pick(c, int32(80), 443), Protocol: "http"}}
		return c.wrap(mesh("EgressRule"), e, pick(c, "e", "f"))
	case 6:
		in := &networkingv1.Ingress{}
		class := pick(c, "istio", "istio", "another")
		in.Spec.IngressClassName = &class
		in.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: pick(c, "a", "b", "x"), Port: networkingv1.ServiceBackendPort{Number: 80}}}
		in.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"h.example.com"}, SecretName: pick(c, "", "s")}}
		return c.wrap(networkingv1.SchemeGroupVersion.WithKind("Ingress"), in, pick(c, "i", "j"))
	default:
		return c.wrap(corev1.SchemeGroupVersion.WithKind("Secret"), &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": []byte(pick(c, "", "x"))}}, "s")
	}
}

// judged are the objects that the control plane asks about.
func judged(o *objects.Object) bool {
	switch v := o.Value.(type) {
	case *v1alpha2.RouteRule, *v1alpha2.DestinationPolicy, *v1alpha2.EgressRule:
		return true
	case *networkingv1.Ingress:
		class, _ := check.IngressClassOf(v)
		return class == check.DefaultIngressClass
	}
	return false
}

// The law: after whatever changes, a Judge says what Object and Set say of what is there now; and of an object that it does not name it said the
// same before.
func TestAJudgeSaysWhatOneWhoLooksAtEverythingSays(t *testing.T) {
	c := chance{rand.New(rand.NewPCG(3, 4))}
	judge := check.NewJudge(judged)
	set := objects.NewSet()
	before := map[objects.Key][]finding.Finding{}
	said := 0
	for round := range 4000 {
		var put []*objects.Object
		var drop []objects.Key
		for range 1 + c.IntN(2) {
			if o := c.object(); c.IntN(4) == 0 {
				drop = append(drop, o.Key())
			} else {
				put = append(put, o)
			}
		}
		now := set.With(put, drop)
		edits := now.Since(set)
		named := judge.Update(edits)
		set = now
		var about []*objects.Object
		for _, o := range set.All() {
			if got, want := judge.Object(o), check.Object(o); !slices.Equal(got, want) {
				t.Fatalf("round %d: of %s\ngot  %v\nwant %v", round, o.Ref(), got, want)
			}
			if judged(o) {
				about = append(about, o)
			}
		}
		want := map[objects.Key][]finding.Finding{}
		for _, f := range check.Set(set, about) {
			for _, o := range about {
				if o.Ref() == f.Object {
					want[o.Key()] = append(want[o.Key()], f)
				}
			}
		}
		for _, o := range about {
			key := o.Key()
			got := judge.Among(key)
			said += len(got)
			if !slices.Equal(got, want[key]) {
				t.Fatalf("round %d, after %v: of %s\ngot  %v\nwant %v", round, show(edits), o.Ref(), got, want[key])
			}
			if !slices.Contains(named, key) && !slices.Equal(got, before[key]) {
				t.Fatalf("round %d: what is said of %s has changed, and is not named", round, o.Ref())
			}
		}
		before = want
	}
	if said < 10000 {
		t.Errorf("only %d findings: the objects have too little to do with each other", said)
	}
}

func show(edits []objects.Edit) []string {
	var out []string
	for _, e := range edits {
		out = append(out, fmt.Sprintf("%v (there before: %t, now: %t)", e.Key(), e.Old != nil, e.New != nil))
	}
	return out
}
