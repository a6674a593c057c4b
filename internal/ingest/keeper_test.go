package ingest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// chance makes objects that have much to do with each other, and much wrong with them.
type chance struct {
	*rand.Rand
	certificate, key []byte
}

func newChance(t *testing.T, seed uint64) chance {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"h.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return chance{
		Rand:        rand.New(rand.NewPCG(seed, 1)),
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
}

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

func (c chance) namespace() string { return pick(c, "shop", "shop", "other", "istio-system") }

func (c chance) wrap(gvk schema.GroupVersionKind, v objects.Value, name string) *objects.Object {
	v.SetNamespace(c.namespace())
	v.SetName(name)
	return &objects.Object{GVK: gvk, Value: v}
}

func (c chance) labels() map[string]string {
	return pick(c, nil, map[string]string{"app": "a"}, map[string]string{"app": "a", "version": "v1"}, map[string]string{"app": "a", "version": "v2"}, map[string]string{"app": "b", "version": "v1"})
}

func (c chance) address() string { return fmt.Sprint("10.0.0.", c.IntN(5)) }

func (c chance) destination() v1alpha2.IstioService {
	if c.IntN(4) == 0 {
		return v1alpha2.IstioService{Service: pick(c, "*.example.com", "www.example.com", "a.shop.svc.cluster.local")}
	}
	return v1alpha2.IstioService{Name: pick(c, "a", "b", "alias"), Namespace: pick(c, "", "", "other")}
}

func (c chance) source() *v1alpha2.IstioService {
	return pick(c, nil, nil, &v1alpha2.IstioService{Name: pick(c, "a", "istio-ingress")}, &v1alpha2.IstioService{Labels: map[string]string{"app": "a"}})
}

func (c chance) service() *objects.Object {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Selector: c.labels(), ClusterIP: pick(c, "None", c.address(), c.address())}}
	for i := range c.IntN(3) {
		p := corev1.ServicePort{Name: pick(c, "http", "tcp", "web") + pick(c, "", "-2"), Port: int32(80 + i), TargetPort: pick(c, intstr.FromInt32(8080), intstr.FromString("named"), intstr.IntOrString{})}
		if c.IntN(20) == 0 {
			p.Port = 15001
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	name := pick(c, "a", "b", "alias")
	if name == "alias" || c.IntN(10) == 0 {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, pick(c, "a.shop.svc.cluster.local", "alias.other.svc.cluster.local", "www.example.com", "alias.shop.svc.cluster.local")
	}
	return c.wrap(corev1.SchemeGroupVersion.WithKind("Service"), s, name)
}

func (c chance) pod() *objects.Object {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: c.labels()}, Spec: corev1.PodSpec{HostNetwork: c.IntN(6) == 0}}
	p.Status.PodIP, p.Status.Phase = c.address(), pick(c, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodFailed)
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "named", ContainerPort: pick(c, int32(8080), 9090)}}}}
	return c.wrap(corev1.SchemeGroupVersion.WithKind("Pod"), p, pick(c, "p", "q", "r"))
}

func (c chance) slice() *objects.Object {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: pick(c, "a", "b", "none")}
	for range c.IntN(3) {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(pick(c, "http", "tcp", "web")), Port: new(pick(c, int32(8080), 9090))})
	}
	for range c.IntN(4) {
		e := discoveryv1.Endpoint{Addresses: []string{c.address()}, Conditions: discoveryv1.EndpointConditions{Ready: new(c.IntN(4) > 0), Terminating: new(c.IntN(4) == 0)}}
		if c.IntN(2) == 0 {
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: pick(c, "p", "q", "r")}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return c.wrap(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), s, pick(c, "x", "y", "z"))
}

func (c chance) rule() *objects.Object {
	r := &v1alpha2.RouteRule{Spec: v1alpha2.RouteRuleSpec{Destination: c.destination(), Precedence: int32(c.IntN(2))}}
	r.Spec.Match = &v1alpha2.MatchCondition{Source: c.source()}
	r.Spec.Route = []v1alpha2.DestinationWeight{{Labels: c.labels(), Weight: pick(c, int32(100), 100, 100, 7)}}
	if c.IntN(3) == 0 {
		to := c.destination()
		r.Spec.Route[0].Destination = &to
	}
	if c.IntN(4) == 0 {
		to := c.destination()
		r.Spec.Mirror = &to
	}
	return c.wrap(v1alpha2.GroupVersion.WithKind("RouteRule"), r, pick(c, "r", "s", "t"))
}

