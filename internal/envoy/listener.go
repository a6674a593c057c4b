package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// Names of the filters, which must be those of the typed configuration.
const (
	corsFilter   = "envoy.filters.http.cors"
	luaFilter    = "envoy.filters.http.lua"
	faultFilter  = "envoy.filters.http.fault"
	routerFilter = "envoy.filters.http.router"
	hcmFilter    = "envoy.filters.network.http_connection_manager"
	tcpFilter    = "envoy.filters.network.tcp_proxy"
	origDstName  = "envoy.filters.listener.original_dst"
)

// virtualOutbound receives all captured outbound connections and hands each to the listener of its original destination: address and port,
// else any address and the port. What no listener is for goes on to where it was going.
func (b *Builder) virtualOutbound(v4, v6 bool) *Resource {
	l := bound("virtualOutbound", outboundPort, v4, v6)
	l.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	l.UseOriginalDst = wrapperspb.Bool(true)
	// A connection made to this port itself was not captured; passing it through would bring it back here, for ever.
	l.FilterChains = []*listenerv3.FilterChain{toPort(outboundPort, tcpProxy("blackhole", blackHoleCluster))}
	l.DefaultFilterChain = b.unknown("passthrough")
	return newResource(l.Name, l)
}

// outboundAny takes connections to a port whatever their address: HTTP services and hosts outside of the mesh have it. Requests are routed by their
// Host.
func (b *Builder) outboundAny(port uint32) *Resource {
	l := unbound("0.0.0.0", port)
	l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::", port)}}
	if b.tellsTLS(port) {
		b.letTLSPass(l, port)
	}
	if !b.isHTTP(port) {
		b.carrySubnets(l, port)
		l.DefaultFilterChain = b.unknown("outbound_" + routeName(port))
		return newResource(l.Name, l)
	}
	m := b.connectionManager("outbound_" + routeName(port))
	m.RouteSpecifier = rds(routeName(port))
	m.StripTrailingHostDot = true
	if b.originates(port) {
		// What leaves by TLS is https to the host, and on the port of https its name stands alone.
		m.SchemeHeaderTransformation = &corev3.SchemeHeaderTransformation{MatchUpstream: true}
		m.StripMatchingHostPort = port == httpsPort
	}
	all := chain(rememberAddresses(), network(hcmFilter, m))
	if !b.saysHTTP(port) {
		// Only services that do not say what they speak have the port.
		b.detect(l)
		all = whenHTTP(all)
		l.DefaultFilterChain = b.unknown("passthrough")
	}
	b.carrySubnets(l, port, all.GetFilters()...)
	l.FilterChains = append(l.FilterChains, all)
	return newResource(l.Name, l)
}

// outboundTCP takes connections to one address and port that is not HTTP.
func outboundTCP(host string, port uint32, cluster string, from model.Ref) *Resource {
	l := unbound(host, port)
	m := tcpProxyTo("outbound_"+routeName(port), cluster)
	// A cluster that picks by a hash picks by this; others do not look at it.
	m.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	l.FilterChains = []*listenerv3.FilterChain{chain(network(tcpFilter, m))}
	return newResource(l.Name, l, from)
}

// unbound is a listener that only gets what virtualOutbound hands it.
func unbound(host string, port uint32) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:             listenerName(host, port),
		Address:          address(host, port),
		BindToPort:       wrapperspb.Bool(false),
		TrafficDirection: corev3.TrafficDirection_OUTBOUND,
	}
}

// bound is a listener on all addresses of the families.
func bound(name string, port uint32, v4, v6 bool) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: name}
	switch {
	case v4 && v6:
		l.Address = address("0.0.0.0", port)
		l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: address("::", port)}}
	case v6:
		l.Address = address("::", port)
	default:
		l.Address = address("0.0.0.0", port)
	}
	return l
}

// connectionManager has what all HTTP listeners have in common; the caller says where its routes come from.
func (b *Builder) connectionManager(statPrefix string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: statPrefix,
		HttpFilters: []*hcmv3.HttpFilter{
			dormant(httpFilter(corsFilter, &corsv3.Cors{})),
			dormant(httpFilter(luaFilter, &luav3.Lua{})),
			dormant(httpFilter(faultFilter, &faultv3.HTTPFault{})),
			httpFilter(routerFilter, &routerv3.Router{}),
		},
		HttpProtocolOptions:  &corev3.Http1ProtocolOptions{AcceptHttp_10: true},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true},
		UpgradeConfigs:       []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		// Streams may be silent for as long as they like; it is for the application to give up on them.
		StreamIdleTimeout: durationpb.New(0),
		GenerateRequestId: wrapperspb.Bool(true),
		AccessLog:         b.accessLog(),
	}
}

func (b *Builder) accessLog() []*accesslogv3.AccessLog { return b.accessLogOf("") }

// accessLogOf writes lines of a format, Envoy's own when it is empty.
func (b *Builder) accessLogOf(format string) []*accesslogv3.AccessLog {
	var line *corev3.SubstitutionFormatString
	if format != "" {
		line = &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}},
		}}
	}
	var name string
	var config proto.Message
	switch file := b.settings().AccessLog; file {
	case "":
		return nil
	case "/dev/stdout":
		// Opening the file would need the right to reopen the container's pipe, which a non-root proxy may not have.
		c := &streamlogv3.StdoutAccessLog{}
		if line != nil {
			c.AccessLogFormat = &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: line}
		}
		name, config = "envoy.access_loggers.stdout", c
	case "/dev/stderr":
		c := &streamlogv3.StderrAccessLog{}
		if line != nil {
			c.AccessLogFormat = &streamlogv3.StderrAccessLog_LogFormat{LogFormat: line}
		}
		name, config = "envoy.access_loggers.stderr", c
	default:
		c := &filelogv3.FileAccessLog{Path: file}
		if line != nil {
			c.AccessLogFormat = &filelogv3.FileAccessLog_LogFormat{LogFormat: line}
		}
		name, config = "envoy.access_loggers.file", c
	}
	return []*accesslogv3.AccessLog{{Name: name, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(config)}}}
}

func rds(name string) *hcmv3.HttpConnectionManager_Rds {
	return &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: fromADS(), RouteConfigName: name}}
}

func inline(config *routev3.RouteConfiguration) *hcmv3.HttpConnectionManager_RouteConfig {
	return &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: config}
}

func chain(filters ...*listenerv3.Filter) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{Filters: filters}
}

// toPort is a chain for connections whose original destination is port.
func toPort(port uint32, filters ...*listenerv3.Filter) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             routeName(port),
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(port)},
		Filters:          filters,
	}
}

// tcpProxy copies bytes. An idle connection is not cut: databases keep some for hours.
func tcpProxy(statPrefix, cluster string) *listenerv3.Filter {
	return network(tcpFilter, tcpProxyTo(statPrefix, cluster))
}

func tcpProxyTo(statPrefix, cluster string) *tcpv3.TcpProxy {
	return &tcpv3.TcpProxy{
		StatPrefix:       statPrefix,
		ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: cluster},
		IdleTimeout:      durationpb.New(0),
	}
}

func network(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(config)}}
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

// dormant makes a filter that acts only on routes that have a configuration for it, and costs the others nothing.
func dormant(f *hcmv3.HttpFilter) *hcmv3.HttpFilter {
	f.Disabled = true
	return f
}
