package envoy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

// FuzzBuild states the law of translation: any set of objects builds, to resources that are consistent and that do not depend on the order the
// objects came in.
func FuzzBuild(f *testing.F) {
	for seed := range uint64(500) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &generator{rand.New(rand.NewPCG(seed, 0))}
		objs := g.objects()
		config := ingest.Config{Closed: g.often(30)}
		mesh, findings := ingest.Build(objects.NewSet(objs...), config)
		g.Shuffle(len(objs), func(i, j int) { objs[i], objs[j] = objs[j], objs[i] })
		again, findingsAgain := ingest.Build(objects.NewSet(objs...), config)
		if !slices.Equal(findings, findingsAgain) {
			t.Errorf("findings depend on the order: %v and %v", findings, findingsAgain)
		}
		one, other := envoy.NewTranslator(), envoy.NewTranslator()
		one.Update(mesh)
		other.Update(again)
		for _, p := range proxies(mesh) {
			r := envoy.All(one.Snapshot(p))
			if err := envoy.Consistent(r); err != nil {
				t.Errorf("%v: %v", p, err)
			}
			for _, kind := range []string{envoy.ClusterType, envoy.EndpointType, envoy.ListenerType, envoy.RouteType, envoy.SecretType} {
				if a, b := versions(r.Of(kind)), versions(envoy.All(other.Snapshot(p)).Of(kind)); !slices.Equal(a, b) {
					t.Errorf("%v: %s depends on the order of objects or of proxies: %v and %v", p, kind, a, b)
				}
				if a, b := versions(r.Of(kind)), versions(envoy.Build(mesh, p).Of(kind)); !slices.Equal(a, b) {
					t.Errorf("%v: %s depends on what was built before: %v and %v", p, kind, a, b)
				}
			}
		}
	})
}

// FuzzUpdate states the law of following a mesh: whatever changes in whatever order, each proxy is told what it would be told of the mesh as it is
// by a translator that never saw another.
func FuzzUpdate(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &generator{rand.New(rand.NewPCG(seed, 3))}
		config := ingest.Config{}
		keeper, following := ingest.NewKeeper(), envoy.NewTranslator()
		var mesh *model.Mesh
		set := objects.NewSet()
		for step := range 12 {
			// A few objects of another world come into this one, a few of this one go.
			var put []*objects.Object
			var drop []objects.Key
			for _, o := range g.objects() {
				if step == 0 || g.often(8) {
					put = append(put, o)
				}
			}
			for _, o := range set.All() {
				if g.often(6) {
					drop = append(drop, o.Key())
				}
			}
			all := map[objects.Key]*objects.Object{}
			for _, o := range set.All() {
				all[o.Key()] = o
			}
			for _, key := range drop {
				delete(all, key)
			}
			for _, o := range put {
				all[o.Key()] = o
			}
			set = objects.NewSet(slices.Collect(maps.Values(all))...)
			if g.often(5) {
				config.Closed = !config.Closed
			}
			mesh, _ = keeper.Update(set, config)
			following.Update(mesh)
			fresh := envoy.NewTranslator()
			fresh.Update(mesh)
			for _, p := range proxies(mesh) {
				for _, p.VirtualHosts = range []bool{false, true} {
					if p.VirtualHosts && g.often(50) {
						continue // not every proxy asks for every mesh
					}
					got, want := following.Snapshot(p), fresh.Snapshot(p)
					for kind, groups := range map[string][2]resource.Group{
						"clusters": {got.Clusters, want.Clusters}, "endpoints": {got.Endpoints, want.Endpoints}, "listeners": {got.Listeners, want.Listeners},
						"routes": {got.Routes, want.Routes}, "virtual hosts": {got.VirtualHosts, want.VirtualHosts}, "secrets": {got.Secrets, want.Secrets},
					} {
						if a, b := contents(groups[0]), contents(groups[1]); !maps.Equal(a, b) {
							t.Fatalf("step %d, %v: %s are %v, made from nothing %v", step, p, kind, a, b)
						}
					}
				}
			}
		}
	})
}

// contents are the versions of a group's resources, with the objects they came from.
func contents(g resource.Group) map[string]string {
	out := map[string]string{}
	for r := range g.All() {
		out[r.Name] = r.Version + fmt.Sprint(r.Refs)
	}
	return out
}

