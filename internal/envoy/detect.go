package envoy

import (
	"strconv"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/model"
)

const httpInspectorName = "envoy.filters.listener.http_inspector"

// detect makes a listener look at how connections begin before it chooses a chain: all of them, or those whose original destination is one of
// the ports. What is silent for the mesh's detection timeout is not HTTP.
func (b *Builder) detect(l *listenerv3.Listener, ports ...uint32) {
	inspector := &listenerv3.ListenerFilter{
		Name:       httpInspectorName,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&httpinspectorv3.HttpInspector{})},
	}
	if len(ports) > 0 {
		inspector.FilterDisabled = notTo(ports)
	}
	l.ListenerFilters = append(l.ListenerFilters, inspector)
	l.ListenerFiltersTimeout = durationpb.New(b.settings().DetectionTimeout)
	l.ContinueOnListenerFiltersTimeout = true
}

// notTo holds for connections to none of the ports.
func notTo(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
			DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
		}})
	}
	any := rules[0]
	if len(rules) > 1 {
		any = &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
		}}
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: any}}
}

// whenHTTP makes a chain one for connections that begin like HTTP.
func whenHTTP(c *listenerv3.FilterChain) *listenerv3.FilterChain {
	if c.FilterChainMatch == nil {
		c.FilterChainMatch = &listenerv3.FilterChainMatch{}
	}
	c.FilterChainMatch.ApplicationProtocols = []string{"http/1.0", "http/1.1", "h2c"}
	c.Name = "http"
	if p := c.FilterChainMatch.GetDestinationPort(); p != nil {
		c.Name += "_" + routeName(p.GetValue())
	}
	return c
}

// outboundDetected takes connections to one address and port of a service that does not say what it speaks: requests go by the route
// configuration, everything else to the cluster.
func (b *Builder) outboundDetected(host string, port uint32, routes, cluster string, refs ...model.Ref) *Resource {
	l := unbound(host, port)
	b.detect(l)
	m := b.connectionManager("outbound_" + routeName(port))
	m.RouteSpecifier = rds(routes)
	l.FilterChains = []*listenerv3.FilterChain{whenHTTP(chain(rememberAddresses(), network(hcmFilter, m)))}
	l.DefaultFilterChain = chain(tcpProxy("outbound_"+routeName(port), cluster))
	return newResource(l.Name, l, refs...)
}

// detectedRouteName names the route configuration of a port that does not say what it speaks.
func detectedRouteName(svc *model.Service, p model.Port) string {
	return strconv.FormatUint(uint64(p.Number), 10) + "|" + svc.Hostname
}

// detectedRoutes are the routes of a port that does not say what it speaks. Requests to its address are the service's, whatever host they name,
// as the connection's bytes would be.
func (c *caller) detectedRoutes(svc *model.Service, p model.Port) *Resource {
	config := &routev3.RouteConfiguration{
		Name:                    detectedRouteName(svc, p),
		ResponseHeadersToRemove: []string{unprocessedHeader},
		VirtualHosts: []*routev3.VirtualHost{{
			Name:        svc.Hostname,
			Domains:     []string{"*"},
			Routes:      c.routes(c.destination(svc, p), "default", anyPath(), nil),
			RetryPolicy: defaultRetryPolicy(),
		}},
	}
	refs := []model.Ref{svc.Ref()}
	for _, rule := range c.rulesFor(svc.Hostname) {
		refs = append(refs, rule.Ref)
	}
	return newResource(config.Name, config, refs...)
}
