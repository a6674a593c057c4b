package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	httpPort = ":8080"
	grpcPort = ":9090"
	tcpPort  = ":9000"
	whoCall  = "/echo.Echo/Who"

	// drain is how long the server stays open after it was told to stop.
	drain = 2 * time.Second
)

// who is the answer of every protocol.
type who struct {
	Pod     string      `json:"pod"`
	Version string      `json:"version"`
	Path    string      `json:"path,omitempty"`
	Host    string      `json:"host,omitempty"`
	Header  http.Header `json:"header,omitempty"`
	// Peer is who the server sees at the other end.
	Peer string `json:"peer,omitempty"`
}

type server struct {
	who who
	// ready is what the readiness probe is told; POST /unready changes it.
	ready atomic.Bool
	// toFail is how many of the next requests to /flaky fail.
	toFail atomic.Int64
}

// ports are where each protocol is served.
type ports struct{ http, grpc, tcp net.Listener }

func listen(http, grpc, tcp string) (ports, error) {
	var p ports
	var errs [3]error
	p.http, errs[0] = net.Listen("tcp", http)
	p.grpc, errs[1] = net.Listen("tcp", grpc)
	p.tcp, errs[2] = net.Listen("tcp", tcp)
	return p, errors.Join(errs[:]...)
}

func serve(ctx context.Context, p ports, getenv func(string) string) error {
	s := &server{who: who{Pod: getenv("HOSTNAME"), Version: getenv("VERSION")}}
	s.ready.Store(true)

	web := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	rpc := grpc.NewServer()
	rpc.RegisterService(&grpc.ServiceDesc{ServiceName: "echo.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Who", Handler: s.rpc}}}, s)
	ended := make(chan error, 3)
	go func() { ended <- web.Serve(p.http) }()
	go func() { ended <- rpc.Serve(p.grpc) }()
	go func() { ended <- s.lines(p.tcp) }()
	fmt.Fprintln(os.Stdout, "serving as", s.who.Pod, s.who.Version)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// A well-behaved server goes on for as long as it takes until nobody sends it anything new, and asks those connected not to come back.
	web.SetKeepAlivesEnabled(false)
	time.Sleep(drain) //nolint:forbidigo // the news that this pod goes spreads without an event that could be waited for here
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	time.AfterFunc(20*time.Second, rpc.Stop)
	err := web.Shutdown(ending)
	rpc.GracefulStop()
	return errors.Join(err, p.tcp.Close())
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a := s.who
		a.Path, a.Host, a.Header, a.Peer = r.URL.RequestURI(), r.Host, r.Header, r.RemoteAddr
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // fails only for a client that left
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/slow/{duration}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("duration"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
			_ = json.NewEncoder(w).Encode(s.who)
		case <-r.Context().Done():
		}
	})
	// POST /fail/2 makes the next two requests to /flaky fail.
	mux.HandleFunc("POST /fail/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.toFail.Store(n)
	})
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		if s.toFail.Add(-1) >= 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(s.who)
	})
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /ready/{yes}", func(_ http.ResponseWriter, r *http.Request) { s.ready.Store(r.PathValue("yes") == "true") })
	return mux
}

//nolint:revive // the order of parameters is gRPC's
func (s *server) rpc(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	if err := decode(&wrapperspb.StringValue{}); err != nil {
		return nil, err
	}
	text, err := json.Marshal(s.who)
	return wrapperspb.String(string(text)), errors.Join(err, ctx.Err())
}

// lines answers each line of each connection with who this is. The server speaks first, as databases do.
func (s *server) lines(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			text, _ := json.Marshal(s.who) // plain strings always can be
			for in := bufio.NewScanner(conn); ; {
				if _, err := fmt.Fprintf(conn, "%s\n", text); err != nil || !in.Scan() {
					return
				}
			}
		}()
	}
}