// TestEnvoyAcceptsAnything lets the real Envoy judge what is made of random objects.
func TestEnvoyAcceptsAnything(t *testing.T) {
	envoyproc.Path(t)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := &generator{rand.New(rand.NewPCG(seed, 1))}
			mesh, _ := ingest.Build(objects.NewSet(g.objects()...), ingest.Config{Closed: g.often(30)})
			all := proxies(mesh)
			for _, p := range []model.Proxy{all[0], all[len(all)-1]} {
				envoyproc.Validate(t, envoyproc.Static(t, envoy.Build(mesh, p), "127.0.0.1", 15000, nil))
			}
		})
	}
}

// TestEnvoyTakesEveryRegexThatCheckTakes puts random regular expressions wherever one can stand.
func TestEnvoyTakesEveryRegexThatCheckTakes(t *testing.T) {
	envoyproc.Path(t)
	const per = 150
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := &generator{rand.New(rand.NewPCG(seed, 2))}
			port := corev1.ServicePort{Name: "http", Port: 80}
			var objs []*objects.Object
			// The rules are about one of them and the paths lead to the other: both together would be the product of both.
			for i, name := range []string{"a", "b"} {
				objs = append(objs, g.object(corev1.SchemeGroupVersion, "Service", &corev1.Service{
					ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
					Spec:       corev1.ServiceSpec{ClusterIP: fmt.Sprint("10.96.0.", i+1), Ports: []corev1.ServicePort{port}},
				}))
			}
			in := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}, Spec: networkingv1.IngressSpec{IngressClassName: new("istio")}}
			in.Spec.Rules = []networkingv1.IngressRule{{IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}}
			backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "b", Port: networkingv1.ServiceBackendPort{Number: 80}}}
			for n := 0; n < per; {
				text := g.regex()
				if fault, _ := check.Regex(text); fault != "" {
					continue
				}
				r := &v1alpha2.RouteRule{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("r", n), Namespace: "default"}}
				r.Spec.Destination = v1alpha2.IstioService{Name: "a"}
				match := v1alpha2.StringMatch{Regex: &text}
				r.Spec.Match = &v1alpha2.MatchCondition{Request: &v1alpha2.RequestMatcher{Headers: map[string]v1alpha2.StringMatch{
					"uri": match, "authority": match, "cookie": match,
				}}}
				objs = append(objs, g.object(v1alpha2.GroupVersion, "RouteRule", r))
				http := in.Spec.Rules[0].HTTP
				http.Paths = append(http.Paths, networkingv1.HTTPIngressPath{Path: "/" + text, Backend: backend})
				n++
			}
			objs = append(objs, g.object(networkingv1.SchemeGroupVersion, "Ingress", in))
			mesh, _ := ingest.Build(objects.NewSet(objs...), ingest.Config{})
			if len(mesh.Ingress) < per*9/10 {
				t.Errorf("%d of %d paths are in force", len(mesh.Ingress), per)
			}
			all := proxies(mesh)
			for _, p := range []model.Proxy{all[0], all[len(all)-1]} {
				envoyproc.Validate(t, envoyproc.Static(t, envoy.Build(mesh, p), "127.0.0.1", 15000, nil))
			}
		})
	}
}

// proxies are a sidecar for each workload, one that the mesh does not know, and a gateway.
func proxies(mesh *model.Mesh) []model.Proxy {
	out := []model.Proxy{{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "stranger"}, Addresses: []string{"fd00::9"}}}
	for _, w := range mesh.Workloads {
		out = append(out, model.Proxy{Type: model.Sidecar, Workload: w.Key})
	}
	return append(out, model.Proxy{Type: model.Ingress, Workload: model.WorkloadKey{Namespace: "istio-system", Name: "gateway"}})
}

func versions(rs []*envoy.Resource) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.Name + "@" + r.Version + fmt.Sprint(r.Refs)
	}
	return out
}

// generator makes objects of few names, so that they meet, and of values from the ordinary to the absurd.
type generator struct{ *rand.Rand }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) often(percent int) bool { return g.IntN(100) < percent }

// odd says when a value is absurd: seldom, because one such value can keep a whole object out of the mesh.
func (g *generator) odd() bool { return g.often(4) }

func (g *generator) namespace() string {
	return pick(g, "default", "default", "default", "svc", "svc", "istio-system")
}
func (g *generator) name() string { return pick(g, "a", "b", "a", "b", "svc", "svc", "default") }

