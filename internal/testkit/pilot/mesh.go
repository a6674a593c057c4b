package pilot

import (
	"context"
	"fmt"
	"io"
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

	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

// Patience bounds every wait; nothing is expected to take it.
const Patience = 20 * time.Second

// Mesh is one listener, one route, one cluster and its endpoint, with a header that tells configurations apart.
type Mesh struct {
	t testing.TB
	// Port is the listener's.
	Port int
	// App is the address of the application.
	App string
	// Admin is a free port for the administration.
	Admin int
	// VirtualHosts gives proxies theirs on their own.
	VirtualHosts bool
}

// NewMesh starts the application; the listener comes with an Envoy.
func NewMesh(t testing.TB) *Mesh {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(app.Close)
	return &Mesh{t: t, Port: freeport.For(t), Admin: freeport.For(t), App: app.Listener.Addr().String()}
}

// Snapshot is the configuration; version is in a header of every response.
func (m *Mesh) Snapshot(version string) *resource.Snapshot {
	host, port, _ := strings.Cut(m.App, ":")
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
	listener := &listenerv3.Listener{Name: "in", Address: address("127.0.0.1", m.Port), FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(m.t, manager)}}}}}}
	var hosts resource.Group
	if m.VirtualHosts {
		all := route.GetVirtualHosts()[0]
		all.Name = "in/all"
		hosts = resource.Group{resource.NewSet(Resource(m.t, all.GetName(), all))}
		route.VirtualHosts, route.Vhds = nil, &routev3.Vhds{ConfigSource: ads}
	}
	return &resource.Snapshot{
		VirtualHosts: hosts,
		Clusters:     resource.Group{resource.NewSet(Resource(m.t, "app", cluster))}, Endpoints: resource.Group{resource.NewSet(Resource(m.t, "app", endpoints))},
		Listeners: resource.Group{resource.NewSet(Resource(m.t, "in", listener))}, Routes: resource.Group{resource.NewSet(Resource(m.t, "in", route))},
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

// Get asks through Envoy and returns the configuration that answered.
func (m *Mesh) Get(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprint("http://127.0.0.1:", m.Port, "/"), nil)
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

// Answers waits until requests are answered by the configuration.
func (m *Mesh) Answers(version string) {
	m.t.Helper()
	Eventually(m.t, "requests answered by configuration "+version, func() error {
		got, err := m.Get(m.t.Context())
		if err == nil && got != version {
			err = fmt.Errorf("answered by %q", got)
		}
		return err
	})
}

// Load keeps asking until stop is called, which fails the test when a request was not answered.
func (m *Mesh) Load() (stop func()) {
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	var asked, failed atomic.Int64
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := m.Get(context.WithoutCancel(ctx)); err != nil {
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

// Eventually polls for what cannot be waited for.
func Eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
