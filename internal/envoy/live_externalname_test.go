package envoy_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestLiveExternalNames(t *testing.T) {
	there, v1 := outside(t, nil, nil), serve(t, "v1", nil)
	name := func(service, to string, port int) string {
		return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {type: ExternalName, externalName: %s, ports: [{name: http, port: %d}]}
`, service, to, port)
	}
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+
		name("shop", "LOCALHOST.", there)+name("by-way", "shop.default.svc.cluster.local", there)+name("alias", "reviews.default.svc.cluster.local", 9080)+
		name("alias-of-alias", "alias.default.svc.cluster.local", 9080)+name("round", "about.default.svc.cluster.local", 9080)+name("about", "round.default.svc.cluster.local", 9080)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: fault}
spec: {destination: {name: shop}, match: {request: {headers: {uri: {prefix: /fault}}}}, httpFault: {abort: {httpStatus: 418}}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: keep-name}
spec: {destination: {name: shop}, match: {request: {headers: {uri: {prefix: /other}}}}, rewrite: {authority: other.example}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: to-a-name}
spec: {destination: {name: reviews}, match: {request: {headers: {x-to: {exact: shop}}}}, route: [{destination: {name: shop}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: few}
spec: {destination: {name: shop}, circuitBreaker: {simpleCb: {maxConnections: 7}}}
`)
	outward := fmt.Sprintf("0.0.0.0_%d", there)
	for _, c := range []struct {
		name, listener, host, path string
		headers                    []string
		status                     int
		body                       string
	}{
		{"a host outside, which is called by its own name", outward, "shop", "/", nil, 200, `HTTP/1.1 "" localhost`},
		{"a name of that name", outward, "by-way.default", "/", nil, 200, `HTTP/1.1 "" localhost`},
		{"a host outside in place of a service", http9080, "reviews", "/", []string{"X-To", "shop"}, 200, `HTTP/1.1 "" localhost`},
		{"the service itself", http9080, "reviews", "/", nil, 200, `"Host":"reviews"`},
		{"a rule's fault", outward, "shop", "/fault", nil, 418, ""},
		{"a rule's own authority", outward, "shop", "/other", nil, 200, `HTTP/1.1 "" other.example`},
		{"a service of the mesh", http9080, "alias", "/", nil, 200, `"Instance":"v1"`},
		{"a service of the mesh, which hears the name that was called", http9080, "alias", "/", nil, 200, `"Host":"alias"`},
		{"a name of a name of it", http9080, "alias-of-alias", "/", nil, 200, `"Instance":"v1"`},
		{"a name that leads in a circle", http9080, "round", "/", nil, 503, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body, _ := p.ask(t, c.listener, get, c.host, c.path, c.headers...); status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.body)
			}
		})
	}
	if _, text, err := p.Admin(t.Context(), "/clusters"); err != nil || !strings.Contains(text, fmt.Sprintf("outbound|%d||shop.default.svc.cluster.local::default_priority::max_connections::7", there)) {
		t.Errorf("the policy is not in force: %v\n%s", err, text)
	}
}
