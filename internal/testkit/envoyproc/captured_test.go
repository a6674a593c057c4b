package envoyproc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/meshctl/meshctl/internal/capture"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

const proxyID = 1337

// netPod is a network namespace with captured traffic: all that a pod is to its proxy.
type netPod struct {
	t         *testing.T
	handle    netns.NsHandle
	addresses []string
}

// cabled makes two pods with a cable between them. Each is the other's way to everywhere, so that connections to virtual IPs get as far as
// being captured.
func cabled(t *testing.T) (a, b *netPod) {
	t.Helper()
	envoyproc.Path(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("SKIPPED, nothing was captured: network namespaces need root")
	}
	a = &netPod{t: t, addresses: []string{"10.77.0.1", "fd77::1"}}
	b = &netPod{t: t, addresses: []string{"10.77.0.2", "fd77::2"}}
	onThread(t, func() error {
		var err error
		if a.handle, err = netns.New(); err != nil {
			return err
		}
		if b.handle, err = netns.New(); err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(a.handle)})
	})
	t.Cleanup(func() {
		a.handle.Close()
		b.handle.Close()
	})
	a.plug(b.addresses)
	b.plug(a.addresses)
	return a, b
}

// plug gives the pod its addresses, its way out, and the rules of capture.
func (p *netPod) plug(gateway []string) {
	p.t.Helper()
	p.inside(func() error {
		for _, name := range []string{"lo", "eth0"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			if name == "lo" {
				if err := netlink.AddrAdd(link, mustAddr("::6/128")); err != nil {
					return err
				}
				continue
			}
			for i, length := range []int{24, 64} {
				if err := netlink.AddrAdd(link, mustAddr(fmt.Sprintf("%s/%d", p.addresses[i], length))); err != nil {
					return err
				}
				if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway[i])}); err != nil {
					return err
				}
			}
		}
		config := capture.Config{OutboundPort: 15001, InboundPort: 15006, UID: proxyID, GID: proxyID}
		for program, family := range map[string]capture.Family{"iptables-restore": capture.IPv4(), "ip6tables-restore": capture.IPv6()} {
			cmd := exec.Command(program, "--noflush")
			cmd.Stdin = strings.NewReader(capture.Rules(config, family, ""))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", program, err, out)
			}
		}
		return nil
	})
}

func mustAddr(text string) *netlink.Addr {
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		panic(err)
	}
	// Without this an IPv6 address cannot be used for a second.
	addr.Flags = 0x02 // IFA_F_NODAD
	return addr
}

// onThread runs f on a thread of its own, which is thrown away: f may change its namespace.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// enter runs f in the pod's network and comes back.
func (p *netPod) enter(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	if err := netns.Set(p.handle); err != nil {
		return err
	}
	err = f()
	if back := netns.Set(home); back != nil {
		// The thread stays locked and ends with its goroutine.
		return back
	}
	runtime.UnlockOSThread()
	return err
}

func (p *netPod) inside(f func() error) {
	p.t.Helper()
	if err := p.enter(f); err != nil {
		p.t.Fatal(err)
	}
}

// listen opens a port of the pod on an address.
func (p *netPod) listen(address string) net.Listener {
	p.t.Helper()
	var l net.Listener
	p.inside(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	p.t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from the pod as its application does.
func (p *netPod) dial(_ context.Context, _, address string) (conn net.Conn, err error) {
	err = p.enter(func() error {
		conn, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	})
	return conn, err
}

func (p *netPod) client() *http.Client {
	tr := &http.Transport{DialContext: p.dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// serveHTTP is an application of the pod that says who asked for what.
func (p *netPod) serveHTTP(address, name string) { p.serve(p.listen(address), name) }

// serveHTTPS is the same behind TLS.
func (p *netPod) serveHTTPS(address, name string, cert tls.Certificate) {
	p.serve(tls.NewListener(p.listen(address), &tls.Config{Certificates: []tls.Certificate{cert}}), name)
}

func (p *netPod) serve(l net.Listener, name string) {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"name": name, "peer": r.RemoteAddr, "host": r.Host})
	})}
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(l) }()
	p.t.Cleanup(func() { srv.Close() })
}

// serveGreeting is an application that speaks first, as databases do: its name and who called.
func (p *netPod) serveGreeting(address, name string) {
	l := p.listen(address)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(conn, "%s to %s\n", name, conn.RemoteAddr())
			conn.Close()
		}
	}()
}

// greeting connects and reads what is said.
func (p *netPod) greeting(address string) (string, error) {
	conn, err := p.dial(p.t.Context(), "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// proxy starts the pod's Envoy.
func (p *netPod) proxy(mesh *model.Mesh, name string) *envoyproc.Proc {
	p.t.Helper()
	r := envoy.Build(mesh, model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: name}})
	return envoyproc.Start(p.t, envoyproc.Static(p.t, r, "127.0.0.1", 15000, nil), envoyproc.Options{
		Admin: "127.0.0.1:15000", Client: p.client(), UID: proxyID, GID: proxyID,
		Start: func(cmd *exec.Cmd) error { return p.enter(cmd.Start) },
	})
}

