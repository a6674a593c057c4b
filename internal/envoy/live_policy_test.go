package envoy_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

// policy is the manifest of a DestinationPolicy for reviews.
func policy(spec string) string {
	return `
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: policy}
spec: {` + spec + `}
`
}

// version is an instance of reviews.
func version(name, label string, in *instance) string {
	return pods("reviews", "http", label, name, in.port, ready)
}

// held is a handler that answers no request before it is let go.
func held(t *testing.T) (handler func(http.ResponseWriter, *http.Request) bool, release func()) {
	done := make(chan struct{})
	release = sync.OnceFunc(func() { close(done) })
	t.Cleanup(release)
	return func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-done:
		case <-r.Context().Done():
		}
		return false
	}, release
}

// flood sends n requests at once and hands their statuses over as they come.
func (p *proxy) flood(t *testing.T, n int) <-chan int {
	t.Helper()
	// The buffer holds all, so that nobody waits for a test that has given up.
	statuses := make(chan int, n)
	for range n {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), get, fmt.Sprintf("http://127.0.0.1:%d/", p.ports[http9080]), nil)
			if err != nil {
				statuses <- -1
				return
			}
			req.Host = "reviews"
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				statuses <- -1
				return
			}
			defer resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	return statuses
}

// take counts the next n statuses.
func take(t *testing.T, statuses <-chan int, n int) map[int]int {
	t.Helper()
	met := map[int]int{}
	deadline := time.After(20 * time.Second)
	for range n {
		select {
		case s := <-statuses:
			met[s]++
		case <-deadline:
			t.Fatalf("waiting for %d answers: %v", n, met)
		}
	}
	return met
}

func TestLiveCircuitBreakerRefusesWhatIsTooMuch(t *testing.T) {
	for _, c := range []struct {
		name, breaker string
		held          int
	}{
		{"one connection and one request waiting for it", "maxConnections: 1, httpMaxPendingRequests: 1", 2},
		{"requests at a time", "httpMaxRequests: 3", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			handler, release := held(t)
			in := serve(t, "a", handler)
			p := startSidecar(t, reviews+version("a", "v1", in)+policy("destination: {name: reviews}, circuitBreaker: {simpleCb: {"+c.breaker+"}}"))
			// A request waits as long as its connection is being made, so the first one goes ahead of the others.
			first := p.flood(t, 1)
			eventually(t, "the first request to arrive", func() bool { return in.hits.Load() == 1 })
			const n = 10
			others := p.flood(t, n)
			refused := n + 1 - c.held
			if met := take(t, others, refused); met[503] != refused {
				t.Errorf("while %d are held: %v", c.held, met)
			}
			release()
			if met := take(t, others, n-refused); met[200] != n-refused {
				t.Errorf("of those held: %v", met)
			}
			if met := take(t, first, 1); met[200] != 1 {
				t.Errorf("the first: %v", met)
			}
		})
	}
	t.Run("connections alone make requests wait", func(t *testing.T) {
		t.Parallel()
		in := serve(t, "a", func(http.ResponseWriter, *http.Request) bool {
			time.Sleep(time.Millisecond) //nolint:forbidigo // the application takes its time
			return false
		})
		p := startSidecar(t, reviews+version("a", "v1", in)+policy("destination: {name: reviews}, circuitBreaker: {simpleCb: {maxConnections: 1}}"))
		if met := take(t, p.flood(t, 50), 50); met[200] != 50 {
			t.Errorf("over one connection: %v", met)
		}
	})
}

