package envoy

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// defaultConnectTimeout is 0.2's.
const defaultConnectTimeout = time.Second

// upstreamHTTP is how requests are written to a cluster's instances.
type upstreamHTTP int

const (
	// notHTTP is for clusters that only carry connections.
	notHTTP upstreamHTTP = iota
	// asReceived speaks to the instance what the caller spoke.
	asReceived
	http1
	http2
)

// upstreamFor says what a caller's proxy speaks to a port. A port that promises HTTP/2 gets it; on a plain HTTP port the sidecar hands on what
// the application chose to speak, and a gateway, whose clients know nothing of the instance, speaks HTTP/1.1.
func upstreamFor(p model.Protocol, role model.ProxyType) upstreamHTTP {
	switch {
	case !p.IsHTTP():
		return notHTTP
	case p == model.HTTP2 || p == model.GRPC:
		return http2
	case role == model.Sidecar:
		return asReceived
	default:
		return http1
	}
}

// serviceCluster balances over a subset; its endpoints come by EDS.
func (b *Builder) serviceCluster(s subset, up upstreamHTTP, svc *model.Service, t treatment) *Resource {
	name := s.cluster()
	m := &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS(), ServiceName: name},
		ConnectTimeout:       duration(b.connectTimeout()),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// Without this Envoy would, as soon as most instances are unready, send to all of them.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
		},
		TypedExtensionProtocolOptions: httpOptions(up, t.breaker.MaxRequestsPerConnection),
	}
	t.apply(m)
	return newResource(name, m, append(t.refs, svc.Ref())...)
}

// inboundServiceCluster is the application's port, on the loopback interface as in 0.2.
func (b *Builder) inboundServiceCluster(port uint32, loopback string, http bool) *Resource {
	name := inboundCluster(port)
	up := notHTTP
	if http {
		up = asReceived
	}
	return newResource(name, &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       duration(b.connectTimeout()),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(loopback, port, corev3.HealthStatus_UNKNOWN)},
		}}},
		CircuitBreakers:               thresholds(model.Breaker{}),
		TypedExtensionProtocolOptions: httpOptions(up, 0),
	})
}

// passthrough connects to the original destination.
func (b *Builder) passthrough() *Resource {
	return newResource(passthroughCluster, &clusterv3.Cluster{
		Name:                          passthroughCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		ConnectTimeout:                duration(b.connectTimeout()),
		LbPolicy:                      clusterv3.Cluster_CLUSTER_PROVIDED,
		CircuitBreakers:               thresholds(model.Breaker{}),
		TypedExtensionProtocolOptions: httpOptions(asReceived, 0),
	})
}

// inboundPassthrough connects to a port of the application that no service points to. It leaves from 127.0.0.6 (::6), which the capture rules
// let through; from any other address the connection would come back to this proxy.
func (b *Builder) inboundPassthrough(v4, v6 bool) *Resource {
	var sources []*corev3.SocketAddress
	if v4 {
		sources = append(sources, socket("127.0.0.6", 0))
	}
	if v6 {
		sources = append(sources, socket("::6", 0))
	}
	bind := &corev3.BindConfig{SourceAddress: sources[0]}
	for _, s := range sources[1:] {
		bind.ExtraSourceAddresses = append(bind.ExtraSourceAddresses, &corev3.ExtraSourceAddress{Address: s})
	}
	return newResource(inboundPassthroughCluster, &clusterv3.Cluster{
		Name:                 inboundPassthroughCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		ConnectTimeout:       duration(b.connectTimeout()),
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		CircuitBreakers:      thresholds(model.Breaker{}),
		UpstreamBindConfig:   bind,
	})
}

// blackHole has no instances and never will.
func (b *Builder) blackHole() *Resource {
	return newResource(blackHoleCluster, &clusterv3.Cluster{
		Name:                 blackHoleCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       duration(b.connectTimeout()),
	})
}

func (b *Builder) connectTimeout() time.Duration {
	if t := b.settings().ConnectTimeout; t > 0 {
		return t
	}
	return defaultConnectTimeout
}

// httpOptions are how requests are written, if they are.
func httpOptions(up upstreamHTTP, perConnection uint32) map[string]*anypb.Any {
	if up == notHTTP {
		return nil
	}
	return packOptions(httpProtocol(up, perConnection))
}

func packOptions(options *upstreamv3.HttpProtocolOptions) map[string]*anypb.Any {
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(options)}
}

// httpProtocol is how requests are written. A connection ends after perConnection requests unless that is 0.
func httpProtocol(up upstreamHTTP, perConnection uint32) *upstreamv3.HttpProtocolOptions {
	options := &upstreamv3.HttpProtocolOptions{}
	if perConnection > 0 {
		options.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{MaxRequestsPerConnection: wrapperspb.UInt32(perConnection)}
	}
	// The upgrade of a websocket is an extended CONNECT in HTTP/2.
	h2 := &corev3.Http2ProtocolOptions{AllowConnect: true}
	switch up {
	case notHTTP:
	case asReceived:
		options.UpstreamProtocolOptions = &upstreamv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstreamv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
				Http2ProtocolOptions: h2,
			},
		}
	case http1:
		options.UpstreamProtocolOptions = explicitly(&upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		})
	case http2:
		options.UpstreamProtocolOptions = explicitly(&upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2},
		})
	}
	return options
}

func explicitly(c *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig) *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_ {
	return &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: c}
}

// fromADS says that a resource comes over the one stream to the control plane.
func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func socket(address string, port uint32) *corev3.SocketAddress {
	return &corev3.SocketAddress{Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}
}

func address(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: socket(host, port)}}
}
