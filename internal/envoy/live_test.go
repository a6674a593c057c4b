package envoy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

// instance is a server that says who it is and what it was asked.
type instance struct {
	name string
	port int
	hits atomic.Int64
}

// echo is what an instance answers.
type echo struct {
	Instance string
	Method   string
	Path     string
	Host     string
	Header   http.Header
}

// serve starts an instance. A handler that returns true has answered itself.
func serve(t *testing.T, name string, special func(w http.ResponseWriter, r *http.Request) bool) *instance {
	t.Helper()
	in := &instance{name: name}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in.hits.Add(1)
		if special != nil && special(w, r) {
			return
		}
		_ = json.NewEncoder(w).Encode(echo{Instance: name, Method: r.Method, Path: r.RequestURI, Host: r.Host, Header: r.Header})
	}))
	t.Cleanup(srv.Close)
	in.port = srv.Listener.Addr().(*net.TCPAddr).Port
	return in
}

// pods are the manifests of a pod and an endpoint slice of service for an instance at port, labelled with a version. conditions is YAML.
func pods(service, portName, version, name string, port int, conditions string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[4]s, labels: {app: %[1]s, version: %[3]s}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[4]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: %[2]s, port: %[5]d}]
endpoints: [{addresses: [127.0.0.1], conditions: %[6]s, targetRef: {kind: Pod, name: %[4]s}}]
`, service, portName, version, name, port, conditions)
}

const ready = "{ready: true}"

// caller is the pod beside which the proxy under test runs.
const caller = `
---
apiVersion: v1
kind: Pod
metadata: {name: caller, labels: {app: caller}}
status: {podIP: 10.1.0.1}
`

// meshOf reads manifests and makes their mesh. Errors of check are the test's errors.
func meshOf(t testing.TB, text string) *model.Mesh {
	t.Helper()
	objs, fs := manifest.Decode("test", []byte(text), manifest.Options{DefaultNamespace: "default"})
	if finding.HasErrors(fs) {
		t.Fatalf("reading manifests: %v", fs)
	}
	mesh, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	if finding.HasErrors(fs) {
		t.Fatalf("judging manifests: %v", fs)
	}
	return mesh
}

// proxy is a running Envoy of which every listener is bound to a free loopback port, in place of being handed captured connections.
type proxy struct {
	*envoyproc.Proc
	ports map[string]int
}

// start runs Envoy with what a proxy in the mesh is told.
func start(t *testing.T, mesh *model.Mesh, p model.Proxy) *proxy {
	t.Helper()
	r := envoy.Build(mesh, p)
	if err := envoy.Consistent(r); err != nil {
		t.Fatal(err)
	}
	out := &proxy{ports: map[string]int{}}
	admin := freeport.For(t)
	bootstrap := envoyproc.Static(t, r, "127.0.0.1", uint32(admin), func(l *listenerv3.Listener) {
		port := freeport.For(t)
		for slices.Contains(slices.Collect(maps.Values(out.ports)), port) || port == admin {
			port = freeport.For(t)
		}
		out.ports[l.GetName()] = port
		l.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
		}}}
		l.AdditionalAddresses = nil
		l.BindToPort = wrapperspb.Bool(true)
	})
	out.Proc = envoyproc.Start(t, bootstrap, envoyproc.Options{Admin: fmt.Sprintf("127.0.0.1:%d", admin)})
	return out
}

func startSidecar(t *testing.T, text string) *proxy {
	t.Helper()
	return start(t, meshOf(t, text+caller), model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})
}

// ask sends a request to a listener and reads the answer. Headers are pairs.
func (p *proxy) ask(t *testing.T, listener, method, host, path string, headers ...string) (int, string, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	port, ok := p.ports[listener]
	if !ok {
		t.Fatalf("no listener %s among %v", listener, p.ports)
	}
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", port, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Do(req)
	if err != nil {
		t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s%s: %v", method, host, path, err)
	}
	return resp.StatusCode, string(body), resp.Header
}

// who asks and says which instance answered, or the status of an answer that is none's.
func (p *proxy) who(t *testing.T, listener, method, host, path string, headers ...string) (string, echo) {
	t.Helper()
	status, body, _ := p.ask(t, listener, method, host, path, headers...)
	var e echo
	if status != http.StatusOK || json.Unmarshal([]byte(body), &e) != nil {
		return fmt.Sprint(status), e
	}
	return e.Instance, e
}

const reviews = `
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  clusterIP: 10.96.0.2
  ports: [{name: http, port: 9080}]
  selector: {app: reviews}