func (g *generator) port() int32 {
	if g.odd() {
		return pick(g, int32(15001), 15006, 0, -1, 70000)
	}
	return pick(g, int32(80), 80, 81)
}

func (g *generator) labels() map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "version"} {
		if g.often(60) {
			out[k] = pick(g, "a", "b", "v1", "v2", "")
		}
	}
	return out
}

func (g *generator) text() string {
	if g.odd() {
		return pick(g, "", "*", "(", "(?=x)", "a\r\nb", "a\x00b", `\x{2603}`, `\Qa`, `[\xf0-☃]`, `\p{Greek}|\p{Letter}`, strings.Repeat("a{1000}", 20))
	}
	if g.often(20) {
		return g.regex()
	}
	return pick(g, `^(.*?;)?(session=[A-Za-z0-9_-]{64})(;.*)?$`, "/", "/a", "/a", "/a/", "/a/b", "/a.*", "/a[0-9]+", "(?i)/A", "a", "a?b#c", "é", "[fd00::1]:80", "a:80", "%REQ(x)%", ".")
}

// regex is a regular expression of everything that Go's syntax has. Few of the longer ones can be read.
func (g *generator) regex() string {
	var b strings.Builder
	for range 1 + g.IntN(6) {
		b.WriteString(pick(g, "/", "a", "k", "é", "☃", ".", "^", "$", "|", "-", "(", ")", "(?:", "(?i)", "(?sU:", "(?P<n>", "(?<m>", "[", "[^", "]",
			"*", "+", "?", "{3}", "{2,9}", "{64}", "{1000}", `\Q`, `\E`, `\\`, `\d`, `\W`, `\b`, `\A`, `\z`, `\.`, `\a`, `\n`,
			`\x41`, `\xff`, `\x{e9}`, `\x{100}`, `\x{2603}`, `\0`, `\12`, `\377`, `\400`, `\777`, "[a-z]", "[é-ñ]", `[\xf0-☃]`, "[[:alpha:]]", "[[:^word:]]",
			`\pL`, `\PN`, `\p{Lu}`, `\p{^Zs}`, `\p{Any}`, `\p{Greek}`, `\p{Letter}`, `\p{lu}`, `\p{ASCII}`, `[\p{L}\d]`))
	}
	return b.String()
}

func (g *generator) object(gv schema.GroupVersion, kind string, v objects.Value) *objects.Object {
	return &objects.Object{GVK: gv.WithKind(kind), Value: v}
}

func (g *generator) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: g.name() + pick(g, "", "-1", "-2"), Namespace: g.namespace(), Labels: g.labels()}
}

func (g *generator) objects() []*objects.Object {
	var out []*objects.Object
	for range g.IntN(12) {
		out = append(out, g.service())
	}
	for range g.IntN(6) {
		out = append(out, g.pod())
	}
	for range g.IntN(16) {
		out = append(out, g.slice())
	}
	for range g.IntN(16) {
		out = append(out, g.rule())
	}
	for range g.IntN(8) {
		out = append(out, g.policy())
	}
	for range g.IntN(4) {
		out = append(out, g.egress())
	}
	for range g.IntN(4) {
		out = append(out, g.ingress())
	}
	if g.often(60) {
		for range g.IntN(8) {
			out = append(out, g.secret())
		}
	}
	// A set keeps the later of two objects with one key, and here the order is not to matter.
	keys := map[objects.Key]bool{}
	return slices.DeleteFunc(out, func(o *objects.Object) bool {
		twice := keys[o.Key()]
		keys[o.Key()] = true
		return twice
	})
}

