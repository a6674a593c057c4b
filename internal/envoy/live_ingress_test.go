package envoy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

const (
	plainDoor  = "0.0.0.0_8080"
	secureDoor = "0.0.0.0_8443"
)

// gatewayPod is the pod of the gateway under test, and the service that has it.
const gatewayPod = `
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: istio-system, labels: {istio: ingress}}
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingress, namespace: istio-system}
spec: {clusterIP: 10.96.0.99, ports: [{name: http, port: 80, targetPort: 8080}], selector: {istio: ingress}}
`

func startGateway(t *testing.T, text string) *proxy {
	t.Helper()
	return start(t, meshOf(t, text+gatewayPod), model.Proxy{Type: model.Ingress, Workload: model.WorkloadKey{Namespace: "istio-system", Name: "gateway"}})
}

// keyPair is the manifest of a Secret with a certificate.
func keyPair(t *testing.T, name string, pair tls.Certificate) string {
	t.Helper()
	var chain []byte
	for _, der := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Secret
metadata: {name: %s}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
`, name, base64.StdEncoding.EncodeToString(chain), base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
}

// shake makes a TLS connection with what config says.
func (p *proxy) shake(t *testing.T, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", p.ports[secureDoor]))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn), nil
}

// overTLS asks over a connection of its own for the server name sni, as HTTP/2 or 1.1, and says who answered, or the status.
func (p *proxy) overTLS(t *testing.T, roots *x509.CertPool, http2 bool, sni, host, path string, headers ...string) (string, echo, *http.Response) {
	t.Helper()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: sni},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", p.ports[secureDoor]))
		},
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+sni+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err.Error(), echo{}, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]int{true: 2, false: 1}[http2]; resp.ProtoMajor != want {
		t.Errorf("answered as HTTP/%d, want %d", resp.ProtoMajor, want)
	}
	var e echo
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &e) != nil {
		return fmt.Sprint(resp.StatusCode), e, resp
	}
	return e.Instance, e, resp
}

func TestLiveIngressOverTLS(t *testing.T) {
	ca := envoyproc.NewAuthority(t)
	shop, wild, fallback := ca.Certificate(t, "shop.example"), ca.Certificate(t, "*.wild.example"), ca.Certificate(t, "fallback.example")
	v1, v2, api := serve(t, "v1", nil), serve(t, "v2", nil), serveGRPC(t)
	ws := serve(t, "ws", upgradeToEcho)
	mixed := shop
	mixed.PrivateKey = wild.PrivateKey
	p := startGateway(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+pods("reviews", "http", "v2", "reviews-v2", v2.port, ready)+
		"---"+greeter+pods("greeter", "grpc", "v1", "greeter-1", api.port, ready)+
		keyPair(t, "shop", shop)+keyPair(t, "wild", wild)+keyPair(t, "fallback", fallback)+keyPair(t, "mixed", mixed)+`
---
apiVersion: v1
kind: Service
metadata: {name: ws}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}
`+pods("ws", "http", "v1", "ws-1", ws.port, ready)+`
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: istio
  tls: [{hosts: [shop.example, api.shop.example], secretName: shop}]
  rules:
  - host: shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}, {path: /ws, pathType: Exact, backend: {service: {name: ws, port: {number: 80}}}}]}
  - host: api.shop.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: greeter, port: {number: 7070}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: wild, annotations: {ingress.kubernetes.io/ssl-redirect: "true"}}
