// Package sidecars measures what two sidecars add to a request, against the same Envoys with the least configuration that does the same.
package sidecars

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/capture"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

const (
	user     = 1337
	caller   = "10.77.0.1"
	callee   = "10.77.0.2"
	service  = "10.96.0.1:80"
	requests = 6000
	warmUp   = 500
)

// BenchmarkSidecars has two pairs of captured pods, each in network namespaces of its own: one with the configuration that the mesh makes of 100
// services, one with a hand-written minimum. The same caller asks through the one and the other in turn, so that whatever else the machine does meets both.
// It tells the median and the 99th percentile of both.
func BenchmarkSidecars(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("SKIPPED: network namespaces need root")
	}
	mesh := load.Mesh{Services: 100, Instances: 1}
	m := load.Model(mesh.EndpointEdit(mesh.Objects(), callee))
	static := func(i int) []byte {
		return envoyproc.Static(b, envoy.Build(m, mesh.Proxy(i)), "127.0.0.1", 15000, nil)
	}
	ours := dial(b, static(1), static(0))
	least := dial(b, fmt.Appendf(nil, minimum, 15001, callee), fmt.Appendf(nil, minimum, 15006, "127.0.0.1"))
	var times [2][]time.Duration
	for i := range warmUp + requests {
		for j, c := range []*connection{ours, least} {
			took, err := c.ask()
			if err != nil {
				b.Fatal(err)
			}
			if i >= warmUp {
				times[j] = append(times[j], took)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for j, name := range []string{"mesh", "least"} {
		slices.Sort(times[j])
		b.ReportMetric(float64(times[j][requests/2])/1e3, name+"-p50-us")
		b.ReportMetric(float64(times[j][requests*99/100])/1e3, name+"-p99-us")
	}
}

// minimum is all that an Envoy needs to take requests from a port and give them to port 8080 of an address.
const minimum = `{
  "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
  "static_resources": {
    "listeners": [{
      "address": {"socket_address": {"address": "0.0.0.0", "port_value": %d}},
      "filter_chains": [{"filters": [{
        "name": "http",
        "typed_config": {
          "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
          "stat_prefix": "http",
          "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]}]},
          "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]
        }
      }]}]
    }],
    "clusters": [{
      "name": "next",
      "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": 8080}}}}]}]}
    }]
  }
}`

// connection is one that the caller keeps open.
type connection struct {
	net.Conn
	in *bufio.Reader
}

// dial makes two pods with a cable between them and an Envoy in each, an application in the second, and a connection to it from the first.
func dial(b *testing.B, client, server []byte) *connection {
	b.Helper()
	one, two := newPod(b), newPod(b)
	if err := one.enter(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(two.handle)})
	}); err != nil {
		b.Fatal(err)
	}
	one.plug(b, caller, callee)
	two.plug(b, callee, caller)
	var l net.Listener
	if err := two.enter(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:8080")
		return err
	}); err != nil {
		b.Fatal(err)
	}
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })}
	go func() { _ = app.Serve(l) }()
	b.Cleanup(func() { app.Close() })
	one.proxy(b, client)
	two.proxy(b, server)
	conn, err := one.connect(b.Context(), "tcp", service)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &connection{conn, bufio.NewReader(conn)}
}

// ask makes one request.
func (c *connection) ask() (time.Duration, error) {
	begun := time.Now()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+load.Host+"\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	took := time.Since(begun)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "hello\n") {
		err = fmt.Errorf("the answer is %s, %q", resp.Status, body)
	}
	return took, err
}

// pod is a network namespace.
type pod struct{ handle netns.NsHandle }

func newPod(b *testing.B) *pod {
	b.Helper()
	p := &pod{}
	if err := away(func() (err error) {
		p.handle, err = netns.New()
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.handle.Close() })
	return p
}

// enter runs f in the pod's network.
func (p *pod) enter(f func() error) error {
	return away(func() error {
		if err := netns.Set(p.handle); err != nil {
			return err
		}
		return f()
	})
}

// away lets f change the thread's network and comes back. The thread must go on: a program that it started would be ended with it.
func away(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	err = f()
	if back := netns.Set(home); back != nil {
		return back // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// plug gives the pod its address, the other as the way to everywhere, and the rules of capture.
func (p *pod) plug(b *testing.B, address, gateway string) {
	b.Helper()
	if err := p.enter(func() error {
		for _, name := range []string{"lo", "eth0"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
			if name == "lo" {
				continue
			}
			addr, err := netlink.ParseAddr(address + "/24")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)}); err != nil {
				return err
			}
		}
		cmd := exec.Command("iptables-restore", "--noflush")
		cmd.Stdin = strings.NewReader(capture.Rules(capture.Config{OutboundPort: 15001, InboundPort: 15006, UID: user, GID: user}, capture.IPv4(), ""))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("capturing: %w: %s", err, out)
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

func (p *pod) connect(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = p.enter(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

func (p *pod) proxy(b *testing.B, bootstrap []byte) {
	b.Helper()
	envoyproc.Start(b, bootstrap, envoyproc.Options{
		Admin: "127.0.0.1:15000", Client: &http.Client{Transport: &http.Transport{DialContext: p.connect, DisableKeepAlives: true}}, UID: user, GID: user,
		Start: func(cmd *exec.Cmd) error { return p.enter(cmd.Start) },
	})
}