func (g *generator) service() *objects.Object {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: g.name(), Namespace: g.namespace()}}
	s.Spec.ClusterIP = pick(g, "", "None", "None", "10.96.0.1", "10.96.0.2", "10.96.0.3", "fd00:96::1")
	if g.often(30) {
		s.Spec.ClusterIPs = []string{pick(g, "10.96.0.1", "10.96.0.4", "::ffff:10.96.0.9"), "fd00:96::2"}
	}
	if g.often(10) {
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, pick(g, "", "www.example.com", "192.0.2.9", "a.default.svc.cluster.local", "B.default.svc.cluster.local.", "b-1.svc.svc.cluster.local", "default.default.svc.cluster.local")
	}
	if g.often(80) {
		s.Spec.Selector = g.labels()
	}
	for range g.IntN(4) {
		p := corev1.ServicePort{
			Name: pick(g, "", "http", "http", "http", "grpc", "tcp", "mongo"), Port: g.port(),
			Protocol: pick(g, "", corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP), TargetPort: pick(g, intstr.FromInt32(g.port()), intstr.FromString("named")),
		}
		if g.often(20) {
			p.AppProtocol = new(pick(g, "http", "grpc", "kubernetes.io/h2c", "x"))
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	return g.object(corev1.SchemeGroupVersion, "Service", s)
}

func (g *generator) address() string {
	return pick(g, "10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00:1::1", "fd00:1::2", "", "nonsense", "::ffff:10.1.0.1")
}

func (g *generator) pod() *objects.Object {
	p := &corev1.Pod{ObjectMeta: g.meta()}
	p.Status.PodIP = g.address()
	p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}, {IP: g.address()}}
	p.Status.Phase = pick(g, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodFailed)
	p.Spec.HostNetwork = g.often(10)
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "named", ContainerPort: g.port()}}}}
	return g.object(corev1.SchemeGroupVersion, "Pod", p)
}

