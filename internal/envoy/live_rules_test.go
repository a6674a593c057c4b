package envoy_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/meshctl/meshctl/internal/model"
)

// rule is the manifest of a RouteRule for reviews that takes requests with header x-case of its name. spec is YAML in one line.
func rule(name, spec string) string {
	return fmt.Sprintf(`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: %[1]s}
spec: {destination: {name: reviews}, match: {request: {headers: {x-case: {exact: %[1]s}}}}, %[2]s}
`, name, spec)
}

// gate is an Ingress that lets everything through to reviews.
const gate = `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: gate, annotations: {kubernetes.io/ingress.class: istio}}
spec: {defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
`

// everywhere runs a test at a sidecar and at a gateway.
func everywhere(t *testing.T, text string, test func(t *testing.T, p *proxy, listener string)) {
	t.Helper()
	for _, c := range []struct {
		name, listener string
		role           model.ProxyType
	}{{"sidecar", http9080, model.Sidecar}, {"gateway", "0.0.0.0_8080", model.Ingress}} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, meshOf(t, text+gate+caller), model.Proxy{Type: c.role, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})
			test(t, p, c.listener)
		})
	}
}

func TestLiveRequestsSayTheirOwn(t *testing.T) {
	hanging := serve(t, "hanging", func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
		return true
	})
	bad := func() *instance {
		return serve(t, "bad", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
	}
	good := serve(t, "good", nil)
	bads := []*instance{bad(), bad(), bad(), bad(), bad()}
	text := reviews + version("good", "v1", good) + version("hanging", "v2", hanging)
	for i, in := range bads {
		text += version(fmt.Sprint("bad-", i), "v3", in)
	}
	text += rule("timeout", "route: [{labels: {version: v2}}], httpReqTimeout: {simpleTimeout: {timeout: 1500ms, overrideHeaderName: X-Time}}") +
		rule("unnamed", "route: [{labels: {version: v2}}], httpReqTimeout: {simpleTimeout: {timeout: 1500ms}}") +
		rule("attempts", "route: [{labels: {version: v3}}], httpReqRetries: {simpleRetry: {attempts: 1, overrideHeaderName: x-tries}}") +
		rule("no-attempts", "route: [{labels: {version: v3}}], httpReqRetries: {simpleRetry: {attempts: 0, overrideHeaderName: x-tries}}") +
		rule("delay", "route: [{labels: {version: v1}}], httpFault: {delay: {fixedDelay: 600ms, overrideHeaderName: x-wait}}") +
		rule("abort", "route: [{labels: {version: v1}}], httpFault: {abort: {httpStatus: 418, overrideHeaderName: x-status}}") +
		rule("grpc", "route: [{labels: {version: v1}}], httpFault: {abort: {grpcStatus: UNAVAILABLE, overrideHeaderName: x-status}}")
	everywhere(t, text, func(t *testing.T, p *proxy, listener string) {
		inside := listener == http9080
		timed := func(kind string, headers ...string) (int, time.Duration) {
			began := time.Now()
			s, _, _ := p.ask(t, listener, get, "reviews", "/", append([]string{"X-Case", kind}, headers...)...)
			return s, time.Since(began)
		}
		for _, c := range []struct {
			name, kind, header, value string
			status                    int
			least, most               time.Duration
		}{
			{"a rule's timeout without a word of the request", "timeout", "X-Other", "1", 504, 1400 * time.Millisecond, 5 * time.Second},
			{"a shorter timeout", "timeout", "X-Time", "100", 504, 80 * time.Millisecond, time.Second},
			{"a timeout that is no number", "timeout", "X-Time", "1s", 504, 1400 * time.Millisecond, 5 * time.Second},
			{"a timeout of nothing", "timeout", "X-Time", "0", 504, 1400 * time.Millisecond, 5 * time.Second},
			{"a negative timeout", "timeout", "X-Time", "-1", 504, 1400 * time.Millisecond, 5 * time.Second},
			{"a header that the rule does not name", "unnamed", "X-Time", "100", 504, 1400 * time.Millisecond, 5 * time.Second},
			{"a rule's delay without a word of the request", "delay", "X-Other", "1", 200, 580 * time.Millisecond, 5 * time.Second},
			{"a shorter delay", "delay", "X-Wait", "100", 200, 80 * time.Millisecond, 550 * time.Millisecond},
			{"no delay", "delay", "X-Wait", "0", 200, 0, 550 * time.Millisecond},
			{"a status", "abort", "X-Status", "503", 503, 0, time.Second},
			{"a status that is none", "abort", "X-Status", "99", 418, 0, time.Second},
			{"no status", "abort", "X-Other", "503", 418, 0, time.Second},
			{"gRPC's status to a caller who speaks HTTP", "grpc", "X-Status", "5", 404, 0, time.Second},
			{"gRPC's status of the rule", "grpc", "X-Status", "0", 503, 0, time.Second},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				if s, took := timed(c.kind, c.header, c.value); s != c.status || took < c.least || took > c.most {
					t.Errorf("got %d after %v, want %d after %v to %v", s, took, c.status, c.least, c.most)
				}
			})
		}
		t.Run("a longer timeout, inside of the mesh alone", func(t *testing.T) {
			t.Parallel()
			s, took := timed("timeout", "X-Time", "2500")
			if least := 2400 * time.Millisecond; s != 504 || (took >= least) != inside {
				t.Errorf("got %d after %v", s, took)
			}
		})
		t.Run("a longer delay, inside of the mesh alone", func(t *testing.T) {
			t.Parallel()
			s, took := timed("delay", "X-Wait", "1200")
			if s != 200 || (took >= 1180*time.Millisecond) != inside {
				t.Errorf("got %d after %v", s, took)
			}
		})
		tries := func(kind string, headers ...string) int64 {
			hits := func() (n int64) {
				for _, in := range bads {
					n += in.hits.Load()
				}
				return n
			}
			before := hits()
			if s, _ := timed(kind, headers...); s != 503 {
				t.Errorf("got %d", s)
			}
			return hits() - before
		}
		more := func(inside, outside int64) int64 {
			if listener == http9080 {
				return inside
			}
			return outside
		}
		for _, c := range []struct {
			kind, value string
			want        int64
		}{
			{"attempts", "", 2}, {"attempts", "0", 1}, {"attempts", "3", more(4, 2)}, {"attempts", "many", 2},
			{"no-attempts", "", 1}, {"no-attempts", "2", more(3, 1)}, {"attempts", "1000", more(1+maxSaidAttempts, 2)},
		} {
			t.Run(fmt.Sprintf("%s with %q", c.kind, c.value), func(t *testing.T) {
				if got := tries(c.kind, "X-Tries", c.value); got != c.want {
					t.Errorf("%d tries, want %d", got, c.want)
				}
			})
		}
		t.Run("a request's own words arrive, the proxy's do not", func(t *testing.T) {
			_, e := p.who(t, listener, get, "reviews", "/", "X-Case", "delay", "X-Wait", "1", "X-Envoy-Fault-Delay-Request", "9000")
			if e.Header.Get("X-Wait") != "1" || e.Header.Get("X-Envoy-Fault-Delay-Request") != "" {
				t.Errorf("arrived with %v", e.Header)
			}
		})
	})
}

