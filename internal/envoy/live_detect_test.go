package envoy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/meshctl/meshctl/internal/model"
)

// undeclared is a service whose port does not say what it speaks.
func undeclared(name, ip string, port int) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  clusterIP: %[2]s
  ports: [{port: %[3]d}]
  selector: {app: %[1]s}
`, name, ip, port)
}

// serveLines is a raw TCP server: it greets first if it has a greeting, then sends back each line with its name.
func serveLines(t *testing.T, name, greeting string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, greeting)
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					_, _ = fmt.Fprintf(conn, "%s %s\n", name, lines.Text())
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestLiveProtocolsAreDetected(t *testing.T) {
	v1, v2 := serve(t, "v1", nil), serve(t, "v2", nil)
	call := serveGRPC(t)
	lines, greeter := serveLines(t, "lines", ""), serveLines(t, "greeter", "welcome\n")
	mesh := meshOf(t, undeclared("web", "10.96.1.1", 9000)+
		pods("web", `""`, "v1", "web-1", v1.port, ready)+pods("web", `""`, "v2", "web-2", v2.port, ready)+
		undeclared("calls", "10.96.1.2", 9000)+pods("calls", `""`, "v1", "calls-1", call.port, ready)+
		undeclared("lines", "10.96.1.3", 9000)+pods("lines", `""`, "v1", "lines-1", lines, ready)+
		undeclared("greeter", "10.96.1.4", 9000)+pods("greeter", `""`, "v1", "greeter-1", greeter, ready)+
		undeclared("mysql", "10.96.1.5", 3306)+pods("mysql", `""`, "v1", "mysql-1", greeter, ready)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: web}
spec:
  destination: {name: web}
  route: [{labels: {version: v2}}]
`+caller)
	p := start(t, mesh, model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})

	t.Run("HTTP is routed by rules, whatever host it names", func(t *testing.T) {
		for _, host := range []string{"web:9000", "10.96.1.1:9000", "bucket.example"} {
			if got, e := p.who(t, "10.96.1.1_9000", get, host, "/"); got != "v2" || e.Host != host {
				t.Errorf("for %s: %s, asked for %q", host, got, e.Host)
			}
		}
	})
	t.Run("gRPC is understood", func(t *testing.T) {
		conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", p.ports["10.96.1.2_9000"]), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Error(err)
		}
	})
	// exchange sends a line, if there is one, and reads one.
	exchange := func(listener, say string) (string, error) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.ports[listener]))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(conn, say); err != nil {
			return "", err
		}
		return bufio.NewReader(conn).ReadString('\n')
	}
	for name, c := range map[string]struct{ listener, say, want string }{
		"what is not HTTP passes as it is":            {"10.96.1.3_9000", "hello there\n", "lines hello there\n"},
		"what only begins like a method passes, too":  {"10.96.1.3_9000", "GET it done\n", "lines GET it done\n"},
		"a server that speaks first is heard":         {"10.96.1.4_9000", "", "welcome\n"},
		"a well-known one is not even waited for":     {"10.96.1.5_3306", "", "welcome\n"},
		"a short word that could still become HTTP …": {"10.96.1.3_9000", "GE\n", "lines GE\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := exchange(c.listener, c.say); got != c.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