`

const (
	http9080 = "0.0.0.0_9080"
	get      = http.MethodGet
)

func TestLiveWeightsSplitRequests(t *testing.T) {
	v1, v2 := serve(t, "v1", nil), serve(t, "v2", nil)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+pods("reviews", "http", "v2", "reviews-v2", v2.port, ready)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: canary}
spec:
  destination: {name: reviews}
  route:
  - {labels: {version: v2}, weight: 10}
  - {labels: {version: v1}, weight: 90}
`)
	const n = 2000
	met := map[string]int{}
	for range n {
		name, _ := p.who(t, http9080, get, "reviews", "/")
		met[name]++
	}
	// Five standard deviations of a binomial with 2,000 draws of 10 % are 67.
	if met["v1"]+met["v2"] != n || met["v2"] < 200-67 || met["v2"] > 200+67 {
		t.Errorf("of %d requests with weights 90 and 10: %v", n, met)
	}
}

func TestLiveRulesMatchRequests(t *testing.T) {
	v1, v2, other := serve(t, "v1", nil), serve(t, "v2", nil), serve(t, "other", nil)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+pods("reviews", "http", "v2", "reviews-v2", v2.port, ready)+
		pods("other", "http", "v1", "other-v1", other.port, ready)+`
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 8888}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: default}
spec: {destination: {name: reviews}, route: [{labels: {version: v1}, weight: 100}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: jason}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {cookie: {regex: "^(.*?;)?(user=jason)(;.*)?$"}}}}
  route: [{labels: {version: v2}, weight: 100}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: number}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {x-number: {regex: "[0-9]+"}, x-kind: {prefix: beta}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: exact-path}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {uri: {exact: /exact}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: prefix-path}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {uri: {prefix: /prefix}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: regex-path}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {uri: {regex: "/item/[0-9]+"}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: method}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {method: {exact: DELETE}, scheme: {exact: http}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: authority}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {authority: {exact: reviews.default}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: to-another-service}
spec:
  destination: {name: reviews}
  precedence: 3
  match: {request: {headers: {x-go: {exact: other}}}}
  route: [{destination: {name: other}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: not-for-this-caller}
spec:
  destination: {name: reviews}
  precedence: 9
  match: {source: {name: other}}
  route: [{labels: {version: v9}}]
`)
	for _, c := range []struct {
		name, method, host, path string
		headers                  []string
		want                     string
	}{
		{"without anything special", get, "reviews", "/", nil, "v1"},
		{"jason's cookie", get, "reviews", "/", []string{"Cookie", "user=jason"}, "v2"},
		{"jason's cookie among others", get, "reviews", "/", []string{"Cookie", "a=b;user=jason;c=d"}, "v2"},
		{"another's cookie", get, "reviews", "/", []string{"Cookie", "user=jasonx"}, "v1"},
		{"a regular expression and a prefix that both hold", get, "reviews", "/", []string{"X-Number", "42", "X-Kind", "beta-2"}, "v2"},
		{"a regular expression that holds for a part only", get, "reviews", "/", []string{"X-Number", "42a", "X-Kind", "beta"}, "v1"},
		{"one condition of two", get, "reviews", "/", []string{"X-Number", "42"}, "v1"},
		{"an exact path with a query", get, "reviews", "/exact?a=b", nil, "v2"},
		{"a path longer than the exact one", get, "reviews", "/exact/more", nil, "v1"},
		{"a path with the prefix", get, "reviews", "/prefixed?x", nil, "v2"},
		{"a path that the expression matches, with a query", get, "reviews", "/item/7?x=/y", nil, "v2"},
		{"a path that the expression matches in part", get, "reviews", "/item/7/more", nil, "v1"},
		{"a method and a scheme", http.MethodDelete, "reviews", "/", nil, "v2"},
		{"an authority", get, "reviews.default", "/", nil, "v2"},
		{"an authority with a port", get, "reviews.default:9080", "/", nil, "v2"},
		{"the full name", get, "reviews.default.svc.cluster.local:9080", "/", nil, "v1"},
		{"the full name with a dot at its end", get, "reviews.default.svc.cluster.local.", "/", nil, "v1"},
		{"the virtual IP", get, "10.96.0.2:9080", "/", nil, "v1"},
		{"a rule of higher precedence, to another service and port", get, "reviews", "/exact", []string{"X-Go", "other"}, "other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := p.who(t, http9080, c.method, c.host, c.path, c.headers...); got != c.want {
				t.Errorf("met %s, want %s", got, c.want)
			}
		})
	}
}