func TestLivePoliciesActOnTheirCallers(t *testing.T) {
	const breaker = "circuitBreaker: {simpleCb: {httpMaxRequestsPerConnection: 1}}"
	const n = 5
	for _, c := range []struct {
		name, spec  string
		role        model.ProxyType
		connections int
	}{
		{"nobody said so", "destination: {name: reviews}, loadBalancing: {name: RANDOM}", model.Sidecar, 1},
		{"every caller", "destination: {name: reviews}, " + breaker, model.Sidecar, n},
		{"this caller", "destination: {name: reviews}, source: {labels: {app: caller}}, " + breaker, model.Sidecar, n},
		{"another caller", "destination: {name: reviews}, source: {labels: {app: other}}, " + breaker, model.Sidecar, 1},
		{"the gateway", "destination: {name: reviews}, " + breaker, model.Ingress, n},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			peers := map[string]bool{}
			in := serve(t, "a", func(_ http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				peers[r.RemoteAddr] = true
				return false
			})
			mesh := meshOf(t, reviews+version("a", "v1", in)+caller+policy(c.spec)+`
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: gate, annotations: {kubernetes.io/ingress.class: istio}}
spec: {defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
`)
			p := start(t, mesh, model.Proxy{Type: c.role, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})
			listener := http9080
			if c.role == model.Ingress {
				listener = "0.0.0.0_8080"
			}
			// Each of Envoy's threads has connections of its own; one client connection stays with one thread.
			for range n {
				if name, _ := p.who(t, listener, get, "reviews", "/"); name != "a" {
					t.Fatalf("answered by %s", name)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if len(peers) != c.connections {
				t.Errorf("%d requests over %d connections, want %d", n, len(peers), c.connections)
			}
		})
	}
}

func TestLiveAnInstanceThatFailsIsLeftOutForAWhile(t *testing.T) {
	const (
		window = 700 * time.Millisecond
		// allThreads is when all of Envoy's threads know of an ejection.
		allThreads = 100 * time.Millisecond
	)
	var broken atomic.Bool
	broken.Store(true)
	good := serve(t, "good", nil)
	bad := serve(t, "bad", func(w http.ResponseWriter, _ *http.Request) bool {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return broken.Load()
	})
	p := startSidecar(t, reviews+version("good", "v1", good)+version("bad", "v1", bad)+
		policy("destination: {name: reviews}, circuitBreaker: {simpleCb: {httpConsecutiveErrors: 3, sleepWindow: 700ms}}"))
	for failed := 0; failed < 3; {
		if name, _ := p.who(t, http9080, get, "reviews", "/"); name == "500" {
			failed++
		}
	}
	out := time.Now()
	for range 40 {
		asked := time.Since(out)
		if name, _ := p.who(t, http9080, get, "reviews", "/"); name != "good" && asked > allThreads && time.Since(out) < window {
			t.Fatalf("%s answered %v after the third failure", name, time.Since(out))
		}
	}
	broken.Store(false)
	for {
		name, _ := p.who(t, http9080, get, "reviews", "/")
		if name == "bad" {
			break
		}
		if time.Since(out) > 20*time.Second {
			t.Fatal("the instance has not come back")
		}
	}
	// It returns at the first look after its window; looks are as frequent as the window is long.
	if back := time.Since(out); back < window-50*time.Millisecond || back > 4*window {
		t.Errorf("the instance was out for %v", back)
	}
}

func TestLiveBalancing(t *testing.T) {
	t.Run("the one with fewer requests under way is preferred", func(t *testing.T) {
		t.Parallel()
		reached := map[string]int64{}
		for _, scheme := range []string{"ROUND_ROBIN", "LEAST_CONN"} {
			handler, release := held(t)
			busy, idle := serve(t, "busy", handler), serve(t, "idle", nil)
			p := startSidecar(t, reviews+version("busy", "v1", busy)+version("idle", "v1", idle)+policy("destination: {name: reviews}, loadBalancing: {name: "+scheme+"}"))
			const n = 100
			done := make(chan bool, n)
			for range n {
				before := busy.hits.Load() + idle.hits.Load()
				statuses := p.flood(t, 1)
				go func() { done <- <-statuses == 200 }()
				eventually(t, "the request to arrive", func() bool { return busy.hits.Load()+idle.hits.Load() > before })
			}
			reached[scheme] = busy.hits.Load()
			release()
			for range n {
				if !<-done {
					t.Error("a request was lost")
				}
			}
		}
		if reached["ROUND_ROBIN"] < 45 || reached["LEAST_CONN"] > 40 {
			t.Errorf("of 100 requests the busy one of two instances got %v", reached)
		}
	})
	t.Run("at random", func(t *testing.T) {
		t.Parallel()
		a, b := serve(t, "a", nil), serve(t, "b", nil)
		p := startSidecar(t, reviews+version("a", "v1", a)+version("b", "v1", b)+policy("destination: {name: reviews}, loadBalancing: {name: RANDOM}"))
		const n = 1000
		same, last := 0, ""
		for range n {
			name, _ := p.who(t, http9080, get, "reviews", "/")
			if name == last {
				same++
			}
			last = name
		}
		// Five standard deviations of a binomial with 1,000 draws of one half are 79. In turn the same would never come twice.
		if hits := a.hits.Load(); hits < 500-79 || hits > 500+79 || same < 500-79 || same > 500+79 {
			t.Errorf("of %d requests %d to one of two, %d to the same as the one before", n, hits, same)
		}
	})
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waiting for %s", what)
		}
	}
}

