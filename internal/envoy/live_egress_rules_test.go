package envoy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

func TestLiveRulesForHostsOutsideOfTheMesh(t *testing.T) {
	var asked atomic.Int64
	there := outside(t, nil, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/flaky" && asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	v1 := serve(t, "v1", nil)
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+egress("out", "localhost", port(there, "http"))+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: shared}
spec:
  destination: {service: localhost}
  match: {request: {headers: {uri: {prefix: /shared}}}}
  route: [{weight: 50}, {destination: {name: reviews}, weight: 50}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: moved}
spec:
  destination: {service: localhost}
  match: {request: {headers: {uri: {prefix: /moved}}}}
  redirect: {uri: /here, authority: elsewhere.example}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: renamed}
spec:
  destination: {service: localhost}
  match: {request: {headers: {uri: {prefix: /renamed}}}}
  rewrite: {authority: other.example}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: again}
spec:
  destination: {service: localhost}
  match: {request: {headers: {uri: {prefix: /flaky}, x-retry: {exact: "1"}}}}
  httpReqRetries: {simpleRetry: {attempts: 2}}
`)
	listener := fmt.Sprintf("0.0.0.0_%d", there)
	t.Run("weights between the host and a service inside", func(t *testing.T) {
		met := map[bool]int{}
		const n = 400
		for range n {
			status, body, _ := p.ask(t, listener, get, "localhost", "/shared")
			if status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			met[strings.Contains(body, `"Instance":"v1"`)]++
		}
		// Five standard deviations of a binomial with 400 draws of 50 % are 50.
		if met[true] < n/2-50 || met[true] > n/2+50 {
			t.Errorf("of %d requests %d met the service inside", n, met[true])
		}
	})
	t.Run("a redirect", func(t *testing.T) {
		if status, _, header := p.ask(t, listener, get, "localhost", "/moved"); status != 301 || header.Get("Location") != "http://elsewhere.example/here" {
			t.Errorf("got %d to %q", status, header.Get("Location"))
		}
	})
	t.Run("another authority", func(t *testing.T) {
		if status, body, _ := p.ask(t, listener, get, "localhost", "/renamed"); status != 200 || !strings.HasSuffix(body, "other.example") {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("retries", func(t *testing.T) {
		if status, _, _ := p.ask(t, listener, get, "localhost", "/flaky", "X-Retry", "1"); status != 200 || asked.Load() != 2 {
			t.Errorf("got %d after %d tries", status, asked.Load())
		}
	})
}
