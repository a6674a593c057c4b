package envoy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/meshctl/meshctl/internal/model"
)

// grpcInstance is a server that counts its calls.
type grpcInstance struct {
	port  int
	calls atomic.Int64
}

func serveGRPC(t *testing.T) *grpcInstance {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := &grpcInstance{port: l.Addr().(*net.TCPAddr).Port}
	srv := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		in.calls.Add(1)
		return handle(ctx, req)
	}), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		in.calls.Add(1)
		return handle(srv, ss)
	}))
	state := health.NewServer()
	healthpb.RegisterHealthServer(srv, state)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	return in
}

const greeter = `
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec:
  clusterIP: 10.96.0.5
  ports: [{name: grpc, port: 7070}]
  selector: {app: greeter}
`

func TestLiveGRPCIsBalancedByRequest(t *testing.T) {
	a, b := serveGRPC(t), serveGRPC(t)
	p := startSidecar(t, greeter+pods("greeter", "grpc", "v1", "greeter-a", a.port, ready)+pods("greeter", "grpc", "v2", "greeter-b", b.port, ready)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: to-v2}
spec:
  destination: {name: greeter}
  match: {request: {headers: {x-version: {exact: "2"}}}}
  route: [{labels: {version: v2}}]
`)
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", p.ports["0.0.0.0_7070"]), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("greeter:7070"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := healthpb.NewHealthClient(conn)
	for range 40 {
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls.Load() != 20 || b.calls.Load() != 20 {
		t.Errorf("40 calls over one connection reached the instances %d and %d times", a.calls.Load(), b.calls.Load())
	}
	t.Run("rules act on calls", func(t *testing.T) {
		before := b.calls.Load()
		ctx := metadata.AppendToOutgoingContext(ctx, "x-version", "2")
		for range 10 {
			if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		if b.calls.Load()-before != 10 {
			t.Errorf("v2 got %d of 10 calls meant for it", b.calls.Load()-before)
		}
	})
	t.Run("the status of the application arrives", func(t *testing.T) {
		if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a stream delivers while it stays open", func(t *testing.T) {
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || m.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("got %v, %v", m, err)
		}
	})
}

func TestLiveTCPAndWebsockets(t *testing.T) {
	echoPort := serveEcho(t)
	ws := serve(t, "ws", func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			return false
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return false
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
		return true
	})
	p := startSidecar(t, reviews+pods("reviews", "http", "v1", "ws-1", ws.port, ready)+`
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: 10.96.0.6, ports: [{name: tcp, port: 3306}, {name: idle, port: 3307}]}
`+pods("db", "tcp", "v1", "db-1", echoPort, ready))

	t.Run("bytes go both ways over TCP", func(t *testing.T) {
		conn := dial(t, p.ports["10.96.0.6_3306"])
		talk(t, conn, bufio.NewReader(conn), "hello\n")
	})
	t.Run("a TCP service without instances closes the connection", func(t *testing.T) {
		conn := dial(t, p.ports["10.96.0.6_3307"])
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
	})
	t.Run("a websocket is upgraded without a rule", func(t *testing.T) {
		conn := dial(t, p.ports[http9080])
		if _, err := fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: reviews\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"); err != nil {
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
}

// serveEcho sends back what it gets.
func serveEcho(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func dial(t *testing.T, port int) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// talk sends a line and waits for its echo.
func talk(t *testing.T, conn net.Conn, r *bufio.Reader, line string) {
	t.Helper()
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); err != nil || got != line {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLiveIngress(t *testing.T) {
	v1, v2, api := serve(t, "v1", nil), serve(t, "v2", nil), serveGRPC(t)
	mesh := meshOf(t, reviews+pods("reviews", "http", "v1", "reviews-v1", v1.port, ready)+pods("reviews", "http", "v2", "reviews-v2", v2.port, ready)+
		"---"+greeter+pods("greeter", "grpc", "v1", "greeter-1", api.port, ready)+`
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: istio-system, labels: {istio: ingress}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, annotations: {kubernetes.io/ingress.class: istio}}
spec:
  rules:
  - http:
      paths:
      - {path: /productpage, pathType: ImplementationSpecific, backend: {service: {name: reviews, port: {number: 9080}}}}
      - {path: "/item/[0-9]+", pathType: ImplementationSpecific, backend: {service: {name: reviews, port: {number: 9080}}}}
      - {path: /deep, pathType: Prefix, backend: {service: {name: reviews, port: {name: http}}}}
      - {path: /gone, pathType: Exact, backend: {service: {name: gone, port: {number: 80}}}}
  - host: "*.shop.example"
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: reviews, port: {number: 9080}}}}]}
  - host: api.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: greeter, port: {number: 7070}}}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: default}