func TestLiveRequestsArriveAsTheyWereSent(t *testing.T) {
	v1 := serve(t, "v1", nil)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready))
	_, e := p.who(t, http9080, get, "reviews:9080", "/a//b/../c?d=%2F", "X-Request-Id", "given", "X-Forwarded-For", "192.0.2.1", "Cookie", "user=jason")
	if e.Host != "reviews:9080" || e.Path != "/a//b/../c?d=%2F" || e.Header.Get("X-Request-Id") != "given" ||
		e.Header.Get("X-Forwarded-For") != "192.0.2.1" || e.Header.Get("Cookie") != "user=jason" {
		t.Errorf("arrived as %+v", e)
	}
	if _, e = p.who(t, http9080, get, "reviews", "/"); e.Header.Get("X-Request-Id") == "" {
		t.Error("a request without an id was not given one")
	}
}

func TestLiveUnknownHostsAndServicesWithoutInstances(t *testing.T) {
	v1 := serve(t, "v1", nil)
	p := startSidecar(t, reviews+
		pods("reviews", "http", "v1", "reviews-v1", v1.port, "{ready: false, serving: true, terminating: true}")+
		pods("reviews", "http", "v1", "reviews-v1-b", v1.port, "{ready: false}")+`
---
apiVersion: v1
kind: Service
metadata: {name: full}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 9080}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: to-nobody}
spec: {destination: {name: full}, match: {request: {headers: {x-to: {exact: nobody}}}}, route: [{labels: {version: none}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: to-no-service}
spec: {destination: {name: full}, match: {request: {headers: {x-to: {exact: nowhere}}}}, route: [{destination: {name: nowhere}}]}
`+pods("full", "http", "v1", "full-v1", v1.port, ready))
	for _, c := range []struct {
		name, host, to string
		want           int
		says           string
	}{
		{"an unknown host gets 404 with the reason", "nobody.example", "", 404, "no service or rule in the mesh for host nobody.example on port 9080"},
		{"a service whose only instance shuts down gets 503", "reviews", "", 503, ""},
		{"a version without instances gets 503", "full", "nobody", 503, ""},
		{"a rule that leads to a service that is not there gets 503", "full", "nowhere", 503, ""},
		{"the others work", "full", "", 200, "v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, _ := p.ask(t, http9080, get, c.host, "/", "X-To", c.to)
			if status != c.want || !strings.Contains(body, c.says) {
				t.Errorf("got %d %q, want %d %q", status, body, c.want, c.says)
			}
		})
	}
}

func TestLiveTimeoutsRetriesAndFaults(t *testing.T) {
	good, good2 := serve(t, "good", nil), serve(t, "good", nil)
	bad := serve(t, "bad", func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	hanging := serve(t, "hanging", func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
		return true
	})
	closed := freeport.For(t)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "good-v1", good.port, ready)+pods("reviews", "http", "v1", "bad-v1", bad.port, ready)+
		pods("reviews", "http", "v2", "good-v2", good2.port, ready)+pods("reviews", "http", "v2", "closed-v2", closed, ready)+
		pods("reviews", "http", "v3", "hanging-v3", hanging.port, ready)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: retried}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: retried}}}}
  route: [{labels: {version: v1}}]
  httpReqRetries: {simpleRetry: {attempts: 3}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: not-retried}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: plain}}}}
  route: [{labels: {version: v1}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: closed}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: closed}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: timeout}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: timeout}}}}
  route: [{labels: {version: v3}}]
  httpReqTimeout: {simpleTimeout: {timeout: 300ms}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: per-try}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: per-try}}}}
  route: [{labels: {version: v3}}]
  httpReqRetries: {simpleRetry: {attempts: 2, perTryTimeout: 100ms}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: aborted}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: aborted}}}}
  httpFault: {abort: {httpStatus: 418}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: delayed}
