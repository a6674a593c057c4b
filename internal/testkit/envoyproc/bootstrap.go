package envoyproc

import (
	"fmt"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
)

// Static is a bootstrap that holds the resources themselves in place of the stream they usually come by, so that Envoy judges and runs all of
// them without a control plane. admin is host:port of the admin interface; adapt may change each listener before it is used.
func Static(t testing.TB, r *envoy.Resources, adminHost string, adminPort uint32, adapt func(*listenerv3.Listener)) []byte {
	t.Helper()
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "test", Cluster: "test"},
		Admin: &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: adminHost, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: adminPort},
		}}}},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{},
	}
	runtime, err := structpb.NewStruct(bootstrap.Runtime())
	if err != nil {
		t.Fatalf("writing the runtime: %v", err)
	}
	b.LayeredRuntime = &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
		{Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime}},
	}}
	assignments := map[string]*endpointv3.ClusterLoadAssignment{}
	for _, res := range r.Endpoints {
		m := &endpointv3.ClusterLoadAssignment{}
		unpack(t, envoy.Message(res), m)
		assignments[res.Name] = m
	}
	routes := map[string]*routev3.RouteConfiguration{}
	for _, res := range r.Routes {
		m := &routev3.RouteConfiguration{}
		unpack(t, envoy.Message(res), m)
		routes[res.Name] = m
	}
	for _, res := range r.Clusters {
		m := &clusterv3.Cluster{}
		unpack(t, envoy.Message(res), m)
		if m.GetType() == clusterv3.Cluster_EDS {
			m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
			m.EdsClusterConfig = nil
			m.LoadAssignment = assignments[res.Name]
		}
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, m)
	}
	for _, res := range r.Secrets {
		m := &tlsv3.Secret{}
		unpack(t, envoy.Message(res), m)
		b.StaticResources.Secrets = append(b.StaticResources.Secrets, m)
	}
	for _, res := range r.Listeners {
		m := &listenerv3.Listener{}
		unpack(t, envoy.Message(res), m)
		chains := m.GetFilterChains()
		if m.GetDefaultFilterChain() != nil {
			chains = append(chains, m.GetDefaultFilterChain())
		}
		for _, c := range chains {
			inlineRoutes(t, c, routes)
			useStaticSecrets(t, c.GetTransportSocket())
		}
		if adapt != nil {
			adapt(m)
		}
		b.StaticResources.Listeners = append(b.StaticResources.Listeners, m)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatalf("writing the bootstrap: %v", err)
	}
	return text
}

// inlineRoutes puts the route configuration where the name of one was.
func inlineRoutes(t testing.TB, c *listenerv3.FilterChain, routes map[string]*routev3.RouteConfiguration) {
	t.Helper()
	for _, f := range c.GetFilters() {
		m := &hcmv3.HttpConnectionManager{}
		if !f.GetTypedConfig().MessageIs(m) {
			continue
		}
		unpack(t, f.GetTypedConfig(), m)
		if m.GetRds() == nil {
			continue
		}
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes[m.GetRds().GetRouteConfigName()]}
		body, err := anypb.New(m)
		if err != nil {
			t.Fatalf("packing %s: %v", f.GetName(), err)
		}
		f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: body}
	}
}

// useStaticSecrets has a listener look for its certificates in the bootstrap.
func useStaticSecrets(t testing.TB, socket *corev3.TransportSocket) {
	t.Helper()
	if socket == nil {
		return
	}
	m := &tlsv3.DownstreamTlsContext{}
	unpack(t, socket.GetTypedConfig(), m)
	for _, c := range m.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
		c.SdsConfig = nil
	}
	body, err := anypb.New(m)
	if err != nil {
		t.Fatalf("packing %s: %v", socket.GetName(), err)
	}
	socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: body}
}

func unpack(t testing.TB, body *anypb.Any, m proto.Message) {
	t.Helper()
	if err := body.UnmarshalTo(m); err != nil {
		t.Fatal(fmt.Errorf("unpacking %s: %w", body.GetTypeUrl(), err))
	}
}