// maxSaidAttempts is what a request in the mesh may ask for at most.
const maxSaidAttempts = 10

func TestLiveRetriesOfWhatIsNotIdempotent(t *testing.T) {
	good := serve(t, "good", nil)
	bad := serve(t, "bad", func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	p := startSidecar(t, reviews+version("good", "v1", good)+version("bad", "v1", bad)+
		rule("all", "httpReqRetries: {simpleRetry: {attempts: 2, nonIdempotent: true}}")+
		rule("some", "httpReqRetries: {simpleRetry: {attempts: 2}}"))
	met := map[string]int{}
	for range 20 {
		for _, kind := range []string{"all", "some"} {
			who, _ := p.who(t, http9080, http.MethodPost, "reviews", "/", "X-Case", kind)
			met[kind+" "+who]++
		}
	}
	if met["all good"] != 20 || met["some 503"] == 0 {
		t.Errorf("of 20 POSTs each: %v", met)
	}
}

func TestLiveDelaysAreDistributedExponentially(t *testing.T) {
	good := serve(t, "good", nil)
	const mean = 60 * time.Millisecond
	everywhere(t, reviews+version("good", "v1", good)+
		rule("delayed", "httpFault: {delay: {exponentialDelay: 60ms}}")+
		rule("half", "httpFault: {delay: {exponentialDelay: 60s, percent: 50, overrideHeaderName: x-wait}}"), func(t *testing.T, p *proxy, listener string) {
		const n, workers = 600, 20
		took := make([]float64, 0, n)
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range n / workers {
					began := time.Now()
					who, _ := p.who(t, listener, get, "reviews", "/", "X-Case", "delayed")
					d := time.Since(began)
					if who != "good" {
						t.Errorf("met %s", who)
					}
					mu.Lock()
					took = append(took, float64(d)/float64(mean))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		var sum float64
		for _, d := range took {
			sum += d
		}
		// The mean of 600 draws is within five standard errors of 0.2; what a request takes without a delay comes on top.
		if got := sum / n; got < 0.8 || got > 1.4 {
			t.Errorf("the mean of the delays is %.2f of what the rule says", got)
		}
		// Of an exponential distribution's draws 1-1/e are below its mean, and 1/e³ above three times that.
		for _, c := range []struct{ share, at float64 }{{1 - math.Exp(-0.5), 0.5}, {1 - math.Exp(-1), 1}, {1 - math.Exp(-3), 3}} {
			i, _ := slices.BinarySearch(took, c.at)
			if got := float64(i) / n; math.Abs(got-c.share) > 0.15 {
				t.Errorf("%.2f of the delays are below %.1f of the mean, want %.2f", got, c.at, c.share)
			}
		}
	})
}

func TestLiveFaultsTakeTheirShare(t *testing.T) {
	good := serve(t, "good", nil)
	p := startSidecar(t, reviews+version("good", "v1", good)+
		rule("some", "httpFault: {abort: {percent: 25, httpStatus: 418}}")+
		rule("rare", "httpFault: {abort: {percent: 0.5, httpStatus: 418, overrideHeaderName: x-status}}")+
		rule("none", "httpFault: {abort: {percent: 0, httpStatus: 418}}"))
	const n = 2000
	met := map[string]int{}
	for range n {
		for _, kind := range []string{"some", "rare", "none"} {
			if who, _ := p.who(t, http9080, get, "reviews", "/", "X-Case", kind); who == "418" {
				met[kind]++
			}
		}
	}
	// Five standard deviations of a binomial with 2,000 draws of 25 % are 97, of 0.5 % 16.
	if met["some"] < 500-97 || met["some"] > 500+97 || met["rare"] > 10+16 || met["rare"] == 0 || met["none"] != 0 {
		t.Errorf("of %d requests each: %v", n, met)
	}
}

func TestLiveGRPCCallersGetGRPCStatuses(t *testing.T) {
	in := serveGRPC(t)
	rule := func(name, fault string) string {
		return fmt.Sprintf(`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: %[1]s}
spec: {destination: {name: greeter}, match: {request: {headers: {x-case: {exact: %[1]s}}}}, httpFault: {abort: {%[2]s}}}
`, name, fault)
	}
	p := startSidecar(t, greeter+pods("greeter", "grpc", "v1", "greeter-a", in.port, ready)+
		rule("by-name", "grpcStatus: RESOURCE_EXHAUSTED")+rule("by-number", `grpcStatus: "7"`)+rule("http", "httpStatus: 401")+
		rule("said", "grpcStatus: ABORTED, overrideHeaderName: x-status"))
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", p.ports["0.0.0.0_7070"]), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("greeter:7070"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		kind, said string
		want       codes.Code
	}{
		{"none", "", codes.OK}, {"by-name", "", codes.ResourceExhausted}, {"by-number", "", codes.PermissionDenied}, {"http", "", codes.Unauthenticated},
		{"said", "", codes.Aborted}, {"said", "5", codes.NotFound}, {"said", "17", codes.Aborted},
	} {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-case", c.kind, "x-status", c.said), 20*time.Second)
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != c.want {
			t.Errorf("%s said %q: %v, want %v", c.kind, c.said, err, c.want)
		}
		cancel()
	}
}

func TestLiveCORS(t *testing.T) {
	good := serve(t, "good", nil)
	everywhere(t, reviews+version("good", "v1", good)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: shops}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {prefix: /shops}}}}
  corsPolicy:
    allowOrigin: ["https://shop.example", "https://other.example"]
    allowMethods: [GET, PUT]
    allowHeaders: [x-one, x-two]
    exposeHeaders: [x-three]
    maxAge: 10m
    allowCredentials: true
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: anyone}
spec:
  destination: {name: reviews}
  match: {request: {headers: {uri: {prefix: /anyone}}}}
  corsPolicy: {allowOrigin: ["*"]}
