package relay_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/xds"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// mesh is one listener, one route, one cluster and its endpoint, with a header that tells configurations apart.
type mesh struct {
	t     testing.TB
	port  int // of the listener
	app   string
	admin int
}

func newMesh(t testing.TB) *mesh {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(app.Close)
	return &mesh{t: t, port: freePort(t), admin: freePort(t), app: app.Listener.Addr().String()}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (m *mesh) snapshot(version string) *xds.Snapshot {
	host, port, _ := strings.Cut(m.app, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		m.t.Fatal(err)
	}
	ads := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
	cluster := &clusterv3.Cluster{Name: "app", ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads}}
	endpoints := &endpointv3.ClusterLoadAssignment{ClusterName: "app", Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(host, number)}}}}}}}
	route := &routev3.RouteConfiguration{Name: "in", VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action:               &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "app"}}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-config", Value: version}}}}}}}}
	manager := &hcmv3.HttpConnectionManager{StatPrefix: "in",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "in", ConfigSource: ads}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(m.t, &routerv3.Router{})}}}}
	listener := &listenerv3.Listener{Name: "in", Address: address("127.0.0.1", m.port), FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(m.t, manager)}}}}}}
	return &xds.Snapshot{
		Clusters: xds.Group{xds.NewSet(resource(m.t, "app", cluster))}, Endpoints: xds.Group{xds.NewSet(resource(m.t, "app", endpoints))},
		Listeners: xds.Group{xds.NewSet(resource(m.t, "in", listener))}, Routes: xds.Group{xds.NewSet(resource(m.t, "in", route))},
	}
}

func address(host string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}}
}

func pack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (m *mesh) envoy(b *box) *envoyproc.Proc {
	m.t.Helper()
	text, err := bootstrap.JSON(bootstrap.Config{NodeID: "sidecar~127.0.0.1~a.default~default.svc.cluster.local", ServiceCluster: "a", AdminPort: m.admin,
		XDSSocket: b.cfg.Socket, MaxConnections: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	return envoyproc.Start(m.t, text, envoyproc.Options{Admin: fmt.Sprint("127.0.0.1:", m.admin)})
}

// get asks through Envoy and returns the configuration that answered.
func (m *mesh) get(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprint("http://127.0.0.1:", m.port, "/"), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello" {
		return "", fmt.Errorf("%s %q %w", resp.Status, body, err)
	}
	return resp.Header.Get("x-config"), nil
}

func (m *mesh) answers(version string) {
	m.t.Helper()
	eventually(m.t, "requests answered by configuration "+version, func() error {
		got, err := m.get(m.t.Context())
		if err == nil && got != version {
			err = fmt.Errorf("answered by %q", got)
		}
		return err
	})
}

// load keeps asking until stop is called, which fails the test when a request was not answered.
func (m *mesh) load() (stop func()) {
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	var asked, failed atomic.Int64
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := m.get(context.WithoutCancel(ctx)); err != nil {
				failed.Add(1)
				m.t.Errorf("under load: %v", err)
			}
			asked.Add(1)
		}
	}()
	return func() {
		m.t.Helper()
		cancel()
		<-done
		if asked.Load() == 0 {
			m.t.Error("the load asked nothing")
		}
		m.t.Logf("%d requests, %d failed", asked.Load(), failed.Load())
	}
}