spec:
  ingressClassName: istio
  tls: [{hosts: ["*.wild.example"], secretName: wild}]
  rules:
  - host: "*.wild.example"
    http: {paths: [{path: /w, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: broken, annotations: {kubernetes.io/ingress.allow-http: "true"}}
spec:
  ingressClassName: istio
  tls: [{hosts: [mixed.wild.example], secretName: mixed}, {hosts: [missing.example], secretName: missing}]
  rules:
  - host: mixed.wild.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: fallback}
spec:
  ingressClassName: istio
  tls: [{secretName: fallback}]
  rules:
  - http: {paths: [{path: /any, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: clear}
spec:
  ingressClassName: istio
  rules:
  - host: clear.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: default}
spec: {destination: {name: reviews}, route: [{labels: {version: v1}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: through-the-gateway}
spec:
  destination: {name: reviews}
  precedence: 1
  match: {source: {name: istio-ingress, namespace: istio-system, labels: {istio: ingress}}, request: {headers: {x-v: {exact: "2"}, scheme: {exact: https}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: by-labels}
spec:
  destination: {name: reviews}
  precedence: 3
  match: {source: {labels: {istio: ingress}}, request: {headers: {x-v: {exact: labels}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: fault}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {source: {name: istio-ingress}, request: {headers: {x-fault: {exact: "1"}}}}
  httpFault: {abort: {percent: 100, httpStatus: 418}}
`)

	t.Run("each host has its certificate", func(t *testing.T) {
		for sni, want := range map[string]string{
			"shop.example": "shop.example", "a.wild.example": "*.wild.example", "fallback.example": "fallback.example",
			"unknown.example": "fallback.example", "": "fallback.example", "SHOP.example": "shop.example",
		} {
			conn, err := p.shake(t, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
			if err != nil {
				t.Errorf("%q: %v", sni, err)
				continue
			}
			if got := conn.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
				t.Errorf("%q gets the certificate of %s, want %s", sni, got, want)
			}
		}
	})
	t.Run("a host whose Secret is broken or missing is closed, and meets no other's certificate", func(t *testing.T) {
		for _, sni := range []string{"mixed.wild.example", "missing.example"} {
			if conn, err := p.shake(t, &tls.Config{ServerName: sni, InsecureSkipVerify: true}); err == nil {
				t.Errorf("%s gets the certificate of %v", sni, conn.ConnectionState().PeerCertificates[0].DNSNames)
			}
		}
	})
	t.Run("versions and protocols are those of today", func(t *testing.T) {
		for name, c := range map[string]struct {
			config *tls.Config
			ok     bool
			alpn   string
		}{
			"TLS 1.3 with h2":           {&tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}, true, "h2"},
			"TLS 1.2 with http/1.1":     {&tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, true, "http/1.1"},
			"TLS 1.2 without ALPN":      {&tls.Config{MaxVersion: tls.VersionTLS12}, true, ""},
			"TLS 1.1":                   {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, ""},
			"TLS 1.2 with a CBC cipher": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false, ""},
			"TLS 1.2 with a GCM cipher": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, true, ""},
		} {
			c.config.ServerName, c.config.RootCAs = "shop.example", ca.Pool()
			conn, err := p.shake(t, c.config)
			if (err == nil) != c.ok {
				t.Errorf("%s: %v", name, err)
			} else if err == nil && conn.ConnectionState().NegotiatedProtocol != c.alpn {
				t.Errorf("%s: speaks %q, want %q", name, conn.ConnectionState().NegotiatedProtocol, c.alpn)
			}
		}
	})
	for _, http2 := range []bool{false, true} {
		for _, c := range []struct {
			name, sni, host, path string
			headers               []string
			want                  string
		}{
			{"a host", "shop.example", "shop.example", "/", nil, "v1"},
			{"a host with a port", "shop.example", "shop.example:8443", "/", nil, "v1"},
			{"a rule for calls through the gateway over https", "shop.example", "shop.example", "/", []string{"X-V", "2"}, "v2"},
			{"a rule for callers with the gateway's labels", "shop.example", "shop.example", "/", []string{"X-V", "labels"}, "v2"},
			{"a fault for calls through the gateway", "shop.example", "shop.example", "/", []string{"X-Fault", "1"}, "418"},
			{"a host of the same certificate over one connection", "shop.example", "api.shop.example", "/", nil, "415"},
			{"a host of another certificate", "shop.example", "a.wild.example", "/w", nil, "421"},
			{"a host that is not served at all", "shop.example", "nobody.example", "/", nil, "421"},
			{"a host that is served in the clear", "shop.example", "clear.example", "/", nil, "421"},
			{"a host under the wildcard", "a.wild.example", "a.wild.example", "/w", nil, "v1"},
			{"another host under the wildcard, over one connection", "a.wild.example", "b.wild.example", "/w", nil, "v1"},
			{"a path that the wildcard's Ingress does not have", "a.wild.example", "a.wild.example", "/x", nil, "404"},
			{"a host under the wildcard that has an entry of its own", "a.wild.example", "mixed.wild.example", "/w", nil, "421"},
			{"any host over the certificate for all others", "fallback.example", "some.example", "/any", nil, "v1"},
			{"any host, another path", "fallback.example", "some.example", "/", nil, "404"},
			{"a host of another certificate over the one for all others", "fallback.example", "shop.example", "/", nil, "421"},
		} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", c.name, http2), func(t *testing.T) {
				if got, _, _ := p.overTLS(t, ca.Pool(), http2, c.sni, c.host, c.path, c.headers...); got != c.want {
					t.Errorf("met %s, want %s", got, c.want)
				}
			})
		}
	}
	t.Run("in the clear", func(t *testing.T) {
		for _, c := range []struct{ name, host, path, want, location string }{
			{"a host with TLS is not served", "shop.example", "/", "404", ""},
			{"a host with TLS that asks for a redirect", "a.wild.example", "/w/x?y=z", "308", "https://a.wild.example/w/x?y=z"},
			{"a path that it does not have is not redirected", "a.wild.example", "/x", "404", ""},
			{"a host with TLS that asks for HTTP, too", "mixed.wild.example", "/", "v1", ""},
			{"any host of an Ingress with TLS", "some.example", "/any", "404", ""},
			{"a host without TLS", "clear.example", "/", "v1", ""},
		} {
			status, body, header := p.ask(t, plainDoor, get, c.host, c.path)
			got := fmt.Sprint(status)
			var e echo
			if status == http.StatusOK && json.Unmarshal([]byte(body), &e) == nil {
				got = e.Instance
			}
			if got != c.want || header.Get("Location") != c.location {
				t.Errorf("%s: met %s, location %q", c.name, got, header.Get("Location"))
			}
		}
	})
	t.Run("what arrives says how it came", func(t *testing.T) {
		_, e, _ := p.overTLS(t, ca.Pool(), true, "shop.example", "shop.example", "/a/../b//c?d", "X-Forwarded-Proto", "http", "X-Forwarded-For", "192.0.2.1", "X-Istio-Attributes", "x")
		if e.Header.Get("X-Forwarded-Proto") != "https" || !strings.HasPrefix(e.Header.Get("X-Forwarded-For"), "192.0.2.1,") || e.Header.Get("X-Istio-Attributes") != "" || e.Path != "/b//c?d" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", p.ports[secureDoor]), grpc.WithAuthority("api.shop.example"),
			grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("websockets", func(t *testing.T) {
		conn, err := p.shake(t, &tls.Config{ServerName: "shop.example", RootCAs: ca.Pool()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %v, %v", resp, err)
		}
		defer resp.Body.Close()
		talk(t, conn, r, "frame\n")
	})
	t.Run("a client in the clear gets nothing over the port for TLS", func(t *testing.T) {
		conn := dial(t, p.ports[secureDoor])
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(conn); len(body) > 0 && strings.Contains(string(body), "HTTP/1.1") || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %q, %v", body, err)
		}
	})
}

// Keys are told to gateways alone, and to such as have proved to be one; nothing prints them.
func TestKeysAreForGatewaysAlone(t *testing.T) {
	pair := envoyproc.NewAuthority(t).Certificate(t, "shop.example")
	text := reviews + keyPair(t, "shop", pair) + keyPair(t, "unused", pair) + gatewayPod + caller + `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec: {ingressClassName: istio, tls: [{hosts: [shop.example], secretName: shop}], defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other}
spec: {ingressClassName: other, tls: [{hosts: [other.example], secretName: unused}], defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
`
	mesh := meshOf(t, text)
	gateway := model.Proxy{Type: model.Ingress, Workload: model.WorkloadKey{Namespace: "istio-system", Name: "gateway"}}
	unproven := gateway
	unproven.Unproven = true
	for name, c := range map[string]struct {
		proxy model.Proxy
		want  string
	}{
		"a gateway":                      {gateway, "kubernetes://default/shop"},
		"one that is taken at its word":  {unproven, ""},
		"a sidecar":                      {model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}}, ""},
		"a sidecar in the gateway's pod": {model.Proxy{Type: model.Sidecar, Workload: gateway.Workload}, ""},
		"an egress gateway in its place": {model.Proxy{Type: model.Egress, Workload: gateway.Workload}, ""},
	} {
		r := envoy.Build(mesh, c.proxy)
		var names []string
		for _, s := range r.Secrets {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s is told %q, want %q", name, got, c.want)
		}
		if err := envoy.Consistent(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	cert := mesh.IngressTLS[0].Certificate
	text, err := func() (string, error) { b, err := json.Marshal(mesh); return string(b), err }()
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Split(string([]byte(cert.Key)), "\n")[1]
	for _, printed := range []string{text, fmt.Sprint(*cert), fmt.Sprintf("%v %+v %#v %s %x %q", *cert, *cert, *cert, cert.Key, cert.Key, cert.Key)} {
		if strings.Contains(printed, key) || strings.Contains(printed, base64.StdEncoding.EncodeToString(cert.Key)) || !strings.Contains(printed, "[redacted]") {
			t.Error("the key is printed")
		}
	}
}

// upgradeToEcho sends back what comes over a websocket's connection.
func upgradeToEcho(w http.ResponseWriter, r *http.Request) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	defer conn.Close()
	_, _ = io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
	return true
}
