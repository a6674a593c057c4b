package envoy

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// identityHeaders claim who a caller is; from outside of the mesh they are lies.
func identityHeaders() []string {
	return []string{"x-forwarded-client-cert", "x-istio-attributes"}
}

// anyHost is the host of a path or certificate for all that no other names.
const anyHost = "*"

// ingressListeners take what comes from outside of the mesh.
func (b *Builder) ingressListeners(v4, v6 bool) []*Resource {
	l := bound(listenerName("0.0.0.0", IngressHTTPPort), IngressHTTPPort, v4, v6)
	l.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	m := b.ingressManager("ingress_http")
	m.RouteSpecifier = rds(ingressRoutes)
	l.FilterChains = []*listenerv3.FilterChain{chain(rememberAddresses(), network(hcmFilter, m))}
	out := []*Resource{newResource(l.Name, l)}
	if secure := b.ingressTLSListener(v4, v6); secure != nil {
		out = append(out, secure)
	}
	return byName(out)
}

// ingressManager has what the listeners of a gateway have in common.
func (b *Builder) ingressManager(statPrefix string) *hcmv3.HttpConnectionManager {
	m := b.connectionManager(statPrefix)
	m.UseRemoteAddress = wrapperspb.Bool(true)
	m.NormalizePath = wrapperspb.Bool(true)
	m.StripTrailingHostDot = true
	// Out there are clients that vanish, and such as mean to.
	m.RequestHeadersTimeout = durationpb.New(10 * time.Second)
	m.StreamIdleTimeout = durationpb.New(time.Hour)
	m.Http2ProtocolOptions.MaxConcurrentStreams = wrapperspb.UInt32(maxIngressStreams)
	// Nobody out there may steer the proxy with its own headers (x-envoy-max-retries and the like), whatever address they come from.
	m.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "127.0.0.1", PrefixLen: wrapperspb.UInt32(32)}},
	}
	return m
}

// maxIngressStreams bounds the requests under way on one connection from outside; RFC 9113 asks for no fewer than 100.
const maxIngressStreams = 100

// ingressTable is what a route configuration of the gateways answers.
type ingressTable struct {
	name string
	// secure tells requests over TLS from those in the clear.
	secure bool
	hosts  []string
	// foreign are hosts under a star of hosts, of which connections are made with another certificate.
	foreign []string
	// others says that hosts that nobody names are answered here.
	others bool
}

// ingressPaths are the paths of all Ingresses by host, in the order they are tried; defaults are the default backends among them.
type ingressPaths struct {
	paths, defaults map[string][]*model.IngressRoute
}

func (b *Builder) ingressPaths(secure bool) ingressPaths {
	p := ingressPaths{paths: map[string][]*model.IngressRoute{}, defaults: map[string][]*model.IngressRoute{}}
	for _, in := range b.ingress() {
		if secure && !in.Secure || !secure && !in.Plain && !in.ToSecure {
			continue
		}
		host := strings.ToLower(in.Host)
		if in.Default {
			p.defaults[host] = append(p.defaults[host], in)
		} else {
			p.paths[host] = append(p.paths[host], in)
		}
	}
	return p
}

func (p ingressPaths) hosts() []string {
	out := slices.AppendSeq(slices.Collect(maps.Keys(p.paths)), maps.Keys(p.defaults))
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(host string) bool { return host == anyHost })
}

// ingressRoutes are a route configuration for requests in the clear, and one for each certificate: over a connection that was made for one host only
// those are answered that have the same certificate, and for others the client is told to make another connection (RFC 9110, 15.5.20).
func (c *caller) ingressRoutes() []*Resource {
	plain := c.b.ingressPaths(false)
	out := []*Resource{c.ingressTable(ingressTable{name: ingressRoutes, hosts: plain.hosts(), others: true}, plain)}
	secure, tls := c.b.ingressPaths(true), c.b.tlsHosts()
	all := slices.AppendSeq(secure.hosts(), maps.Keys(tls))
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(host string) bool { return host == anyHost })
	for _, cert := range tls.certificates() {
		t := ingressTable{name: secureRoutes(cert), secure: true, others: sameCertificate(cert, tls.of(anyHost))}
		var rest []string
		for _, host := range all {
			if sameCertificate(cert, tls.of(host)) {
				t.hosts = append(t.hosts, host)
			} else {
				rest = append(rest, host)
			}
		}
		for _, host := range rest {
			if t.others || slices.ContainsFunc(t.hosts, func(h string) bool { return h[0] == '*' && strings.HasSuffix(host, h[1:]) }) {
				t.foreign = append(t.foreign, host)
			}
		}
		out = append(out, c.ingressTable(t, secure))
	}
	return byName(out)
}