const capturedMesh = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd96::1"]
  ports: [{name: http, port: 80, targetPort: 8080}, {name: mysql, port: 3306}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: raw-on-80}
spec:
  clusterIP: 10.96.0.2
  ports: [{name: tcp, port: 80, targetPort: 3306}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: stopped}
spec:
  clusterIP: 10.96.0.3
  ports: [{name: http, port: 80, targetPort: 8081}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: nodes}
spec:
  clusterIP: None
  ports: [{name: tcp, port: 80}, {name: http, port: 8080}]
  selector: {app: server}
---
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  clusterIP: 10.96.0.4
  ports: [{name: http, port: 80, targetPort: 9090}]
  selector: {app: client}
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
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: mysql, port: 3306}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080}, {name: mysql, port: 3306}]
endpoints: [{addresses: ["fd77::2"], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: raw, labels: {kubernetes.io/service-name: raw-on-80}}
addressType: IPv4
ports: [{name: tcp, port: 3306}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stopped, labels: {kubernetes.io/service-name: stopped}}
addressType: IPv4
ports: [{name: http, port: 8081}]
endpoints: [{addresses: [10.77.0.2], targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nodes, labels: {kubernetes.io/service-name: nodes}}
addressType: IPv4
ports: [{name: tcp, port: 80}, {name: http, port: 8080}]
endpoints: [{addresses: [10.77.0.2], hostname: server, targetRef: {kind: Pod, name: server}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: self, labels: {kubernetes.io/service-name: self}}
addressType: IPv4
ports: [{name: http, port: 9090}]
endpoints: [{addresses: [10.77.0.1], targetRef: {kind: Pod, name: client}}]
`

// TestCaptured runs two pods with real capture rules and a real sidecar each, and calls between them in every way an application can.
func TestCaptured(t *testing.T) {
	client, server := cabled(t)
	objs, fs := manifest.Decode("mesh.yaml", []byte(capturedMesh), manifest.Options{DefaultNamespace: "default"})
	if finding.HasErrors(fs) {
		t.Fatal(fs)
	}
	mesh, _ := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	server.serveHTTP(":8080", "app")
	server.serveGreeting(":3306", "mysql")
	server.serveGreeting(":80", "node")
	server.serveGreeting(":7777", "unlisted")
	client.serveHTTP(":9090", "self")
	from := client.proxy(mesh, "client")
	to := server.proxy(mesh, "server")

	ask := func(t *testing.T, method, url, host string) (int, map[string]string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := client.client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("X-Mesh-Unprocessed"); got != "" {
			t.Errorf("the application sees the sidecars' own header: %s", got)
		}
		var said map[string]string
		_ = json.Unmarshal(body, &said)
		return resp.StatusCode, said, string(body)
	}
	for _, c := range []struct{ name, url, host, app, peer, host2 string }{
		{"a service by its name", "http://10.96.0.1/", "web", "app", "127.0.0.1:", "web"},
		{"a service by its IPv6 address", "http://[fd96::1]/", "web.default", "app", "127.0.0.1:", "web.default"},
		{"a service by its IPv6 address alone", "http://[fd96::1]/", "", "app", "127.0.0.1:", "[fd96::1]"},
		{"a pod by its address", "http://10.77.0.2:8080/", "", "app", "127.0.0.1:", "10.77.0.2:8080"},
		{"a pod by its IPv6 address", "http://[fd77::2]:8080/", "", "app", "127.0.0.1:", "[fd77::2]:8080"},
		{"a headless service by its name", "http://10.77.0.2:8080/", "nodes", "app", "127.0.0.1:", "nodes"},
		{"an instance of a headless service by its own name", "http://10.77.0.2:8080/", "server.nodes", "app", "127.0.0.1:", "server.nodes"},
		{"the pod itself by its service", "http://10.96.0.4/", "self", "self", "127.0.0.1:", "self"},
		{"the pod itself by its address", "http://10.77.0.1:9090/", "", "self", "10.77.0.1:", "10.77.0.1:9090"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, said, body := ask(t, http.MethodGet, c.url, c.host)
			if status != 200 || said["name"] != c.app || said["host"] != c.host2 || !strings.HasPrefix(said["peer"], c.peer) {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
	for _, c := range []struct{ name, address, want string }{
		{"a TCP service whose server speaks first", "10.96.0.1:3306", "mysql to 127.0.0.1"},
		{"a TCP service by its IPv6 address", "[fd96::1]:3306", "mysql to 127.0.0.1"},
		{"a TCP service on a port that is HTTP elsewhere", "10.96.0.2:80", "mysql to 127.0.0.1"},
		{"an instance of a headless TCP service on such a port", "10.77.0.2:80", "node to 127.0.0.1"},
		{"a port that no service has", "10.77.0.2:7777", "unlisted to 127.0.0.6"},
		{"a port that no service has, over IPv6", "[fd77::2]:7777", "unlisted to [::6]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := client.greeting(c.address); err != nil || !strings.HasPrefix(got, c.want) {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	for _, address := range []string{"10.77.0.1:15001", "10.77.0.1:15006", "10.77.0.2:15001", "10.77.0.2:15006", "127.0.0.1:15001", "127.0.0.1:15006"} {
		t.Run("the proxies' own port "+address+" leads nowhere", func(t *testing.T) {
			if got, err := client.greeting(address); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %q, %v", got, err)
			}
			// A proxy that passes such a connection through is its own caller, again and again.
			for _, p := range []*envoyproc.Proc{from, to} {
				if n := counter(t, p, "cluster.PassthroughCluster.upstream_cx_total"); len(n) > 2 {
					t.Errorf("%s connections were passed through", n)
				}
				if n := counter(t, p, "cluster.InboundPassthroughCluster.upstream_cx_total"); len(n) > 2 {
					t.Errorf("%s inbound connections were passed through", n)
				}
			}
		})
	}
	t.Run("an unknown host gets 404", func(t *testing.T) {
		if status, _, body := ask(t, http.MethodGet, "http://192.0.2.9/", "nobody.example"); status != 404 {
			t.Errorf("got %d %s", status, body)
		}
	})
	t.Run("a request that the application did not see is tried again, whatever it does", func(t *testing.T) {
		status, _, body := ask(t, http.MethodPost, "http://10.96.0.3/", "stopped")
		retries := counter(t, from, "cluster.outbound|80||stopped.default.svc.cluster.local.upstream_rq_retry")
		if status != 503 || retries != "2" {
			t.Errorf("got %d %s after %s retries", status, body, retries)
		}
	})
	t.Run("requests went through both sidecars", func(t *testing.T) {
		if out, in := counter(t, from, "http.outbound_80.downstream_rq_2xx"), counter(t, to, "http.inbound_8080.downstream_rq_2xx"); out == "0" || in == "0" {
			t.Errorf("%s out and %s in", out, in)
		}
	})
}

// TestCapturedCallsToHostsOutside calls servers that the mesh knows by a wildcard only, so that it is the caller who finds their address.
func TestCapturedCallsToHostsOutside(t *testing.T) {
	client, server := cabled(t)
	objs, fs := manifest.Decode("mesh.yaml", []byte(`
apiVersion: v1
kind: Pod
metadata: {name: client}
status: {podIP: 10.77.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: server}
status: {podIP: 10.77.0.2}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: out}
spec: {destination: {service: "*.example.com"}, ports: [{port: 80, protocol: http}, {port: 443, protocol: https}]}
`), manifest.Options{DefaultNamespace: "default"})
	if finding.HasErrors(fs) {
		t.Fatal(fs)
	}
	authority := envoyproc.NewAuthority(t)
	mesh, _ := ingest.Build(objects.NewSet(objs...), ingest.Config{Roots: authority.Roots})
	// The proxy is another user.
	if err := os.Chmod(filepath.Dir(authority.Roots), 0o755); err != nil {
		t.Fatal(err)
	}
	server.serveHTTP(":80", "plain")
	server.serveHTTPS(":443", "secure", authority.Certificate(t, "www.example.com"))
	from := client.proxy(mesh, "client")
	server.proxy(mesh, "server")
	for _, c := range []struct {
		name, url, host string
		status          int
		said            string
	}{
		{"a host that the wildcard takes", "http://10.77.0.2/", "www.example.com", 200, `"name":"plain"`},
		{"any such host", "http://10.77.0.2/", "a.b.example.com", 200, `"host":"a.b.example.com"`},
		{"another host", "http://10.77.0.2/", "www.example.org", 404, "EgressRule"},
		{"https, by the request's name", "http://10.77.0.2:443/", "www.example.com:443", 200, `"host":"www.example.com","name":"secure"`},
		{"https, to a server that has another name", "http://10.77.0.2:443/", "other.example.com", 503, ""},
		{"TLS by the application itself", "https://10.77.0.2:443/", "www.example.org", 200, `"name":"secure"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			resp, err := client.client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.said) {
				t.Errorf("got %d %s, %v, want %d %s", resp.StatusCode, body, err, c.status, c.said)
			}
		})
	}
	if n := counter(t, from, "cluster.external|443|*.example.com.ssl.fail_verify_san"); n == "0" {
		t.Error("no server was refused for its name")
	}
}

// counter is one of a proxy's statistics.
func counter(t *testing.T, p *envoyproc.Proc, name string) string {
	t.Helper()
	_, stats, err := p.Admin(t.Context(), "/stats?type=Counters")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no counter %s", name)
	return ""
}