func TestTrafficGoesOnWhilePilotIsAway(t *testing.T) {
	p := newPilot(t)
	m := newMesh(t)
	p.publish(m.snapshot("1"))
	p.start()
	b := newBox(t, p)
	m.envoy(b)
	m.answers("1")
	before := b.await("configured", func(s relay.Status) bool { return s.Configured() && s.Pilot })

	stop := m.load()
	p.kill()
	b.await("Pilot away", func(s relay.Status) bool { return !s.Pilot && s.LastError != "" })
	p.start()
	failures := before.Failures
	b.await("a stream to Pilot again", func(s relay.Status) bool { failures = s.Failures; return s.Attempts > s.Failures })
	// The same configuration in a new Pilot: Envoy is sent nothing, and keeps its connections. A change then arrives.
	p.publish(m.snapshot("2"))
	m.answers("2")
	stop()
	after := b.await("Pilot back", func(s relay.Status) bool { return s.Pilot })
	if after.Nacks != 0 || after.FromRecord != 0 {
		t.Errorf("%d refusals, %d answers from the record", after.Nacks, after.FromRecord)
	}
	// One route changed, so one answer more than before; a full resend would be four.
	if after.Acks != before.Acks+1 {
		t.Errorf("%d answers accepted while one route changed (%d failures)", after.Acks-before.Acks, failures)
	}
}

func TestEnvoyRestartsWhilePilotIsAway(t *testing.T) {
	p := newPilot(t)
	m := newMesh(t)
	p.publish(m.snapshot("1"))
	p.start()
	b := newBox(t, p)
	envoy := m.envoy(b)
	m.answers("1")
	b.await("configured", relay.Status.Configured)
	p.kill()

	envoy.Stop()
	b.await("not configured without Envoy", func(s relay.Status) bool { return !s.Envoy && !s.Configured() })
	envoy = m.envoy(b)
	m.answers("1")
	s := b.await("configured from the record", relay.Status.Configured)
	if s.Pilot || s.FromRecord != 4 {
		t.Errorf("served from the record %d times, want clusters, endpoints, listeners, routes; Pilot %t", s.FromRecord, s.Pilot)
	}

	// The agent restarts too: the record is a file.
	envoy.Stop()
	b.stop()
	b.start()
	m.envoy(b)
	m.answers("1")

	// Pilot comes back with something else, and something gone: Envoy follows without a reset.
	stop := m.load()
	changed := m.snapshot("2")
	p.publish(changed)
	p.start()
	m.answers("2")
	stop()
	gone := m.snapshot("2")
	gone.Listeners = xds.Group{xds.NewSet()}
	p.publish(gone)
	eventually(t, "the listener gone", func() error {
		if _, err := m.get(t.Context()); err == nil {
			return fmt.Errorf("still answered")
		}
		return nil
	})
}

func TestWhatIsGoneWhenPilotComesBackIsTakenFromEnvoy(t *testing.T) {
	p := newPilot(t)
	m := newMesh(t)
	p.publish(m.snapshot("1"))
	p.start()
	b := newBox(t, p)
	envoy := m.envoy(b)
	m.answers("1")
	b.await("configured", relay.Status.Configured)
	p.kill()
	envoy.Stop()
	m.envoy(b)
	m.answers("1")

	gone := m.snapshot("1")
	gone.Listeners = xds.Group{xds.NewSet()}
	p.publish(gone)
	p.start()
	eventually(t, "the listener gone", func() error {
		if _, err := m.get(t.Context()); err == nil {
			return fmt.Errorf("still answered")
		}
		return nil
	})
}

func TestNothingIsServedBeforeTheFirstConfiguration(t *testing.T) {
	p := newPilot(t)
	m := newMesh(t)
	p.publish(m.snapshot("1"))
	b := newBox(t, p)
	text, err := bootstrap.JSON(bootstrap.Config{NodeID: "n", ServiceCluster: "a", AdminPort: m.admin, XDSSocket: b.cfg.Socket, MaxConnections: 1000})
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		// It is live only once Pilot has spoken.
		envoyproc.Start(t, text, envoyproc.Options{Admin: fmt.Sprint("127.0.0.1:", m.admin)})
	}()
	b.await("Envoy there and Pilot tried in vain", func(s relay.Status) bool { return s.Envoy && s.Failures > 2 })
	if s, _ := b.Status(); s.Configured() {
		t.Error("configured by nobody")
	}
	p.start()
	<-started
	m.answers("1")
	b.await("configured", relay.Status.Configured)
}
