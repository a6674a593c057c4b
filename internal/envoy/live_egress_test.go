package envoy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

// outside is a server outside of the mesh, with TLS when cert is not nil. It says which protocol it was spoken to, by which name in TLS and which in HTTP.
func outside(t *testing.T, cert *tls.Certificate, special func(http.ResponseWriter, *http.Request) bool) int {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if special != nil && special(w, r) {
			return
		}
		name := ""
		if r.TLS != nil {
			name = r.TLS.ServerName
		}
		host, _, _ := strings.Cut(r.Host, ":")
		fmt.Fprintf(w, "%s %q %s", r.Proto, name, host)
	}))
	// Handshakes are meant to fail.
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.Protocols = &http.Protocols{}
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetHTTP2(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	if cert == nil {
		srv.Start()
	} else {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		srv.StartTLS()
	}
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().(*net.TCPAddr).Port
}

// egress is the manifest of an EgressRule.
func egress(name, host string, ports ...string) string {
	return fmt.Sprintf(`
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: %s}
spec: {destination: {service: %q}, ports: [%s]}
`, name, host, strings.Join(ports, ", "))
}

func port(number int, protocol string) string {
	return fmt.Sprintf("{port: %d, protocol: %s}", number, protocol)
}

func TestLiveHostsOutsideOfTheMesh(t *testing.T) {
	known, unknown := envoyproc.NewAuthority(t), envoyproc.NewAuthority(t)
	right, wrong, foreign := known.Certificate(t, "localhost"), known.Certificate(t, "elsewhere.example"), unknown.Certificate(t, "localhost")
	plain, secure, impostor, stranger := outside(t, nil, nil), outside(t, &right, nil), outside(t, &wrong, nil), outside(t, &foreign, nil)
	h2, grpc, failing := outside(t, nil, nil), outside(t, nil, nil), outside(t, nil, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	mesh := meshOf(t, caller+egress("out", "localhost", port(plain, "http"), port(secure, "https"), port(impostor, "https"), port(stranger, "https"),
		port(h2, "http2"), port(grpc, "grpc"))+egress("by-address", "127.0.0.1", port(failing, "http"))+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: fault}
spec:
  destination: {service: localhost}
  match: {request: {headers: {uri: {prefix: /fault}}}}
  httpFault: {abort: {httpStatus: 418}}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: timeout}
spec:
  destination: {service: 127.0.0.1}
  match: {request: {headers: {uri: {prefix: /hang}}}}
  httpReqTimeout: {simpleTimeout: {timeout: 200ms}}
---
apiVersion: config.istio.io/v1alpha2
kind: DestinationPolicy
metadata: {name: eject}
spec:
  destination: {service: 127.0.0.1}
  circuitBreaker: {simpleCb: {httpConsecutiveErrors: 2, sleepWindow: 60s}}
`)
	mesh.Roots = known.Roots
	p := start(t, mesh, model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})
	listener := func(port int) string { return fmt.Sprintf("0.0.0.0_%d", port) }
	for _, c := range []struct {
		name       string
		port       int
		host, path string
		status     int
		body       string
	}{
		{"http", plain, "localhost", "/", 200, `HTTP/1.1 "" localhost`},
		{"http with its port", plain, fmt.Sprintf("localhost:%d", plain), "/", 200, `HTTP/1.1 "" localhost`},
		{"https", secure, "localhost", "/", 200, `HTTP/1.1 "localhost" localhost`},
		{"https to a server of another name", impostor, "localhost", "/", 503, ""},
		{"https to a server that nobody vouches for", stranger, "localhost", "/", 503, ""},
		{"http2", h2, "localhost", "/", 200, `HTTP/2.0 "" localhost`},
		{"grpc", grpc, "localhost", "/", 200, `HTTP/2.0 "" localhost`},
		{"a rule's fault", plain, "localhost", "/fault", 418, ""},
		{"a host that no rule is about", plain, "elsewhere.example", "/", 404, "no service or rule in the mesh for host elsewhere.example"},
		{"what to do about it", plain, "elsewhere.example", "/", 404, "EgressRule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, _ := p.ask(t, listener(c.port), get, c.host, c.path)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("got %d %s, want %d %s", status, body, c.status, c.body)
			}
		})
	}
	for stat, number := range map[string]int{"fail_verify_san": impostor, "fail_verify_error": stranger} {
		if _, stats, err := p.Admin(t.Context(), "/stats?filter=ssl."+stat); err != nil || strings.Contains(stats, fmt.Sprintf("cluster.external|%d|localhost.ssl.%s: 0", number, stat)) {
			t.Errorf("no %s: %s %v", stat, stats, err)
		}
	}
	t.Run("TLS by the application itself, to the host by its name", func(t *testing.T) {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.ports[listener(secure)]), &tls.Config{ServerName: "localhost", RootCAs: known.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if _, stats, err := p.Admin(t.Context(), "/stats?filter=external-tls"); err != nil || !strings.Contains(stats, fmt.Sprintf("cluster.external-tls|%d|localhost.upstream_cx_total: 1", secure)) {
			t.Errorf("not by the host's own cluster: %s %v", stats, err)
		}
	})
	t.Run("a rule's timeout and a policy's ejection", func(t *testing.T) {
		began := time.Now()
		if status, _, _ := p.ask(t, listener(failing), get, "127.0.0.1", "/hang"); status != 504 || time.Since(began) > 10*time.Second {
			t.Errorf("got %d after %v", status, time.Since(began))
		}
		eventually(t, "the host to be left out", func() bool {
			status, body, _ := p.ask(t, listener(failing), get, "127.0.0.1", "/")
			return status == 503 && strings.Contains(body, "no healthy upstream")
		})
	})
}
