package envoyproc_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

const egressMesh = `
apiVersion: v1
kind: Pod
metadata: {name: client}
status: {podIP: 10.77.0.1, podIPs: [{ip: 10.77.0.1}, {ip: "fd77::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
status: {podIP: 10.77.0.2, podIPs: [{ip: 10.77.0.2}, {ip: "fd77::2"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.77.0.100, ports: [{name: http, port: 3306, targetPort: 8080}, {name: http-2, port: 443, targetPort: 8080}], selector: {app: server}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: http-2, port: 8080}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: v1
kind: Service
metadata: {name: nodes}
spec: {clusterIP: None, ports: [{name: tcp, port: 6000}], selector: {app: server}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nodes, labels: {kubernetes.io/service-name: nodes}}
addressType: IPv4
ports: [{name: tcp, port: 6000}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: databases}
spec: {destination: {service: 10.77.0.0/24}, ports: [{port: 3306, protocol: tcp}, {port: 3307, protocol: TCP}]}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: databases-6}
spec: {destination: {service: "fd77::/64"}, ports: [{port: 3306, protocol: tcp}]}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: one}
spec: {destination: {service: 10.77.0.2}, ports: [{port: 5000, protocol: tcp}]}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: elsewhere}
spec: {destination: {service: 192.0.2.0/24}, ports: [{port: 7777, protocol: tcp}]}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: shop}
spec: {destination: {service: "*.example.com"}, ports: [{port: 443, protocol: https}, {port: 8443, protocol: tls}]}
`

// TestCapturedConnectionsToHostsOutside connects to servers that the mesh knows by their address, by a subnet, or by the name in TLS; by the mesh's choice
// all others are refused or passed.
func TestCapturedConnectionsToHostsOutside(t *testing.T) {
	for _, closed := range []bool{true, false} {
		name := "a mesh that refuses what it does not know"
		if !closed {
			name = "a mesh that lets pass what it does not know"
		}
		t.Run(name, func(t *testing.T) { connectOutside(t, closed) })
	}
}

func connectOutside(t *testing.T, closed bool) {
	client, server := cabled(t)
	objs, fs := manifest.Decode("mesh.yaml", []byte(egressMesh), manifest.Options{DefaultNamespace: "default"})
	if finding.HasErrors(fs) {
		t.Fatal(fs)
	}
	mesh, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{Closed: closed, AccessLog: "/dev/stdout"})
	if len(fs) > 0 {
		t.Fatal(fs)
	}
	for _, address := range []string{":3306", ":3307", ":5000", ":6000", ":7777"} {
		server.serveGreeting(address, "server"+address)
	}
	server.serveHTTP(":8080", "app")
	authority := envoyproc.NewAuthority(t)
	for _, address := range []string{":443", ":8443"} {
		server.serveHTTPS(address, "secure"+address, authority.Certificate(t, "www.example.com"))
	}
	from := client.proxy(mesh, "client")
	server.proxy(mesh, "server")

	for _, c := range []struct {
		name, address string
		// unknown is what nothing in the mesh is for.
		unknown bool
		cluster string
	}{
		{name: "an address of a subnet", address: "10.77.0.2:3306", cluster: "external|3306|10.77.0.0/24"},
		{name: "another port of the subnet", address: "10.77.0.2:3307", cluster: "external|3307|10.77.0.0/24"},
		{name: "an address of an IPv6 subnet", address: "[fd77::2]:3306", cluster: "external|3306|fd77__64"},
		{name: "the address of a rule", address: "10.77.0.2:5000", cluster: "external|5000|10.77.0.2"},
		{name: "an instance of a headless service", address: "10.77.0.2:6000", cluster: "PassthroughCluster"},
		{name: "a port of the subnet in the other family alone", address: "[fd77::2]:3307", unknown: true},
		{name: "a port that a rule for other addresses has", address: "10.77.0.2:7777", unknown: true},
		{name: "a port that nothing has", address: "[fd77::2]:5000", unknown: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := client.greeting(c.address)
			if refused := err != nil && !errors.Is(err, os.ErrDeadlineExceeded); refused != (closed && c.unknown) {
				t.Fatalf("got %q, %v", got, err)
			}
			if c.unknown && closed {
				const why = "no service or rule in the mesh is for it; a host outside of the mesh needs an EgressRule"
				said(t, from, "refused a connection to "+c.address+", TLS name -: "+why)
				return
			}
			if c.unknown {
				c.cluster = "PassthroughCluster"
			}
			if !strings.HasPrefix(got, "server") || counter(t, from, "cluster."+c.cluster+".upstream_cx_total") == "0" {
				t.Errorf("got %q, and not by %s", got, c.cluster)
			}
		})
	}
	for _, c := range []struct {
		name, address, server string
		unknown               bool
		cluster               string
	}{
		{"a name that a rule lets through", "10.77.0.2:443", "www.example.com", false, "external-tls|443|*.example.com"},
		{"a name on a port of tls alone", "10.77.0.2:8443", "a.b.example.com", false, "external-tls|8443|*.example.com"},
		{"a name over IPv6", "[fd77::2]:443", "www.example.com", false, "external-tls|443|*.example.com"},
		{"another name", "10.77.0.2:443", "www.example.org", true, ""},
		{"another name on a port of tls alone", "10.77.0.2:8443", "example.com", true, ""},
	} {
		t.Run("TLS: "+c.name, func(t *testing.T) {
			conn, err := client.dial(t.Context(), "tcp", c.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			secure := tls.Client(conn, &tls.Config{ServerName: c.server, InsecureSkipVerify: true})
			err = secure.Handshake()
			if refused := err != nil && !errors.Is(err, os.ErrDeadlineExceeded); refused != (closed && c.unknown) {
				t.Fatalf("got %v", err)
			}
			if c.unknown && closed {
				said(t, from, "refused a connection to "+c.address+", TLS name "+c.server)
			} else if !c.unknown && counter(t, from, "cluster."+c.cluster+".upstream_cx_total") == "0" {
				t.Errorf("not by %s", c.cluster)
			}
		})
	}
	for _, c := range []struct {
		name, url, host string
		status          int
		said            string
		// open is the status where what is unknown passes.
		open int
	}{
		{"a service whose address is in the subnet", "http://10.77.0.100:3306/", "web", 200, `"name":"app"`, 200},
		{"a host that no rule is for", "http://10.77.0.2:443/", "nobody.example:443", 404, "no service or rule in the mesh for host nobody.example on port 443", 404},
		{"an address that no rule is for", "http://10.77.0.2:8080/", "", 0, "", 200},
	} {
		t.Run("HTTP: "+c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			want := c.status
			if !closed {
				want = c.open
			}
			resp, err := client.client().Do(req)
			if err != nil {
				if want != 0 {
					t.Error(err)
				}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != want || !strings.Contains(string(body), c.said) {
				t.Errorf("got %d %s, %v, want %d %s", resp.StatusCode, body, err, want, c.said)
			}
		})
	}
}

// said waits until the proxy has logged text.
func said(t *testing.T, p *envoyproc.Proc, text string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.Log(), text) {
		select {
		case <-deadline:
			t.Fatalf("the proxy has not said %q", text)
		case <-tick.C:
		}
	}
}
