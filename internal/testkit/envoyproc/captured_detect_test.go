package envoyproc_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

// undeclaredMesh has services whose ports do not say what they speak, in all the ways that ports meet each other.
const undeclaredMesh = `
apiVersion: v1
kind: Service
metadata: {name: mixed}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd96::1"]
  ports: [{name: one, port: 80, targetPort: 8080}, {name: two, port: 81, targetPort: 9001}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: second}
spec:
  clusterIP: 10.96.0.2
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: nodes}
spec:
  clusterIP: None
  ports: [{name: one, port: 8080}, {name: two, port: 9001}, {name: low, port: 80}]
  selector: {app: server}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
status: {podIP: 10.77.0.1, podIPs: [{ip: 10.77.0.1}, {ip: "fd77::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
status: {podIP: 10.77.0.2, podIPs: [{ip: 10.77.0.2}, {ip: "fd77::2"}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: mixed-4, labels: {kubernetes.io/service-name: mixed}}
addressType: IPv4
ports: [{name: one, port: 8080}, {name: two, port: 9001}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: second, labels: {kubernetes.io/service-name: second}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: https, port: 8443}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nodes, labels: {kubernetes.io/service-name: nodes}}
addressType: IPv4
ports: [{name: one, port: 8080}, {name: two, port: 9001}, {name: low, port: 80}]
endpoints: [{addresses: [10.77.0.2], hostname: server, targetRef: {kind: Pod, name: server}}]
`

// TestCapturedPortsThatDoNotSay calls such services between two pods: each sidecar finds out for itself what is spoken.
func TestCapturedPortsThatDoNotSay(t *testing.T) {
	client, server := cabled(t)
	objs, fs := manifest.Decode("mesh.yaml", []byte(undeclaredMesh), manifest.Options{DefaultNamespace: "default"})
	mesh, more := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	if fs = append(fs, more...); len(fs) > 0 {
		finding.Sort(fs)
		t.Fatal(fs)
	}
	authority := envoyproc.NewAuthority(t)
	server.serveHTTP(":8080", "app")
	server.serveHTTPS(":8443", "secure", authority.Certificate(t, "second"))
	server.serveGreeting(":9001", "raw")
	server.serveGreeting(":80", "node")
	from := client.proxy(mesh, "client")
	to := server.proxy(mesh, "server")

	h2c := &http.Transport{DialContext: client.dial, Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2c.CloseIdleConnections)
	for _, c := range []struct{ name, url, host, want string }{
		{"HTTP to an address", "http://10.96.0.1/", "mixed", `"name":"app"`},
		{"HTTP to an IPv6 address", "http://[fd96::1]/", "whatever.example", `"host":"whatever.example"`},
		{"HTTP to a port that another service says is HTTP", "http://10.96.0.2/", "second", `"name":"app"`},
		{"HTTP to an instance of a headless service by the service's name", "http://10.77.0.2:8080/", "nodes", `"name":"app"`},
		{"HTTP to an instance of a headless service by its own name", "http://10.77.0.2:8080/", "server.nodes", `"host":"server.nodes"`},
		{"HTTP to an instance by its address", "http://10.77.0.2:8080/", "", `"host":"10.77.0.2:8080"`},
		{"TLS of the application's own", "https://10.96.0.2/", "", `"name":"secure"`},
		{"HTTP/2 without TLS", "http://10.96.0.1/", "h2c", `"host":"h2c"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			http := client.client()
			if req.Host = c.host; c.host == "h2c" {
				http.Transport = h2c
			}
			resp, err := http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), c.want) {
				t.Errorf("got %d %s, %v", resp.StatusCode, body, err)
			}
		})
	}
	for _, c := range []struct{ name, address, want string }{
		{"a server that speaks first", "10.96.0.1:81", "raw to 127.0.0.1"},
		{"an instance of a headless service that speaks first", "10.77.0.2:9001", "raw to 127.0.0.1"},
		{"an instance of a headless service on a port that is HTTP elsewhere", "10.77.0.2:80", "node to 127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := client.greeting(c.address); err != nil || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	t.Run("the application's certificate is what the caller sees", func(t *testing.T) {
		conn, err := client.dial(t.Context(), "tcp", "10.96.0.2:443")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		secure := tls.Client(conn, &tls.Config{ServerName: "second", InsecureSkipVerify: true})
		if err := secure.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := secure.ConnectionState().PeerCertificates[0].VerifyHostname("second"); err != nil {
			t.Error(err)
		}
	})
	t.Run("requests were seen as such by both sidecars", func(t *testing.T) {
		if out, in := counter(t, from, "http.outbound_80.downstream_rq_2xx"), counter(t, to, "http.inbound_8080.downstream_rq_2xx"); out == "0" || in == "0" {
			t.Errorf("%s out and %s in", out, in)
		}
	})
}
