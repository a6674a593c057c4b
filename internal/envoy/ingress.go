package envoy

import (
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

// ingressListener takes plain HTTP from outside of the mesh.
func (b *Builder) ingressListener(v4, v6 bool) *Resource {
	l := bound(listenerName("0.0.0.0", IngressHTTPPort), IngressHTTPPort, v4, v6)
	l.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	m := b.connectionManager("ingress_http")
	m.RouteSpecifier = rds(ingressRoutes)
	m.UseRemoteAddress = wrapperspb.Bool(true)
	m.NormalizePath = wrapperspb.Bool(true)
	m.StripTrailingHostDot = true
	// Out there are clients that vanish, and such as mean to.
	m.RequestHeadersTimeout = durationpb.New(10 * time.Second)
	m.StreamIdleTimeout = durationpb.New(time.Hour)
	// Nobody out there may steer the proxy with its own headers (x-envoy-max-retries and the like), whatever address they come from.
	m.InternalAddressConfig = &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "127.0.0.1", PrefixLen: wrapperspb.UInt32(32)}},
	}
	l.FilterChains = []*listenerv3.FilterChain{chain(network(hcmFilter, m))}
	return newResource(l.Name, l)
}

// ingressRoutes are the routes of all Ingresses: a virtual host for each host, then one for any other. The destination's rules apply to what an
// Ingress lets through.
func (c *caller) ingressRoutes() *Resource {
	config := &routev3.RouteConfiguration{
		Name:                     ingressRoutes,
		IgnorePortInHostMatching: true,
		RequestHeadersToRemove:   identityHeaders(),
		ResponseHeadersToRemove:  []string{unprocessedHeader},
	}
	var refs []model.Ref
	hosts := map[string]*routev3.VirtualHost{}
	var order []string
	var fallback []*routev3.Route
	for _, in := range c.b.ingress() {
		refs = append(refs, in.Ref)
		for _, rule := range c.rulesFor(in.Service) {
			refs = append(refs, rule.Ref)
		}
		routes := c.ingressPath(in)
		if in.Default {
			// Only one can be meant; the first of the mesh's order stays.
			if fallback == nil {
				fallback = routes
			}
			continue
		}
		host := strings.ToLower(in.Host)
		if hosts[host] == nil {
			hosts[host] = &routev3.VirtualHost{Name: host, Domains: []string{host}, RetryPolicy: defaultRetryPolicy()}
			order = append(order, host)
		}
		hosts[host].Routes = append(hosts[host].Routes, routes...)
	}
	if fallback == nil {
		fallback = []*routev3.Route{notFound("no Ingress of the mesh takes host %REQ(:AUTHORITY)% and this path")}
	}
	const others = "*"
	if hosts[others] == nil {
		hosts[others] = &routev3.VirtualHost{Name: others, Domains: []string{others}, RetryPolicy: defaultRetryPolicy()}
		order = append(order, others)
	}
	slices.Sort(order)
	for _, host := range order {
		hosts[host].Routes = append(hosts[host].Routes, fallback...)
		config.VirtualHosts = append(config.VirtualHosts, hosts[host])
	}
	return newResource(config.Name, config, refs...)
}

// ingressPath are the routes of one path of an Ingress.
func (c *caller) ingressPath(in *model.IngressRoute) []*routev3.Route {
	path := pathMatch{kind: in.PathKind, value: in.Path, elements: in.PathElements}
	var headers []*routev3.HeaderMatcher
	if suffix, wildcard := strings.CutPrefix(in.Host, "*."); wildcard {
		// An Ingress's wildcard stands for one label, Envoy's for any number.
		headers = append(headers, regexHeader(authorityHeader, `[^.]+\.`+regexp.QuoteMeta(strings.ToLower(suffix))+`(:[0-9]+)?`))
	}
	name := in.Ref.Namespace + "/" + in.Ref.Name
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