`, func(t *testing.T, p *proxy, listener string) {
		for _, c := range []struct {
			name, method, path, origin string
			want                       map[string]string
			reached                    int64
		}{
			{"a browser that asks first", http.MethodOptions, "/shops", "https://shop.example", map[string]string{
				"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Allow-Methods": "GET,PUT", "Access-Control-Allow-Headers": "x-one,x-two",
				"Access-Control-Max-Age": "600", "Access-Control-Allow-Credentials": "true",
			}, 0},
			{"its request", get, "/shops", "https://other.example", map[string]string{
				"Access-Control-Allow-Origin": "https://other.example", "Access-Control-Expose-Headers": "x-three", "Access-Control-Allow-Credentials": "true",
			}, 1},
			{"a page of another origin", get, "/shops", "https://evil.example", map[string]string{"Access-Control-Allow-Origin": ""}, 1},
			{"a page of any origin", get, "/anyone", "https://evil.example", map[string]string{"Access-Control-Allow-Origin": "https://evil.example"}, 1},
			{"a path without a policy", http.MethodOptions, "/", "https://shop.example", map[string]string{"Access-Control-Allow-Origin": ""}, 1},
		} {
			t.Run(c.name, func(t *testing.T) {
				before := good.hits.Load()
				headers := []string{"Origin", c.origin}
				if c.method == http.MethodOptions {
					headers = append(headers, "Access-Control-Request-Method", "PUT")
				}
				status, _, header := p.ask(t, listener, c.method, "reviews", c.path, headers...)
				if status != http.StatusOK || good.hits.Load()-before != c.reached {
					t.Errorf("got %d, and the instance %d requests, want %d", status, good.hits.Load()-before, c.reached)
				}
				for name, want := range c.want {
					if got := header.Get(name); got != want {
						t.Errorf("%s is %q, want %q", name, got, want)
					}
				}
			})
		}
	})
}

func TestLiveMirrorAndAppendedHeaders(t *testing.T) {
	v1 := serve(t, "v1", nil)
	copies := make(chan *http.Request, 100)
	take := func(_ http.ResponseWriter, r *http.Request) bool {
		copies <- r
		return false
	}
	v2 := serve(t, "v2", take)
	other := serve(t, "other", take)
	everywhere(t, reviews+version("v1", "v1", v1)+version("v2", "v2", v2)+pods("other", "http", "v1", "other-v1", other.port, ready)+`
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 10.96.0.3, ports: [{name: http, port: 8888}]}
`+rule("version", "route: [{labels: {version: v1}}], mirror: {name: reviews, labels: {version: v2}}, appendHeaders: {x-mark: 100% sure, X-Seen: b}")+
		rule("service", "route: [{labels: {version: v1}}], mirror: {name: other}")+
		rule("nobody", "route: [{labels: {version: v1}}], mirror: {name: reviews, labels: {version: v9}}")+
		rule("nowhere", "route: [{labels: {version: v1}}], mirror: {name: nothing}"), func(t *testing.T, p *proxy, listener string) {
		for _, kind := range []string{"version", "service"} {
			who, e := p.who(t, listener, http.MethodPut, "reviews", "/path?q", "X-Case", kind, "X-Seen", "a")
			if who != "v1" {
				t.Errorf("%s: met %s", kind, who)
			}
			if got := e.Header["X-Seen"]; kind == "version" && (!slices.Equal(got, []string{"a", "b"}) || e.Header.Get("X-Mark") != "100% sure") {
				t.Errorf("arrived with %v", e.Header)
			}
			select {
			case r := <-copies:
				if r.Method != http.MethodPut || r.RequestURI != "/path?q" || !strings.Contains(r.Host, "reviews") {
					t.Errorf("%s: the copy is %s %s%s", kind, r.Method, r.Host, r.RequestURI)
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: no copy came", kind)
			}
		}
		for _, kind := range []string{"nobody", "nowhere"} {
			if who, _ := p.who(t, listener, get, "reviews", "/", "X-Case", kind); who != "v1" {
				t.Errorf("a copy that nobody takes: met %s", who)
			}
		}
	})
}

func TestLiveAddressesOfConnections(t *testing.T) {
	good, special := serve(t, "v1", nil), serve(t, "v2", nil)
	rule := func(name, tcp string) string {
		return fmt.Sprintf(`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: %[1]s}