spec: {destination: {name: reviews}, route: [{labels: {version: v1}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: jason}
spec:
  destination: {name: reviews}
  precedence: 1
  match: {request: {headers: {cookie: {regex: "^(.*?;)?(user=jason)(;.*)?$"}}}}
  route: [{labels: {version: v2}}]
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: deeper}
spec:
  destination: {name: reviews}
  precedence: 2
  match: {request: {headers: {uri: {prefix: /deep/er}}}}
  route: [{labels: {version: v2}}]
`)
	p := start(t, mesh, model.Proxy{Type: model.Ingress, Workload: model.WorkloadKey{Namespace: "istio-system", Name: "gateway"}})
	const listener = "0.0.0.0_8080"
	for _, c := range []struct {
		name, host, path string
		headers          []string
		want             string
	}{
		{"an exact path", "any.example", "/productpage?u=normal", nil, "v1"},
		{"an exact path goes no further", "any.example", "/productpage/x", nil, "404"},
		{"jason", "any.example", "/productpage", []string{"Cookie", "user=jason"}, "v2"},
		{"a regular expression", "any.example", "/item/12?a", nil, "v1"},
		{"a regular expression that holds in part", "any.example", "/item/x", nil, "404"},
		{"a prefix of whole elements", "any.example", "/deep/down", nil, "v1"},
		{"a prefix that ends inside an element", "any.example", "/deepest", nil, "404"},
		{"a rule's narrower prefix inside the Ingress's", "any.example", "/deep/er/x", nil, "v2"},
		{"a path that climbs out of the prefix", "any.example", "/deep/../other", nil, "404"},
		{"anything else", "any.example", "/", nil, "404"},
		{"a backend that does not exist", "any.example", "/gone", nil, "503"},
		{"a host under the wildcard", "a.shop.example:80", "/any", nil, "v1"},
		{"a host two labels under the wildcard", "b.a.shop.example", "/any", nil, "404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, _ := p.who(t, listener, get, c.host, c.path, c.headers...); got != c.want {
				t.Errorf("met %s, want %s", got, c.want)
			}
		})
	}
	t.Run("claims of identity and orders to the proxy do not pass", func(t *testing.T) {
		_, e := p.who(t, listener, get, "any.example", "/productpage", "X-Forwarded-Client-Cert", "By=spiffe://x", "X-Istio-Attributes", "abc", "X-Request-Id", "mine",
			"X-Forwarded-For", "192.0.2.1", "X-Envoy-Upstream-Rq-Timeout-Ms", "1")
		for _, h := range []string{"X-Forwarded-Client-Cert", "X-Istio-Attributes"} {
			if got := e.Header.Get(h); got != "" {
				t.Errorf("%s: %s arrived", h, got)
			}
		}
		if e.Header.Get("X-Request-Id") == "" || !strings.HasPrefix(e.Header.Get("X-Forwarded-For"), "192.0.2.1,") {
			t.Errorf("arrived with %v", e.Header)
		}
	})
	t.Run("gRPC", func(t *testing.T) {
		conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", p.ports[listener]), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("api.example"))
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
}