func (c chance) policy() *objects.Object {
	p := &v1alpha2.DestinationPolicy{Spec: v1alpha2.DestinationPolicySpec{Destination: c.destination(), Source: c.source()}}
	p.Spec.Destination.Labels = c.labels()
	if c.IntN(5) > 0 {
		p.Spec.LoadBalancing = &v1alpha2.LoadBalancing{Name: pick(c, v1alpha2.RoundRobin, v1alpha2.Random, v1alpha2.LatencyAware)}
	}
	return c.wrap(v1alpha2.GroupVersion.WithKind("DestinationPolicy"), p, pick(c, "p", "q"))
}

func (c chance) egress() *objects.Object {
	e := &v1alpha2.EgressRule{}
	e.Spec.Destination.Service = pick(c, "*.example.com", "www.example.com", "www.example.com", "a.shop.svc.cluster.local", "a b")
	for i, port := range []int32{80, 443, 15001} {
		if c.IntN(2+i) == 0 {
			e.Spec.Ports = append(e.Spec.Ports, v1alpha2.EgressRulePort{Port: port, Protocol: pick(c, "http", "https")})
		}
	}
	return c.wrap(v1alpha2.GroupVersion.WithKind("EgressRule"), e, pick(c, "e", "f", "g"))
}

func (c chance) ingress() *objects.Object {
	in := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(time.Unix(int64(c.IntN(2)), 0))}}
	in.Spec.IngressClassName = pick(c, nil, new("istio"), new("istio"), new("another"))
	backend := func() networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: pick(c, "a", "b", "x"), Port: pick(c, networkingv1.ServiceBackendPort{Number: 80}, networkingv1.ServiceBackendPort{Name: "http"})}}
	}
	if c.IntN(3) == 0 {
		b := backend()
		in.Spec.DefaultBackend = &b
	}
	for range c.IntN(3) {
		in.Spec.Rules = append(in.Spec.Rules, networkingv1.IngressRule{Host: pick(c, "", "h.example.com", "i.example.com"), IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: pick(c, "/", "/x", "/x.*", "/(", ""), Backend: backend()}},
		}}})
	}
	if c.IntN(2) == 0 {
		in.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{pick(c, "h.example.com", "i.example.com")}, SecretName: pick(c, "", "s")}}
	}
	return c.wrap(networkingv1.SchemeGroupVersion.WithKind("Ingress"), in, pick(c, "i", "j"))
}

func (c chance) object() *objects.Object {
	switch c.IntN(16) {
	case 0, 1:
		return c.service()
	case 2, 3, 4:
		return c.pod()
	case 5, 6, 7:
		return c.slice()
	case 8, 9:
		return c.rule()
	case 10:
		return c.policy()
	case 11, 12:
		return c.egress()
	case 13:
		return c.ingress()
	case 14:
		class := &networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: pick(c, "istio.io/ingress-controller", "nobody")}}
		class.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: pick(c, "true", "false")}
		o := c.wrap(networkingv1.SchemeGroupVersion.WithKind("IngressClass"), class, pick(c, "istio", "another"))
		o.Value.SetNamespace("")
		return o
	default:
		data := map[string][]byte{"tls.crt": pick(c, nil, c.certificate), "tls.key": c.key}
		return c.wrap(corev1.SchemeGroupVersion.WithKind("Secret"), &corev1.Secret{Type: corev1.SecretTypeTLS, Data: data}, "s")
	}
}