spec: {destination: {name: reviews}, match: {tcp: {%[2]s}, request: {headers: {x-case: {exact: %[1]s}}}}, route: [{labels: {version: v2}}]}
`, name, tcp)
	}
	everywhere(t, reviews+version("good", "v1", good)+version("special", "v2", special)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: default}
spec: {destination: {name: reviews}, precedence: -1, route: [{labels: {version: v1}}]}
`+rule("from-here", `sourceSubnet: [192.0.2.0/24, 127.0.0.0/8]`)+rule("from-there", `sourceSubnet: [192.0.2.0/24]`)+
		rule("to-here", `destinationSubnet: ["127.0.0.1", "fd00::/8"]`)+rule("to-there", `destinationSubnet: ["::/0"]`)+
		rule("both", `sourceSubnet: [127.0.0.0/8], destinationSubnet: [0.0.0.0/0]`)+rule("one-of-two", `sourceSubnet: [127.0.0.0/8], destinationSubnet: [192.0.2.1]`)+
		rule("any", ""), func(t *testing.T, p *proxy, listener string) {
		for kind, want := range map[string]string{"from-here": "v2", "from-there": "v1", "to-here": "v2", "to-there": "v1", "both": "v2", "one-of-two": "v1", "any": "v2"} {
			if who, _ := p.who(t, listener, get, "reviews", "/", "X-Case", kind); who != want {
				t.Errorf("%s: met %s, want %s", kind, who, want)
			}
		}
	})
}

// What is asked of an instance that fails everything: with a budget of one half of what is under way, twice the requests at most, whatever the rule says.
func TestLiveRetriesHaveABudget(t *testing.T) {
	bad := serve(t, "bad", func(w http.ResponseWriter, _ *http.Request) bool {
		<-time.After(40 * time.Millisecond) // the work that a request is
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	p := startSidecar(t, reviews+version("bad", "v1", bad)+rule("storm", "httpReqRetries: {simpleRetry: {attempts: 9}}"))
	const workers, each = 80, 8
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if s, _, _ := p.ask(t, http9080, get, "reviews", "/", "X-Case", "storm"); s != 503 {
					t.Errorf("got %d", s)
				}
			}
		})
	}
	wg.Wait()
	factor := float64(bad.hits.Load()) / (workers * each)
	t.Logf("a request cost the failing instance %.2f", factor)
	// Ten tries each would be without a budget. The ten that may be retried in any case count for more when the last requests are few.
	if factor > 2.8 || factor < 1.1 {
		t.Errorf("%d requests became %.2f times as many", workers*each, factor)
	}
}
