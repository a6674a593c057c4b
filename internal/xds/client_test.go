package xds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/xds"
)

const (
	cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	lds = "type.googleapis.com/envoy.config.listener.v3.Listener"
	rds = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// patience bounds every wait; nothing is expected to take it.
const patience = 10 * time.Second

// source gives every proxy the same snapshot.
type source struct{ snap *resource.Snapshot }

func (s source) Snapshot(model.Proxy) *resource.Snapshot { return s.snap }

type fixture struct {
	t          *testing.T
	server     *xds.Server
	addr       string
	generation uint64
	rejected   chan xds.Rejection
	progress   chan struct{}
	grpc       *grpc.Server
}

func start(t *testing.T, edit ...func(*xds.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, rejected: make(chan xds.Rejection, 1000), progress: make(chan struct{}, 1)}
	cfg := xds.Config{
		Pilot:       "pilot-test",
		Rejected:    func(r xds.Rejection) { f.rejected <- r },
		Progress:    f.signal,
		StepTimeout: time.Minute,
		Log:         quietLog(),
	}
	for _, e := range edit {
		e(&cfg)
	}
	f.server = xds.New(cfg)
	opts, err := xds.Options()
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	f.server.Register(g, byName)
	f.grpc = g
	f.addr = serve(t, g)
	return f
}

func (f *fixture) signal() {
	select {
	case f.progress <- struct{}{}:
	default:
	}
}

// publish makes content, "name=value" per type, the newest truth.
func (f *fixture) publish(c content) {
	f.t.Helper()
	f.generation++
	f.server.Publish(source{&resource.Snapshot{
		Clusters: resource.Group{f.set(c.cds, cluster)}, Endpoints: resource.Group{f.set(c.eds, endpoint)},
		Listeners: resource.Group{f.set(c.lds, listener)}, Routes: resource.Group{f.set(c.rds, route)},
	}}, f.generation)
}

type content struct{ cds, eds, lds, rds map[string]int }

type set = map[string]int

func (f *fixture) set(m map[string]int, body func(string, int) proto.Message) *resource.Set {
	var rs []*resource.Resource
	for name, v := range m {
		rs = append(rs, made(f.t, name, body(name, v)))
	}
	return resource.NewSet(rs...)
}

func made(t testing.TB, name string, m proto.Message) *resource.Resource {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	url := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	return resource.New(url, name, b, model.Ref{Kind: "RouteRule", Namespace: "default", Name: "for-" + name})
}

func cluster(name string, v int) proto.Message {
	return &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(v) * time.Second)}
}

func endpoint(name string, v int) proto.Message {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Policy: &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(time.Duration(v) * time.Second)}}
}

func listener(name string, v int) proto.Message {
	return &listenerv3.Listener{Name: name, StatPrefix: fmt.Sprint(v)}
}

func route(name string, v int) proto.Message {
	return &routev3.RouteConfiguration{Name: name, RequestHeadersToRemove: []string{fmt.Sprint("h", v)}}
}

// heard is one response in short: names as sent, removed ones with a minus.
type heard struct {
	url, nonce, version string
	names, removed      []string
	resources           map[string]string // versions, delta only
}

type deltaClient struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	in     chan heard
	cancel context.CancelFunc
	node   *corev3.Node
	over   chan error
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *fixture) delta(node string) *deltaClient {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(f.t, f.addr)).DeltaAggregatedResources(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	c := &deltaClient{t: f.t, stream: s, in: make(chan heard, 100), cancel: cancel, node: &corev3.Node{Id: node}, over: make(chan error, 1)}
	in := c.in // a test may put another channel in front of it
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				c.over <- err
				return
			}
			h := heard{url: m.TypeUrl, nonce: m.Nonce, removed: m.RemovedResources, resources: map[string]string{}}
			for _, r := range m.Resources {
				h.names = append(h.names, r.Name)
				h.resources[r.Name] = r.Version
			}
			slices.Sort(h.names)
			in <- h
		}
	}()
	return c
}

func (c *deltaClient) send(m *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	m.Node, c.node = c.node, nil
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *deltaClient) subscribe(url string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack(h heard) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: h.url, ResponseNonce: h.nonce})
}

func (c *deltaClient) nack(h heard, text string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: h.url, ResponseNonce: h.nonce, ErrorDetail: &rpcstatus.Status{Code: 13, Message: text}})
}

// hear is the next response, which must be of url with the names given (removed ones with a minus), sorted.
func (c *deltaClient) hear(url string, names ...string) heard {
	c.t.Helper()
	h := next(c.t, c.in)
	got := slices.Clone(h.names)
	for _, r := range h.removed {
		got = append(got, "-"+r)
	}
	if h.url != url || !slices.Equal(got, names) {
		c.t.Fatalf("heard %s %v, want %s %v", h.url, got, url, names)
	}
	return h
}

// quiet makes sure that nothing is on its way, by a question with a known answer that the server gives after anything else.
func (c *deltaClient) quiet() {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "probe", ResourceNamesSubscribe: []string{"x"}})
	c.hear("probe", "-x")
}

func next(t *testing.T, in chan heard) heard {
	t.Helper()
	select {
	case h := <-in:
		return h
	case <-time.After(patience):
		t.Fatal("no response came")
	}
	panic("unreachable")
}

// await polls cond after each progress of the server.
func (f *fixture) await(what string, cond func() bool) {
	f.t.Helper()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-f.progress:
		case <-time.After(10 * time.Millisecond): // progress may have been told before the wait
		case <-deadline:
			f.t.Fatalf("waiting until %s: gave up", what)
		}
	}
}

func stepTimeout(c *xds.Config) { c.StepTimeout = 50 * time.Millisecond }

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve runs g on a free port until the test ends.
func serve(t testing.TB, g *grpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		// A test that ends at once stops the server before it began.
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// byName admits everybody.
func byName(_ context.Context, id string) (model.Proxy, error) {
	if id == "stranger" {
		return model.Proxy{}, status.Error(codes.PermissionDenied, "not you")
	}
	return model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: id}}, nil
}
