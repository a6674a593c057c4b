package envoy

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// IngressHTTPSPort is the port on which an ingress gateway takes HTTP over TLS.
const IngressHTTPSPort = 8443

// tlsHosts are the certificates of the gateways by host.
type tlsHosts map[string]*model.IngressTLS

func (b *Builder) tlsHosts() tlsHosts {
	out := tlsHosts{}
	for _, t := range b.ingressTLS() {
		out[t.Host] = t
	}
	return out
}

// of is what a connection for the host meets: what is said of the host itself, of the star in place of its first label, or of all others. Nil when
// connections for it are not answered.
func (h tlsHosts) of(host string) *model.Certificate {
	_, parent, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + parent, anyHost} {
		if t := h[name]; t != nil {
			return t.Certificate
		}
	}
	return nil
}

// certificates are those in use, by name.
func (h tlsHosts) certificates() []*model.Certificate {
	var out []*model.Certificate
	for _, t := range h {
		if t.Certificate != nil {
			out = append(out, t.Certificate)
		}
	}
	slices.SortFunc(out, func(a, b *model.Certificate) int { return strings.Compare(certificateKey(a), certificateKey(b)) })
	return slices.CompactFunc(out, sameCertificate)
}

func sameCertificate(a, b *model.Certificate) bool {
	return a == b || a != nil && b != nil && certificateKey(a) == certificateKey(b)
}

// ingressSecrets are the certificates of all hosts.
func (b *Builder) ingressSecrets() []*Resource {
	var out []*Resource
	for _, c := range b.tlsHosts().certificates() {
		out = append(out, secret(c))
	}
	return byName(out)
}

// ingressTLSListener takes HTTP over TLS from outside of the mesh. Each certificate has a chain of its own, so that a change to one leaves the
// connections of the others alone. Nil when no host is served over TLS.
func (b *Builder) ingressTLSListener(v4, v6 bool) *Resource {
	if len(b.ingressTLS()) == 0 {
		return nil
	}
	l := bound(listenerName("0.0.0.0", IngressHTTPSPort), IngressHTTPSPort, v4, v6)
	l.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       tlsInspectorName,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&tlsinspectorv3.TlsInspector{})},
	}}
	var refs []model.Ref
	names := map[string][]string{}
	var closed []string
	others := b.tlsHosts()[anyHost]
	for _, t := range b.ingressTLS() {
		refs = append(refs, t.Ref)
		switch {
		case t.Certificate == nil && t.Host != anyHost:
			closed = append(closed, t.Host)
		case t.Certificate != nil && t.Host != anyHost:
			key := certificateKey(t.Certificate)
			names[key] = append(names[key], t.Host)
		}
	}
	for _, c := range b.tlsHosts().certificates() {
		refs = append(refs, c.Ref)
		if hosts := names[certificateKey(c)]; len(hosts) > 0 {
			fc := b.ingressTLSChain(c)
			fc.FilterChainMatch = &listenerv3.FilterChainMatch{ServerNames: hosts}
			l.FilterChains = append(l.FilterChains, fc)
		}
	}
	if len(closed) > 0 {
		// Without these names a client would meet the certificate of a wildcard or of all others, which is another's.
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			Name: "no-certificate", FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: closed},
			Filters: []*listenerv3.Filter{tcpProxy("ingress_no_certificate", blackHoleCluster)},
		})
	}
	switch {
	case others != nil && others.Certificate != nil:
		l.DefaultFilterChain = b.ingressTLSChain(others.Certificate)
		l.DefaultFilterChain.Name = "others"
	case len(l.FilterChains) == 0:
		l.DefaultFilterChain = &listenerv3.FilterChain{Name: "no-certificate", Filters: []*listenerv3.Filter{tcpProxy("ingress_no_certificate", blackHoleCluster)}}
	}
	return newResource(l.Name, l, refs...)
}

// ingressTLSChain serves the hosts of a certificate.
func (b *Builder) ingressTLSChain(c *model.Certificate) *listenerv3.FilterChain {
	m := b.ingressManager("ingress_https")
	m.RouteSpecifier = rds(secureRoutes(c))
	return &listenerv3.FilterChain{
		Name:    certificateKey(c),
		Filters: []*listenerv3.Filter{rememberAddresses(), network(hcmFilter, m)},
		TransportSocket: &corev3.TransportSocket{Name: tlsSocketName, ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: pack(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: &tlsv3.TlsParameters{
					TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
					TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
					// For TLS 1.2: keys that are forgotten, and ciphers that authenticate. Those of 1.3 are all such.
					CipherSuites: []string{
						"[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
						"[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
						"ECDHE-ECDSA-AES256-GCM-SHA384",
						"ECDHE-RSA-AES256-GCM-SHA384",
					},
				},
				AlpnProtocols:                  []string{"h2", "http/1.1"},
				TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: secretName(c), SdsConfig: fromADS()}},
			}}),
		}},
	}
}

// secureRoutes names the route configuration of connections that were made with the certificate.
func secureRoutes(c *model.Certificate) string {
	return "ingress.8443." + c.Ref.Namespace + "." + c.Ref.Name
}

// ingressOwn is what a gateway has for itself. One that has not proved who it is gets no keys, and so not the listener that needs them.
func (b *Builder) ingressOwn(v4, v6, unproven bool) []*Resource {
	listeners := b.ingressListeners(v4, v6)
	if unproven {
		return slices.DeleteFunc(listeners, func(l *Resource) bool { return l.Name == listenerName("0.0.0.0", IngressHTTPSPort) })
	}
	return append(listeners, b.ingressSecrets()...)
}