func TestLiveAPolicyForAVersionNeedsNoRule(t *testing.T) {
	t.Run("it bounds that version alone", func(t *testing.T) {
		t.Parallel()
		handler, release := held(t)
		v1, a, b := serve(t, "v1", handler), serve(t, "a", nil), serve(t, "b", nil)
		p := startSidecar(t, reviews+version("v1", "v1", v1)+version("a", "v2", a)+version("b", "v2", b)+
			policy("destination: {name: reviews, labels: {version: v1}}, circuitBreaker: {simpleCb: {maxConnections: 1, httpMaxPendingRequests: 1}}"))
		var first <-chan int
		for sent := int64(1); v1.hits.Load() == 0; sent++ {
			first = p.flood(t, 1)
			eventually(t, "a request to arrive", func() bool { return v1.hits.Load()+a.hits.Load()+b.hits.Load() == sent })
		}
		before := a.hits.Load() + b.hits.Load()
		const n = 120
		statuses := p.flood(t, n)
		met := take(t, statuses, n-1)
		others := a.hits.Load() + b.hits.Load() - before
		if v1.hits.Load() != 1 || met[503] == 0 || met[200] != int(others) || met[200]+met[503] != n-1 {
			t.Errorf("of %d requests %d reached v1 and %d the others, %v", n, v1.hits.Load(), others, met)
		}
		release()
		if met := take(t, statuses, 1); met[200] != 1 {
			t.Errorf("of the one that waited: %v", met)
		}
		if met := take(t, first, 1); met[200] != 1 {
			t.Errorf("of the one that was held: %v", met)
		}
	})
	t.Run("every instance gets as much as before", func(t *testing.T) {
		t.Parallel()
		v1, a, b := serve(t, "v1", nil), serve(t, "a", nil), serve(t, "b", nil)
		p := startSidecar(t, reviews+version("v1", "v1", v1)+version("a", "v2", a)+version("b", "v2", b)+
			policy("destination: {name: reviews, labels: {version: v1}}, loadBalancing: {name: LEAST_CONN}"))
		const n = 900
		for range n {
			if name, _ := p.who(t, http9080, get, "reviews", "/"); name == "503" {
				t.Fatal("a request was lost")
			}
		}
		// Five standard deviations of a binomial with 900 draws of one third are 71.
		if hits := v1.hits.Load(); hits < 300-71 || hits > 300+71 {
			t.Errorf("one of three instances got %d of %d requests", hits, n)
		}
	})
	t.Run("its only instance may be gone", func(t *testing.T) {
		t.Parallel()
		gone, a := &instance{port: freeport.For(t)}, serve(t, "a", nil)
		p := startSidecar(t, reviews+version("v1", "v1", gone)+version("a", "v2", a)+
			policy("destination: {name: reviews, labels: {version: v1}}, loadBalancing: {name: LEAST_CONN}"))
		for range 40 {
			if name, _ := p.who(t, http9080, http.MethodPost, "reviews", "/"); name != "a" {
				t.Fatalf("answered by %s", name)
			}
		}
	})
	t.Run("its only instance may be left out", func(t *testing.T) {
		t.Parallel()
		bad, a := serve(t, "v1", func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}), serve(t, "a", nil)
		p := startSidecar(t, reviews+version("v1", "v1", bad)+version("a", "v2", a)+
			policy("destination: {name: reviews, labels: {version: v1}}, circuitBreaker: {simpleCb: {httpConsecutiveErrors: 1, sleepWindow: 60s}}"))
		met := map[string]int{}
		for range 60 {
			name, _ := p.who(t, http9080, get, "reviews", "/")
			met[name]++
		}
		// All of Envoy's threads know of it a moment later.
		if met["502"] < 1 || met["502"] > 5 || met["a"]+met["502"] != 60 {
			t.Errorf("after one failure too many: %v", met)
		}
	})
}