// ingressTable is a route configuration: a virtual host for each host, then one for any other. The destination's rules apply to what an
// Ingress lets through.
func (c *caller) ingressTable(t ingressTable, p ingressPaths) *Resource {
	config := &routev3.RouteConfiguration{
		Name:                     t.name,
		IgnorePortInHostMatching: true,
		RequestHeadersToRemove:   identityHeaders(),
		ResponseHeadersToRemove:  []string{unprocessedHeader},
	}
	var refs []model.Ref
	hosts := t.hosts
	if t.others {
		hosts = append([]string{anyHost}, hosts...)
	}
	for _, host := range hosts {
		vh := &routev3.VirtualHost{Name: host, Domains: []string{host}, RetryPolicy: defaultRetryPolicy()}
		add := func(host string) {
			condition := wildcardCondition(host)
			for _, in := range p.of(host) {
				vh.Routes = append(vh.Routes, c.ingressPath(in, condition, t.secure)...)
				refs = append(refs, in.Ref)
				for _, rule := range c.rulesFor(in.Service) {
					refs = append(refs, rule.Ref)
				}
				if pathOf(in).takesAll() {
					return
				}
			}
			none := notFound("no Ingress of the mesh takes host %REQ(:AUTHORITY)% and this path")
			none.Match.Headers = condition
			vh.Routes = append(vh.Routes, none)
		}
		add(host)
		if len(wildcardCondition(host)) > 0 {
			// With more labels than the star stands for it is a host that nobody names.
			add(anyHost)
		}
		config.VirtualHosts = append(config.VirtualHosts, vh)
	}
	if !t.others {
		t.foreign = append(t.foreign, anyHost)
	}
	if len(t.foreign) > 0 {
		config.VirtualHosts = append(config.VirtualHosts, &routev3.VirtualHost{Name: "misdirected", Domains: t.foreign, Routes: []*routev3.Route{misdirected()}})
	}
	return newResource(config.Name, config, refs...)
}

// of are the paths that requests for host meet, in the order they are tried: its own, its default backend's, that of all hosts.
func (p ingressPaths) of(host string) []*model.IngressRoute {
	first := func(in []*model.IngressRoute) []*model.IngressRoute { return in[:min(1, len(in))] }
	out := slices.Concat(p.paths[host], first(p.defaults[host]))
	if host != anyHost {
		out = append(out, first(p.defaults[anyHost])...)
	}
	return out
}

// wildcardCondition holds for one label in place of the star of an Ingress's host. Envoy's star takes any number.
func wildcardCondition(host string) []*routev3.HeaderMatcher {
	suffix, wildcard := strings.CutPrefix(host, "*.")
	if !wildcard {
		return nil
	}
	return []*routev3.HeaderMatcher{regexHeader(authorityHeader, `[^.]+\.`+regexp.QuoteMeta(suffix)+`(:[0-9]+)?`)}
}

// misdirected answers 421 and says why.
func misdirected() *routev3.Route {
	r := notFound("this connection was made for another host than %REQ(:AUTHORITY)%, with another certificate")
	r.Name = "misdirected"
	r.GetDirectResponse().Status = http.StatusMisdirectedRequest
	return r
}

func pathOf(in *model.IngressRoute) pathMatch {
	return pathMatch{kind: in.PathKind, value: in.Path, elements: in.PathElements}
}

// ingressPath are the routes of one path of an Ingress.
func (c *caller) ingressPath(in *model.IngressRoute, headers []*routev3.HeaderMatcher, secure bool) []*routev3.Route {
	path := pathOf(in)
	name := in.Ref.Namespace + "/" + in.Ref.Name
	if !secure && in.ToSecure {
		return []*routev3.Route{newRoute(name, path, headers, &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{
			SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
			// Unlike 301 it keeps the method.
			ResponseCode: routev3.RedirectAction_PERMANENT_REDIRECT,
		}})}
	}
	svc, port, ok := c.b.ingressBackend(in)
	if !ok {
		return []*routev3.Route{newRoute(name, path, headers, &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: blackHoleCluster},
		}})}
	}
	return c.routes(c.destination(svc, port), name, path, headers)
}

// ingressBackend is the HTTP port an Ingress's path leads to.
func (b *Builder) ingressBackend(in *model.IngressRoute) (*model.Service, model.Port, bool) {
	svc := b.service(in.Service)
	if svc == nil || svc.ExternalName != "" {
		return nil, model.Port{}, false
	}
	i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Number == in.Port && p.Protocol.IsHTTP() })
	if i < 0 {
		return nil, model.Port{}, false
	}
	return svc, svc.Ports[i], true
}
