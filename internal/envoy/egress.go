package envoy

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

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

// wildcard says whether the host stands for many, so that only the caller knows which one was meant and at what address.
func (e externalPort) wildcard() bool { return strings.HasPrefix(e.Host, "*") }

func (e externalPort) cluster() string {
	return "external|" + strconv.FormatUint(uint64(e.port.Number), 10) + "|" + e.Host
}

// externalCluster connects to a host outside of the mesh: to all addresses that its name has, or for a wildcard to where the caller was going.
func (c *caller) externalCluster(e externalPort) *Resource {
	t := c.treatment(e.Host, nil)
	up := asReceived
	if e.port.Protocol == model.HTTP2 || e.port.Protocol == model.GRPC {
		up = http2
	}
	options := httpProtocol(up, t.breaker.MaxRequestsPerConnection)
	m := &clusterv3.Cluster{
		Name:           e.cluster(),
		ConnectTimeout: duration(c.b.connectTimeout()),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}},
	}
	if e.wildcard() {
		m.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		m.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		// The addresses are the callers'; there is nothing to choose from, and panic is about choosing.
		m.CommonLbConfig = nil
		t.limit(m)
	} else {
		m.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: dnsName, TypedConfig: pack(&dnsv3.DnsCluster{
				RespectDnsTtl: true,
				// A pod may have no way to IPv6 where the host does.
				DnsLookupFamily: commondnsv3.DnsLookupFamily_V4_PREFERRED,
			}),
		}}
		m.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: e.cluster(), Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{lbEndpoint(e.Host, e.port.Number, corev3.HealthStatus_UNKNOWN)},
		}}}
		t.apply(m)
	}
	if e.port.Protocol == model.HTTPS {
		m.TransportSocket = c.b.originateTLS(e)
		if e.wildcard() {
			options.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: true}
		}
	}
	m.TypedExtensionProtocolOptions = packOptions(options)
	return newResource(m.GetName(), m, append(t.refs, e.Ref)...)
}

// originateTLS speaks TLS to the host and believes it only with a certificate for its name from an authority that the proxy trusts. For a
// wildcard name and check come from the request.
func (b *Builder) originateTLS(e externalPort) *corev3.TransportSocket {
	validation := &tlsv3.CertificateValidationContext{TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: b.roots()}}}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}}
	if !e.wildcard() {
		kind := tlsv3.SubjectAltNameMatcher_DNS
		if _, err := netip.ParseAddr(e.Host); err == nil {
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

// addExternals adds the clusters of the hosts outside that wanted lets through.
func (c *caller) addExternals(r *Resources, wanted func(host string) bool) {
	for _, port := range c.b.httpPorts {
		for _, e := range c.b.externalsAt(port) {
			if wanted(e.Host) {
				r.Clusters = append(r.Clusters, c.externalCluster(e))
			}
		}
	}
}

// originates says whether requests that come to port may leave it as HTTPS.
func (b *Builder) originates(port uint32) bool {
	return slices.ContainsFunc(b.externalsAt(port), func(e externalPort) bool { return e.port.Protocol == model.HTTPS })
}

// letTLSPass lets connections through that are TLS already, on a port where HTTP is expected to become it: the application may also do it itself.
func letTLSPass(l *listenerv3.Listener, m *hcmv3.HttpConnectionManager, port uint32) {
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       tlsInspectorName,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
	}}
	tls := chain(tcpProxy("outbound_tls_"+routeName(port), passthroughCluster))
	tls.Name = "tls"
	tls.FilterChainMatch = &listenerv3.FilterChainMatch{TransportProtocol: "tls"}
	l.FilterChains = []*listenerv3.FilterChain{tls}
	// What leaves by TLS is https to the host, and on the port of https its name stands alone.
	m.SchemeHeaderTransformation = &corev3.SchemeHeaderTransformation{MatchUpstream: true}
	if port == httpsPort {
		m.StripMatchingHostPort = true
	}
}

const httpsPort = 443