func (g *generator) slice() *objects.Object {
	s := &discoveryv1.EndpointSlice{ObjectMeta: g.meta(), AddressType: pick(g, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: g.name()}
	for range g.IntN(3) {
		p := discoveryv1.EndpointPort{Name: new(pick(g, "", "http", "tcp", "grpc"))}
		if g.often(90) {
			p.Port = new(g.port())
		}
		s.Ports = append(s.Ports, p)
	}
	maybe := func() *bool { return pick(g, nil, new(true), new(false)) }
	for range g.IntN(4) {
		e := discoveryv1.Endpoint{Addresses: []string{g.address()}, Conditions: discoveryv1.EndpointConditions{Ready: maybe(), Serving: maybe(), Terminating: maybe()}}
		if g.often(50) {
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: g.name() + pick(g, "", "-1"), Namespace: pick(g, "", s.Namespace)}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return g.object(discoveryv1.SchemeGroupVersion, "EndpointSlice", s)
}

func (g *generator) istioService() v1alpha2.IstioService {
	s := v1alpha2.IstioService{Name: g.name(), Namespace: pick(g, "", "", "default", "svc")}
	if g.odd() {
		s = v1alpha2.IstioService{Service: pick(g, "a.default.svc.cluster.local", "", "a b")}
	}
	if g.often(15) {
		s = v1alpha2.IstioService{Service: g.external()}
	}
	return s
}

func (g *generator) duration() *metav1.Duration {
	if g.odd() {
		return pick(g, nil, &metav1.Duration{}, &metav1.Duration{Duration: -time.Second}, &metav1.Duration{Duration: 1<<63 - 1})
	}
	return &metav1.Duration{Duration: pick(g, time.Millisecond, time.Second, time.Duration(1<<63-1).Truncate(time.Millisecond))}
}

func (g *generator) percent() *float64 {
	if g.odd() {
		return pick(g, new(-1.0), new(1e9))
	}
	return pick(g, nil, new(0.0), new(12.3456789), new(100.0))
}

func (g *generator) rule() *objects.Object {
	r := &v1alpha2.RouteRule{ObjectMeta: g.meta()}
	r.Spec.Destination = g.istioService()
	r.Spec.Precedence = pick(g, int32(0), 1, -1, 1<<31-1)
	if g.often(60) {
		r.Spec.Match = &v1alpha2.MatchCondition{}
		if g.often(60) {
			src := g.istioService()
			src.Labels = pick(g, nil, g.labels())
			r.Spec.Match.Source = &src
		}
		headers := map[string]v1alpha2.StringMatch{}
		for range g.IntN(3) {
			value := g.text()
			name := pick(g, "uri", "uri", "method", "authority", "scheme", "cookie", "x-a")
			if g.odd() {
				name = pick(g, "", "X-B", "a b")
			}
			headers[name] = pick(g, v1alpha2.StringMatch{Exact: &value}, v1alpha2.StringMatch{Prefix: &value}, v1alpha2.StringMatch{Regex: &value})
		}
		r.Spec.Match.Request = &v1alpha2.RequestMatcher{Headers: headers}
	}
	weights := pick(g, nil, nil, []int32{0}, []int32{100}, []int32{90, 10}, []int32{100, 0}, []int32{50, 25, 25})
	if g.odd() {
		weights = pick(g, []int32{-100, 200}, []int32{0, 0})
	}
	for _, w := range weights {
		d := v1alpha2.DestinationWeight{Labels: g.labels(), Weight: w}
		if g.often(30) {
			d.Destination = new(g.istioService())
		}
		r.Spec.Route = append(r.Spec.Route, d)
	}
	switch g.IntN(6) {
	case 0:
		r.Spec.Route = nil
		r.Spec.Redirect = &v1alpha2.HTTPRedirect{URI: g.text(), Authority: g.text()}
	case 1:
		r.Spec.Rewrite = &v1alpha2.HTTPRewrite{URI: g.text(), Authority: g.text()}
	}
	if g.often(40) {
		r.Spec.HTTPReqTimeout = &v1alpha2.HTTPTimeout{SimpleTimeout: &v1alpha2.SimpleTimeout{Timeout: g.duration()}}
	}
	if g.often(40) {
		r.Spec.HTTPReqRetries = &v1alpha2.HTTPRetry{SimpleRetry: &v1alpha2.SimpleRetry{Attempts: pick(g, int32(0), 3, 3, 1<<31-1), PerTryTimeout: g.duration()}}
	}
	if g.often(40) && r.Spec.Redirect == nil {
		r.Spec.HTTPFault = &v1alpha2.HTTPFaultInjection{
			Delay: pick(g, nil, &v1alpha2.HTTPDelay{Percent: g.percent(), FixedDelay: g.duration()}),
			Abort: pick(g, nil, &v1alpha2.HTTPAbort{Percent: g.percent(), HTTPStatus: new(pick(g, int32(0), 199, 200, 503, 599, 600))}),
		}
	}
	return g.object(v1alpha2.GroupVersion, "RouteRule", r)
}

func (g *generator) policy() *objects.Object {
	p := &v1alpha2.DestinationPolicy{ObjectMeta: g.meta()}
	p.Spec.Destination = g.istioService()
	p.Spec.Destination.Labels = pick(g, nil, g.labels())
	if g.often(30) {
		p.Spec.Source = new(g.istioService())
		p.Spec.Source.Labels = pick(g, nil, g.labels())
	}
	if g.often(60) {
		p.Spec.LoadBalancing = &v1alpha2.LoadBalancing{Name: pick(g, v1alpha2.LoadBalancingSchemes()...)}
		if g.often(30) {
			p.Spec.LoadBalancing = &v1alpha2.LoadBalancing{ConsistentHash: pick(g,
				&v1alpha2.ConsistentHash{HTTPHeaderName: pick(g, "x-user", ":path", g.text())},
				&v1alpha2.ConsistentHash{HTTPCookie: &v1alpha2.HTTPCookie{Name: "user", Path: pick(g, "", "/a"), TTL: pick(g, nil, g.duration())}},
				&v1alpha2.ConsistentHash{UseSourceIP: true, MinimumRingSize: pick(g, int32(0), 1, 1<<16, -1)})}
		}
	}
	if g.often(60) {
		count := func() int32 {
			if g.odd() {
				return -1
			}
			return pick(g, int32(0), 0, 1, 100, 1<<31-1)
		}
		p.Spec.CircuitBreaker = &v1alpha2.CircuitBreaker{SimpleCb: &v1alpha2.SimpleCircuitBreaker{
			MaxConnections: count(), HTTPMaxPendingRequests: count(), HTTPMaxRequests: count(), HTTPConsecutiveErrors: count(),
			HTTPMaxRequestsPerConnection: count(), HTTPMaxEjectionPercent: pick(g, int32(0), 0, 1, 100),
			SleepWindow: pick(g, nil, g.duration()), HTTPDetectionInterval: pick(g, nil, g.duration()),
		}}
	}
	return g.object(v1alpha2.GroupVersion, "DestinationPolicy", p)
}

func (g *generator) external() string {
	return pick(g, "www.example.com", "*.example.com", "*.com", "*-x.example.com", "*", "a", "unknown", "10.96.0.1", "a.default.svc.cluster.local", "*.svc.default.svc.cluster.local",
		"192.0.2.1", "192.0.2.1/32", "192.0.2.0/24", "10.96.0.0/12", "10.96.0.7/16", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "a.default", "a")
}

func (g *generator) egress() *objects.Object {
	e := &v1alpha2.EgressRule{ObjectMeta: g.meta()}
	e.Spec.Destination.Service = g.external()
	for range 1 + g.IntN(3) {
		e.Spec.Ports = append(e.Spec.Ports, v1alpha2.EgressRulePort{Port: pick(g, g.port(), 443, 82), Protocol: g.protocolFor(e.Spec.Destination.Service)})
	}
	return g.object(v1alpha2.GroupVersion, "EgressRule", e)
}

// protocolFor is one that suits the host, but for the odd ones.
func (g *generator) protocolFor(host string) string {
	_, err := netip.ParseAddr(host)
	switch {
	case g.odd():
		return pick(g, "tcp", "tls", "http")
	case strings.Contains(host, "/"):
		return "tcp"
	case err == nil:
		return pick(g, "tcp", "TCP", "http", "https")
	default:
		return pick(g, "http", "HTTPS", "http2", "grpc", "tls")
	}
}

func (g *generator) backend() networkingv1.IngressBackend {
	if g.odd() {
		return networkingv1.IngressBackend{}
	}
	port := networkingv1.ServiceBackendPort{Number: g.port()}
	if g.often(40) {
		port = networkingv1.ServiceBackendPort{Name: pick(g, "", "http", "grpc", "tcp")}
	}
	return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: g.name(), Port: port}}
}