// The laws: whatever changes, the mesh and the findings of a keeper are those made from nothing of what is there now; and of what comes out as it was
// before, everything is the very same value, a list of which no member differs included.
func TestAKeepersMeshIsTheOneMadeFromNothing(t *testing.T) {
	c := newChance(t, 5)
	keeper := ingest.NewKeeper()
	set := objects.NewSet()
	cfg := ingest.Config{}
	before, said := keeper.Update(set, cfg)
	seen := map[string]int{}
	for round := range 6000 {
		var put []*objects.Object
		var drop []objects.Key
		for range 1 + c.IntN(2) {
			if o := c.object(); c.IntN(4) == 0 {
				drop = append(drop, o.Key())
			} else {
				put = append(put, o)
			}
		}
		if c.IntN(50) == 0 {
			cfg = ingest.Config{Domain: pick(c, "", "", "example.org"), Closed: c.IntN(2) == 0, IngressMode: pick(c, meshconfig.IngressStrict, meshconfig.IngressDefault, meshconfig.IngressOff)}
		}
		now := set.With(put, drop)
		edits := now.Since(set)
		set = now
		mesh, report := keeper.Update(set, cfg)
		want, findings := ingest.Build(objects.NewSet(set.All()...), cfg)
		if !reflect.DeepEqual(mesh, want) {
			t.Fatalf("round %d, after %v: (-from nothing +kept):\n%s", round, edits, cmp.Diff(want, mesh))
		}
		if all := report.All(); !slices.Equal(all, findings) {
			t.Fatalf("round %d, after %v: (-from nothing +kept):\n%s", round, edits, cmp.Diff(findings, all))
		}
		identity(t, round, before, mesh)
		if slices.Equal(said, report) && len(report) > 0 && &said[0] != &report[0] {
			t.Fatalf("round %d: the report is made anew and says what it said", round)
		}
		for _, f := range findings {
			seen[string(f.Code)]++
		}
		before, said = mesh, report
	}
	t.Log(seen)
	if len(seen) < 12 || len(before.Services)*len(before.Workloads)*len(before.Rules)*len(before.Policies)*len(before.Externals) == 0 {
		t.Errorf("findings %v of a mesh of %d services: the objects have too little to do with each other", seen, len(before.Services))
	}
}

// identity compares two meshes, of which the later shares with the earlier whatever is equal.
func identity(t *testing.T, round int, before, mesh *model.Mesh) {
	t.Helper()
	if before != mesh && reflect.DeepEqual(before, mesh) {
		t.Fatalf("round %d: the mesh is made anew and has not changed", round)
	}
	was, is := reflect.ValueOf(*before), reflect.ValueOf(*mesh)
	for i := range was.NumField() {
		name, old, list := was.Type().Field(i).Name, was.Field(i), is.Field(i)
		if list.Kind() != reflect.Slice {
			continue
		}
		if list.Len() > 0 && list.Pointer() != old.Pointer() && reflect.DeepEqual(old.Interface(), list.Interface()) {
			t.Fatalf("round %d: %s is made anew and has not changed", round, name)
		}
		for j := range list.Len() {
			item, equal, same := list.Index(j), false, false
			for m := range old.Len() {
				equal = equal || reflect.DeepEqual(old.Index(m).Interface(), item.Interface())
				same = same || old.Index(m).Pointer() == item.Pointer()
			}
			if equal && !same {
				t.Fatalf("round %d: of %s this is made anew and has not changed: %+v", round, name, item.Elem().Interface())
			}
		}
	}
}

// Whatever the order of objects, the mesh is the same.
func TestTheOrderOfObjectsDoesNotMatter(t *testing.T) {
	c := newChance(t, 7)
	for range 100 {
		set := objects.NewSet()
		for range 60 {
			set = set.With([]*objects.Object{c.object()}, nil)
		}
		all := set.All()
		want, findings := ingest.Build(set, ingest.Config{})
		c.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		keeper, growing := ingest.NewKeeper(), objects.NewSet()
		for _, o := range all {
			growing = growing.With([]*objects.Object{o}, nil)
			keeper.Update(growing, ingest.Config{})
		}
		mesh, report := keeper.Update(growing, ingest.Config{})
		if !reflect.DeepEqual(mesh, want) || !slices.Equal(report.All(), findings) {
			t.Fatalf("one by one in another order:\n%s\n%s", cmp.Diff(want, mesh), cmp.Diff(findings, report.All()))
		}
	}
}
