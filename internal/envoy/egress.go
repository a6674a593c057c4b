package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// Names of what is needed to leave the mesh.
const (
	dnsName          = "envoy.clusters.dns"
	tlsSocketName    = "envoy.transport_sockets.tls"
	tlsInspectorName = "envoy.filters.listener.tls_inspector"
)

// defaultRoots is where a proxy finds the certificates of the authorities it trusts.
const defaultRoots = "/etc/ssl/certs/ca-certificates.crt"

// externalPort is a port of a host outside of the mesh.
type externalPort struct {
	*model.External
	port model.Port
}

// cluster is for requests, which leave as TLS from a port of HTTPS, and for connections of TCP.
func (e externalPort) cluster() string {
	return "external|" + strconv.FormatUint(uint64(e.port.Number), 10) + "|" + e.Host
}

// tlsCluster is for connections that are TLS already.
func (e externalPort) tlsCluster() string {
	return "external-tls|" + strconv.FormatUint(uint64(e.port.Number), 10) + "|" + e.Host
}

// isHTTP says whether requests to the port are routed one by one.
func (e externalPort) isHTTP() bool {
	return e.port.Protocol.IsHTTP() || e.port.Protocol == model.HTTPS
}

// needsAny says whether the port needs a listener for all addresses: the host has not just one.
func (e externalPort) needsAny() bool {
	_, one := e.Address()
	return !e.isTCP() || !one
}

// isTCP says whether the port is told by the host's address alone.
func (e externalPort) isTCP() bool { return e.port.Protocol == model.TCP }

// serverName is what connections that are TLS already ask for; false when the port has none such.
func (e externalPort) serverName() (string, bool) {
	if e.port.Protocol != model.HTTPS && e.port.Protocol != model.TLS {
		return "", false
	}
	return e.ServerName()
}

// externalClusters connect to a host outside of the mesh, for requests and for connections that are TLS already.
func (c *caller) externalClusters(e externalPort) []*Resource {
	var out []*Resource
	if e.port.Protocol != model.TLS {
		out = append(out, c.externalCluster(e))
	}
	if _, ok := e.serverName(); ok {
		t := c.treatment(e.Host, nil)
		m := c.reaching(e, e.tlsCluster(), t)
		out = append(out, newResource(m.GetName(), m, append(t.refs, e.Ref)...))
	}
	return out
}

func (c *caller) externalCluster(e externalPort) *Resource {
	t := c.treatment(e.Host, nil)
	m := c.reaching(e, e.cluster(), t)
	if e.isTCP() {
		return newResource(m.GetName(), m, append(t.refs, e.Ref)...)
	}
	up := asReceived
	if e.port.Protocol == model.HTTP2 || e.port.Protocol == model.GRPC {
		up = http2
	}
	options := httpProtocol(up, t.breaker.MaxRequestsPerConnection)
	if e.port.Protocol == model.HTTPS {
		m.TransportSocket = c.b.originateTLS(e)
		if e.Wildcard() {
			options.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: true}
		}
	}
	m.TypedExtensionProtocolOptions = packOptions(options)
	return newResource(m.GetName(), m, append(t.refs, e.Ref)...)
}

// reaching is a cluster of all addresses that the host's name has, or for a wildcard or subnet of the one to which the caller was going.
func (c *caller) reaching(e externalPort, name string, t treatment) *clusterv3.Cluster {
	m := &clusterv3.Cluster{Name: name, ConnectTimeout: duration(c.b.connectTimeout())}
	if _, subnet := e.Subnet(); subnet || e.Wildcard() {
		// The addresses are the callers'; there is nothing to choose from.
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		t.limit(m)
		return m
	}
	resolved(m, e.Host, e.port.Number)
	t.apply(m)
	return m
}

// resolved makes m a cluster of all addresses that host has.
func resolved(m *clusterv3.Cluster, host string, port uint32) {
	m.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}}
	m.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: m.GetName(), Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(host, port, corev3.HealthStatus_UNKNOWN)},
	}}}
	if _, err := netip.ParseAddr(host); err == nil {
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		return
	}
	m.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: dnsName, TypedConfig: pack(&dnsv3.DnsCluster{
			RespectDnsTtl: true,
			// A pod may have no way to IPv6 where the host does.
			DnsLookupFamily: commondnsv3.DnsLookupFamily_V4_PREFERRED,
		}),
	}}
}

// originateTLS speaks TLS to the host and believes it only with a certificate for its name from an authority that the proxy trusts. For a
// wildcard name and check come from the request.
func (b *Builder) originateTLS(e externalPort) *corev3.TransportSocket {
	validation := &tlsv3.CertificateValidationContext{TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.roots()}}}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}}
	if !e.Wildcard() {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if _, ok := e.Address(); ok {
			kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		} else {
			context.Sni = e.Host
		}
		validation.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{{
			SanType: kind,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: e.Host}},
		}}
	}
	return &corev3.TransportSocket{Name: tlsSocketName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(context)}}
}