func (g *generator) ingress() *objects.Object {
	in := &networkingv1.Ingress{ObjectMeta: g.meta()}
	in.Spec.IngressClassName = new("istio")
	if g.often(30) {
		in.Spec.DefaultBackend = new(g.backend())
	}
	for range g.IntN(3) {
		r := networkingv1.IngressRule{Host: pick(g, "", "a.example", "A.example", "*.example", "*", "a.example:80", g.text())}
		r.HTTP = pick(g, nil, &networkingv1.HTTPIngressRuleValue{}, &networkingv1.HTTPIngressRuleValue{})
		for range g.IntN(4) {
			if r.HTTP != nil {
				r.HTTP.Paths = append(r.HTTP.Paths, networkingv1.HTTPIngressPath{
					Path: g.text(), Backend: g.backend(),
					PathType: pick(g, nil, new(networkingv1.PathTypeExact), new(networkingv1.PathTypePrefix), new(networkingv1.PathTypeImplementationSpecific)),
				})
			}
		}
		in.Spec.Rules = append(in.Spec.Rules, r)
	}
	for range g.IntN(3) {
		t := networkingv1.IngressTLS{SecretName: g.name()}
		for range g.IntN(3) {
			t.Hosts = append(t.Hosts, pick(g, "a.example", "B.example", "*.example", "*.a.example", "*", "**", "a.example:80", g.text()))
		}
		in.Spec.TLS = append(in.Spec.TLS, t)
	}
	if g.often(30) {
		in.Annotations = map[string]string{pick(g, "ingress.kubernetes.io/ssl-redirect", "kubernetes.io/ingress.allow-http"): pick(g, "true", "false", "x")}
	}
	in.CreationTimestamp = pick(g, metav1.Time{}, metav1.Unix(1, 0), metav1.Unix(2, 0))
	return g.object(networkingv1.SchemeGroupVersion, "Ingress", in)
}

// secret is one of an Ingress: sound, broken, or of another type.
func (g *generator) secret() *objects.Object {
	pairs := goldenPairs()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: g.name(), Namespace: g.namespace()}, Type: corev1.SecretTypeTLS}
	s.Data = map[string][]byte{"tls.crt": pick(g, pairs...)[0], "tls.key": pick(g, pairs...)[1]}
	if g.odd() {
		s.Type = corev1.SecretTypeOpaque
	}
	if g.odd() {
		s.Data["tls.key"] = []byte(g.text())
	}
	return g.object(corev1.SchemeGroupVersion, "Secret", s)
}

// goldenPairs are the certificates and keys of a golden case.
func goldenPairs() [][2][]byte {
	text, err := os.ReadFile("testdata/ingress-tls/in.yaml")
	if err != nil {
		panic(err)
	}
	objs, _ := manifest.Decode("in.yaml", text, manifest.Options{DefaultNamespace: "default"})
	var out [][2][]byte
	for _, o := range objs {
		if s, ok := o.Value.(*corev1.Secret); ok {
			out = append(out, [2][]byte{[]byte(s.StringData["tls.crt"]), []byte(s.StringData["tls.key"])})
		}
	}
	return out
}
