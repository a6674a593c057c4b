package meshd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/meshctl/meshctl/internal/proxystatus"
)

// reviews is a service with one pod of each of two versions.
const reviews = `
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, labels: {app: reviews, version: v1}}
spec: {serviceAccountName: reviews, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v2, labels: {app: reviews, version: v2}}
spec: {serviceAccountName: reviews, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080, protocol: TCP}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v1}}
- {addresses: [10.1.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: reviews-v2}}`

func routeTo(name, version string) string {
	return fmt.Sprintf(`
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: %s}
spec:
  destination: {name: reviews}
  precedence: 1
  route: [{labels: {version: %s}}]`, name, version)
}

const routesType = "route.v3.RouteConfiguration"

func TestPilotWaitsForItsNamespaceAndKindsAndThenServes(t *testing.T) {
	l := emptyLab(t)
	p := l.pilot(l.server.Kubeconfig)
	until(t, "it tries to keep its root", func() error {
		if !strings.Contains(p.log.String(), "waiting for the root") {
			return errors.New("not yet")
		}
		return nil
	})
	_, err := l.kube.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "istio-system"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "readiness names the kind that is missing", func() error {
		code, body := p.get("/ready")
		if code != http.StatusServiceUnavailable || !strings.Contains(body, "no kind RouteRule") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if code, _ := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
	l.installKinds()
	p.ready()
	if _, body := p.get("/metrics"); !strings.Contains(body, "mesh_pilot_connected_proxies 0") || !strings.Contains(body, "mesh_pilot_build_duration_seconds_count") {
		t.Error(body)
	}
}

func TestARuleReachesTheProxyAndItsFateIsInItsStatus(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	proxy := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~"+ns+".svc.cluster.local", l.token(ns, "reviews", "reviews-v1"), ns)
	before := proxy.holds(routesType, "9080")
	proxy.holds("cluster.v3.Cluster", "outbound|9080||reviews."+ns+".svc.cluster.local")

	l.apply(ns, routeTo("to-v1", "v1"))
	l.condition(ns, "to-v1", "Accepted", "True", "Accepted")
	l.condition(ns, "to-v1", "Programmed", "True", "Programmed")
	if after := proxy.holds(routesType, "9080"); after == before {
		t.Error("the rule changed nothing at the proxy")
	}
	proxy.holds("cluster.v3.Cluster", "outbound|9080|version=v1|reviews."+ns+".svc.cluster.local")

	// A rejection shows in the status of the rule it came from, in the proxy's words, and goes with its cause.
	const text = "the proxy does not like this"
	proxy.mu.Lock()
	proxy.refuse["9080"] = text
	proxy.mu.Unlock()
	patch := []byte(`{"spec":{"route":[{"labels":{"version":"v2"}}]}}`)
	if _, err := l.dyn.Resource(routeRules).Namespace(ns).Patch(t.Context(), "to-v1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	message := l.condition(ns, "to-v1", "Programmed", "False", "ProxyRejected")
	if !strings.Contains(message, text) || !strings.Contains(message, ns+"/reviews-v1") {
		t.Errorf("message %q", message)
	}
	if fs := l.rule(ns, "to-v1").Status.Findings; len(fs) == 0 || fs[len(fs)-1].Code != "M0301" {
		t.Errorf("findings %+v", fs)
	}
	list := p.proxies(ns)
	if len(list.Proxies) != 1 || list.Proxies[0].Types["rds"].State != proxystatus.Error || list.Proxies[0].Types["rds"].Message != text ||
		list.Proxies[0].Types["cds"].State != proxystatus.Synced || list.Proxies[0].Types["eds"].State != proxystatus.NotSent || list.Pilot != "pilot-test" {
		t.Errorf("proxies %+v", list)
	}
	proxy.mu.Lock()
	clear(proxy.refuse)
	proxy.mu.Unlock()
	patch = []byte(`{"spec":{"route":[{"labels":{"version":"v1"}}]}}`)
	if _, err := l.dyn.Resource(routeRules).Namespace(ns).Patch(t.Context(), "to-v1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.condition(ns, "to-v1", "Programmed", "True", "Programmed")
	if fs := l.rule(ns, "to-v1").Status.Findings; len(fs) != 0 {
		t.Errorf("findings %+v", fs)
	}
}

// proxies asks /debug/proxies as meshctl does.
func (p *process) proxies(namespace string) proxystatus.List {
	p.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.trust(namespace)}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + p.addresses["debug"] + "/debug/proxies")
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var list proxystatus.List
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		p.t.Fatal(err)
	}
	return list
}