spec:
  destination: {name: reviews}
  match: {request: {headers: {x-case: {exact: delayed}}}}
  route: [{labels: {version: v2}}]
  httpFault: {delay: {percent: 100, fixedDelay: 400ms}}
`)
	status := func(method, kind string) int {
		s, _, _ := p.ask(t, http9080, method, "reviews", "/", "X-Case", kind)
		return s
	}
	t.Run("a GET is retried on another instance, always", func(t *testing.T) {
		before := bad.hits.Load()
		for range 40 {
			if s := status(get, "retried"); s != 200 {
				t.Fatalf("got %d", s)
			}
		}
		if bad.hits.Load() == before {
			t.Error("the bad instance was never asked, so nothing was retried")
		}
	})
	t.Run("a POST that an instance has seen is not retried", func(t *testing.T) {
		met := map[int]int{}
		for range 40 {
			met[status(http.MethodPost, "retried")]++
		}
		if met[503] != 20 || met[200] != 20 {
			t.Errorf("of 40 over a good and a bad instance: %v", met)
		}
	})
	t.Run("without a rule for it a bad answer is not retried", func(t *testing.T) {
		met := map[int]int{}
		for range 40 {
			met[status(get, "plain")]++
		}
		if met[503] != 20 {
			t.Errorf("of 40 over a good and a bad instance: %v", met)
		}
	})
	t.Run("an instance that cannot be connected to costs no request, whatever the method", func(t *testing.T) {
		for range 40 {
			if s := status(http.MethodPost, "closed"); s != 200 {
				t.Fatalf("got %d", s)
			}
		}
	})
	// Envoy's timers begin with its loop's turn, which is some milliseconds old on a busy machine.
	const almost300ms = 280 * time.Millisecond
	t.Run("a timeout answers 504 in its time", func(t *testing.T) {
		began := time.Now()
		if s := status(get, "timeout"); s != 504 || time.Since(began) < almost300ms || time.Since(began) > 5*time.Second {
			t.Errorf("got %d after %v", s, time.Since(began))
		}
	})
	t.Run("a try's timeout counts for each try", func(t *testing.T) {
		before, began := hanging.hits.Load(), time.Now()
		if s := status(get, "per-try"); s != 504 || hanging.hits.Load()-before != 3 || time.Since(began) < almost300ms {
			t.Errorf("got %d after %v and %d tries", s, time.Since(began), hanging.hits.Load()-before)
		}
	})
	t.Run("an abort without a percentage takes all", func(t *testing.T) {
		for range 20 {
			if s := status(get, "aborted"); s != 418 {
				t.Fatalf("got %d", s)
			}
		}
	})
	t.Run("a delay delays", func(t *testing.T) {
		began := time.Now()
		if s := status(get, "delayed"); s != 200 || time.Since(began) < 380*time.Millisecond {
			t.Errorf("got %d after %v", s, time.Since(began))
		}
	})
}

func TestLiveRedirectAndRewrite(t *testing.T) {
	v1 := serve(t, "v1", nil)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: redirect}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {prefix: /moved}}}}
  redirect: {uri: /here, authority: "elsewhere.example:8080"}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: rewrite-prefix}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {prefix: /v1/}}}}
  rewrite: {uri: /new/, authority: reviews.internal}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: rewrite-exact}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {exact: /exact}}}}
  rewrite: {uri: /other}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: rewrite-regex}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {regex: "/r[0-9]"}}}}
  rewrite: {uri: /numbered}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: rewrite-all}
spec:
  destination: {name: reviews}
  precedence: -1
  rewrite: {uri: /all}
`)
	status, _, header := p.ask(t, http9080, get, "reviews", "/moved/away?q=1")
	if status != 301 || header.Get("Location") != "http://elsewhere.example:8080/here?q=1" {
		t.Errorf("got %d to %q", status, header.Get("Location"))
	}
	for path, want := range map[string]string{
		"/v1/item?q=1": "reviews.internal/new/item?q=1",
		"/exact?q=1":   "reviews/other?q=1",
		"/r5?q=1":      "reviews/numbered?q=1",
		"/item":        "reviews/all/item",
	} {
		if _, e := p.who(t, http9080, get, "reviews", path); e.Host+e.Path != want {
			t.Errorf("%s arrived as %s, want %s", path, e.Host+e.Path, want)
		}
	}
}
