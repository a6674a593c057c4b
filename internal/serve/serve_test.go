package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshctl/meshctl/internal/serve"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// journal records in which order components end.
type journal struct {
	mu    sync.Mutex
	ended []string
}

func (j *journal) component(name string, started chan<- struct{}) serve.Component {
	return serve.Component{Name: name, Run: func(ctx context.Context) error {
		if started != nil {
			close(started)
		}
		<-ctx.Done()
		j.mu.Lock()
		defer j.mu.Unlock()
		j.ended = append(j.ended, name)
		return nil
	}}
}

func TestComponentsStopInReverseOrder(t *testing.T) {
	j := &journal{}
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- serve.Run(ctx, quiet(), time.Second, j.component("a", nil), j.component("b", nil), j.component("c", started))
	}()
	<-started
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !slices.Equal(j.ended, []string{"c", "b", "a"}) {
		t.Errorf("ended in order %v", j.ended)
	}
}

func TestTheFirstFailureStopsEverythingAndIsReturned(t *testing.T) {
	j := &journal{}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		err  error
		want string
	}{"a failure": {broken, "broken"}, "an end nobody asked for": {nil, "ended by itself"}} {
		t.Run(name, func(t *testing.T) {
			err := serve.Run(context.Background(), quiet(), time.Second, j.component("a", nil),
				serve.Component{Name: "b", Run: func(context.Context) error { return c.err }})
			if err == nil || !strings.Contains(err.Error(), "b") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if !slices.Equal(j.ended, []string{"a", "a"}) {
		t.Errorf("ended %v", j.ended)
	}
}

func TestAComponentThatDoesNotStopHoldsUpNobody(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := serve.Run(ctx, quiet(), 10*time.Millisecond, serve.Component{Name: "stuck", Run: func(context.Context) error { <-never; return nil }}); err != nil {
		t.Error(err)
	}
}

func TestHealthSaysWhatIsAwaited(t *testing.T) {
	var mu sync.Mutex
	waiting := []string{"routerules: none yet"}
	l, err := serve.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total", Help: "h"})
	registry.MustRegister(counter)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	handler := serve.Health(registry, func() []string { mu.Lock(); defer mu.Unlock(); return waiting })
	go func() { done <- serve.HTTP("health", l, handler, nil, quiet()).Run(ctx) }()
	get := func(path string) string {
		t.Helper()
		resp, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(resp.StatusCode, " ", string(body))
	}
	for path, want := range map[string]string{"/healthz": "200 ok", "/ready": "503 waiting for:\nrouterules: none yet", "/metrics": "200 # HELP test_total", "/other": "404"} {
		if got := get(path); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	mu.Lock()
	waiting = nil
	mu.Unlock()
	if got := get("/ready"); !strings.HasPrefix(got, "200 ready") {
		t.Errorf("ready: %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOpenStreamsAreCutAtTheEnd(t *testing.T) {
	l, err := serve.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		close(opened)
		<-s.Context().Done()
		return s.Context().Err()
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve.GRPC("g", l, g).Run(ctx) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s, err := conn.NewStream(context.Background(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x/y")
	if err != nil {
		t.Fatal(err)
	}
	<-opened
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not end")
	}
	if err := s.RecvMsg(nil); err == nil {
		t.Error("the stream goes on")
	}
}

func TestOnlyLoopbackAddressesAreLoopback(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "127.8.8.8:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "localhost:1": false, "example.com:1": false, "127.0.0.1": false, "": false,
	} {
		if err := serve.RequireLoopback(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestAPortThatIsTakenIsSaid(t *testing.T) {
	l, err := serve.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := serve.Listen(l.Addr().String()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}