func (b *Builder) roots() string {
	return cmp.Or(b.settings().Roots, defaultRoots)
}

// originates says whether requests that come to port may leave it as HTTPS.
func (b *Builder) originates(port uint32) bool {
	return slices.ContainsFunc(b.externalsAt(port), func(e externalPort) bool { return e.port.Protocol == model.HTTPS })
}

// tellsTLS says whether connections to port that are TLS already are told apart by the name they ask for.
func (b *Builder) tellsTLS(port uint32) bool {
	return slices.ContainsFunc(b.externalsAt(port), func(e externalPort) bool {
		return e.port.Protocol == model.HTTPS || e.port.Protocol == model.TLS
	})
}

// letTLSPass lets connections through that are TLS already, to the hosts that may be called at the port, and others as unknown ones anywhere: what
// passes without a rule must not break because a rule for another host came.
func (b *Builder) letTLSPass(l *listenerv3.Listener, port uint32) {
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       tlsInspectorName,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
	}}
	others := b.unknown("outbound_tls_" + routeName(port))
	for _, e := range b.externalsAt(port) {
		name, ok := e.serverName()
		switch {
		case !ok:
		case name == "*":
			others = chain(tcpProxy("outbound_tls_"+routeName(port), e.tlsCluster()))
		default:
			c := chain(tcpProxy("outbound_tls_"+routeName(port), e.tlsCluster()))
			c.Name = "tls " + name
			c.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "tls", ServerNames: []string{name}}
			l.FilterChains = append(l.FilterChains, c)
		}
	}
	others.Name = "tls"
	others.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
	l.FilterChains = append(l.FilterChains, others)
}

// unknown takes connections that neither a service nor an EgressRule is for.
func (b *Builder) unknown(statPrefix string) *listenerv3.FilterChain {
	if !b.settings().Closed {
		return chain(tcpProxy(statPrefix, passthroughCluster))
	}
	refuse := &tcpv3.TcpProxy{
		StatPrefix:       "refused",
		ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: blackHoleCluster},
		AccessLog: b.accessLogOf("[%START_TIME%] refused a connection to %DOWNSTREAM_LOCAL_ADDRESS%, TLS name %REQUESTED_SERVER_NAME%: " +
			"no service or rule in the mesh is for it; a host outside of the mesh needs an EgressRule\n"),
	}
	return chain(network(tcpFilter, refuse))
}

// unknownHosts is for requests that neither a service nor an EgressRule is for.
func (b *Builder) unknownHosts(port uint32) *routev3.VirtualHost {
	vh := &routev3.VirtualHost{Name: "unknown", Domains: []string{"*"}}
	if !b.settings().Closed {
		// Who asks for an address has not asked for a name: a pod by its IP, a metrics endpoint. The connection goes where it was going.
		vh.Routes = append(vh.Routes, passthroughRoute([]*routev3.HeaderMatcher{regexHeader(authorityHeader, `([0-9.]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?`)}))
	}
	vh.Routes = append(vh.Routes, notFound("no service or rule in the mesh for host %REQ(:AUTHORITY)% on port "+routeName(port)+
		"; a host outside of the mesh needs an EgressRule"))
	return vh
}

// carrySubnets adds to the listener of a port for all addresses the chains of the subnets that may be called there. The addresses of HTTP services in
// them stay theirs.
func (b *Builder) carrySubnets(l *listenerv3.Listener, port uint32, http ...*listenerv3.Filter) {
	var subnets []netip.Prefix
	for _, e := range b.externalsAt(port) {
		subnet, ok := e.Subnet()
		if !ok {
			continue
		}
		subnets = append(subnets, subnet)
		c := chain(tcpProxy("outbound_"+routeName(port), e.cluster()))
		c.Name = "to " + e.Host
		c.FilterChainMatch = &listenerv3.FilterChainMatch{PrefixRanges: []*corev3.CidrRange{cidr(subnet)}}
		l.FilterChains = append(l.FilterChains, c)
	}
	if len(subnets) == 0 || len(http) == 0 {
		return
	}
	services := chain(http...)
	services.Name = "services"
	services.FilterChainMatch = &listenerv3.FilterChainMatch{}
	for _, a := range b.addressesAt(port) {
		if slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) }) {
			services.FilterChainMatch.PrefixRanges = append(services.FilterChainMatch.PrefixRanges, cidr(netip.PrefixFrom(a, a.BitLen())))
		}
	}
	if len(services.FilterChainMatch.PrefixRanges) > 0 {
		l.FilterChains = append(l.FilterChains, services)
	}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

const httpsPort = 443