func TestFindingsAmongObjectsAreInTheStatus(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	l.apply(ns, routeTo("lonely", "v1"))
	l.condition(ns, "lonely", "Accepted", "True", "Accepted")
	finding := func(rule, code string) {
		t.Helper()
		until(t, rule+" is told "+code, func() error {
			fs := l.rule(ns, rule).Status.Findings
			for _, f := range fs {
				if f.Code == code && f.Severity == "warning" && f.Message != "" {
					return nil
				}
			}
			return fmt.Errorf("%+v", fs)
		})
	}
	finding("lonely", "M0201") // no such service
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	l.apply(ns, routeTo("second", "v2"))
	finding("second", "M0202") // equal precedence
	l.apply(ns, `
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: empty}
spec:
  destination: {name: reviews}`)
	until(t, "an object that nothing is made of says so", func() error {
		u, err := l.dyn.Resource(routeRules.GroupVersion().WithResource("destinationpolicies")).Namespace(ns).Get(t.Context(), "empty", metav1.GetOptions{})
		if err != nil {
			return err
		}
		text, err := json.Marshal(u.Object["status"])
		if err != nil || !strings.Contains(string(text), `"reason":"NotInForce"`) || !strings.Contains(string(text), `"reason":"Accepted"`) {
			return errors.Join(errors.New(string(text)), err)
		}
		return nil
	})
}

func TestTheCallerDecidesWhichProxyItIs(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	token := l.token(ns, "reviews", "reviews-v1")
	for name, c := range map[string]struct {
		node, token string
		code        codes.Code
	}{
		"another pod's node id": {"sidecar~10.1.0.2~reviews-v2." + ns + "~d", token, codes.PermissionDenied},
		"a gateway's node id":   {"ingress~10.1.0.1~reviews-v1." + ns + "~d", token, codes.PermissionDenied},
		"a token of nobody":     {"sidecar~10.1.0.1~reviews-v1." + ns + "~d", "nobody's", codes.Unauthenticated},
	} {
		if err := <-p.connect(c.node, c.token, ns).ended; status.Code(err) != c.code {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	// On loopback in plaintext the node id is believed.
	p.connect("sidecar~10.1.0.2~reviews-v2."+ns+"~d", "", "").holds(routesType, "9080")
}

func TestAProxysStreamEndsWithItsPod(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	proven := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~d", l.token(ns, "reviews", "reviews-v1"), ns)
	proven.holds(routesType, "9080")
	trusted := p.connect("sidecar~10.9.9.9~of-no-pod."+ns+"~d", "", "")
	before := trusted.holds(routesType, "9080")
	now := int64(0)
	if err := l.kube.CoreV1().Pods(ns).Delete(t.Context(), "reviews-v1", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-proven.ended:
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "gone") {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the stream outlives the pod")
	}
	l.apply(ns, routeTo("to-v2", "v2"))
	until(t, "the other is served as before", func() error {
		if trusted.holds(routesType, "9080") == before {
			return errors.New("the rule has not come")
		}
		return nil
	})
}

func TestAnIngressOfTheMeshGetsTheGatewaysAddress(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	l.apply("istio-system", `
apiVersion: v1
kind: Service
metadata: {name: istio-ingress}
spec:
  type: LoadBalancer
  selector: {istio: ingress}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: istio-ingress-1, labels: {istio: ingress}}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, hostIP: 192.0.2.7, hostIPs: [{ip: 192.0.2.7}]}`)
	t.Cleanup(func() {
		if err := errors.Join(l.kube.CoreV1().Pods("istio-system").Delete(context.Background(), "istio-ingress-1", metav1.DeleteOptions{}),
			l.kube.CoreV1().Services("istio-system").Delete(context.Background(), "istio-ingress", metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	ingress := func(name, class string) string {
		return fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, annotations: {kubernetes.io/ingress.class: %s}}
spec:
  defaultBackend: {service: {name: reviews, port: {number: 9080}}}`, name, class)
	}
	l.apply(ns, ingress("other", "nginx"))
	l.apply(ns, ingress("ours", "istio"))
	address := func(want string) {
		t.Helper()
		until(t, "the Ingress shows "+want, func() error {
			in, err := l.kube.NetworkingV1().Ingresses(ns).Get(t.Context(), "ours", metav1.GetOptions{})
			if err != nil || len(in.Status.LoadBalancer.Ingress) != 1 || in.Status.LoadBalancer.Ingress[0].IP != want {
				return fmt.Errorf("%+v %w", in.Status, err)
			}
			return nil
		})
	}
	address("192.0.2.7") // the node
	patch := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.9","ipMode":"VIP"}]}}}`)
	if _, err := l.kube.CoreV1().Services("istio-system").Patch(t.Context(), "istio-ingress", types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	address("198.51.100.9")
	in, err := l.kube.NetworkingV1().Ingresses(ns).Get(t.Context(), "other", metav1.GetOptions{})
	if err != nil || len(in.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("another class's Ingress: %+v %v", in.Status, err)
	}
}

func TestPilotOutlivesTheAPIServer(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	way := newBroken(t, strings.TrimPrefix(l.server.URL, "https://"))
	p := l.pilot(way.kubeconfig(l.server))
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	proxy := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~d", "", "")
	before := proxy.holds(routesType, "9080")
	way.interrupt()
	l.apply(ns, routeTo("meanwhile", "v1")) // by another way
	// A proxy that comes while it is away is served.
	if v := p.connect("sidecar~10.1.0.2~reviews-v2."+ns+"~d", "", "").holds(routesType, "9080"); v != before {
		t.Errorf("another version %s, want %s", v, before)
	}
	if code, _ := p.get("/ready"); code != http.StatusOK {
		t.Errorf("ready %d: proxies would be sent away from a Pilot that has all they need", code)
	}
	way.repair()
	until(t, "what happened meanwhile arrives", func() error {
		if proxy.holds(routesType, "9080") == before {
			return errors.New("not yet")
		}
		return nil
	})
	l.condition(ns, "meanwhile", "Programmed", "True", "Programmed")
}

func TestTheMeshConfigurationIsFollowedAndAFaultyOneIsNot(t *testing.T) {
	l := newLab(t)
	l.installKinds()
	l.apply("istio-system", `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio}
data: {mesh: "connectTimeout: 3s"}`)
	t.Cleanup(func() {
		if err := l.kube.CoreV1().ConfigMaps("istio-system").Delete(context.Background(), "istio", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	p := l.pilot(l.server.Kubeconfig)
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	proxy := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~d", "", "")
	name := "outbound|9080||reviews." + ns + ".svc.cluster.local"
	before := proxy.holds("cluster.v3.Cluster", name)
	set := func(text string) {
		t.Helper()
		patch, err := json.Marshal(map[string]any{"data": map[string]string{"mesh": text}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.kube.CoreV1().ConfigMaps("istio-system").Patch(t.Context(), "istio", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	set("connectTimeout: soon")
	until(t, "the fault is logged", func() error {
		if !strings.Contains(p.log.String(), "the one before stays in force") {
			return errors.New("not yet")
		}
		return nil
	})
	if now := proxy.holds("cluster.v3.Cluster", name); now != before {
		t.Error("a faulty configuration changed something")
	}
	set("connectTimeout: 4s")
	until(t, "the new one is in force", func() error {
		if proxy.holds("cluster.v3.Cluster", name) == before {
			return errors.New("not yet")
		}
		return nil
	})
}

func TestWrongUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"a plaintext address others can reach": {"pilot", "--debug-xds-address", "0.0.0.0:15010"},
		"a plaintext address on every port":    {"pilot", "--debug-xds-address", ":15010"},
		"a debug address others can reach":     {"pilot", "--debug-address", "10.0.0.1:1"},
		"an unknown flag":                      {"pilot", "--nonsense"},
		"an argument":                          {"pilot", "x"},
		"an unknown role":                      {"navigator"},
		"an unknown log level":                 {"pilot", "--log-level", "loud"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			if code := Main(t.Context(), args, &out, &errs); code != 2 || out.Len() > 0 || !strings.HasPrefix(errs.String(), "meshd: ") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, out.String(), errs.String())
			}
		})
	}
}

func TestAKubeconfigThatIsNotThereIsSaid(t *testing.T) {
	var out, errs strings.Builder
	if code := Main(t.Context(), []string{"pilot", "--kubeconfig", "/nowhere/kubeconfig"}, &out, &errs); code != 3 || !strings.Contains(errs.String(), "/nowhere/kubeconfig") {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
}
