package envoy

import (
	"cmp"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	origdstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/model"
)

// servedPort is a port of a workload, whatever the number of services that point to it.
type servedPort struct {
	number uint32
	// http and tcp say what may come; both means that it is to be detected.
	http, tcp bool
	refs      []model.Ref
}

// servedPorts joins the services' claims on each port of the workload. Where one says HTTP and another does not, connections are carried
// unseen, which is right for both; where one leaves it open, both are told apart.
func (b *Builder) servedPorts(w *model.Workload) []servedPort {
	ports := map[uint32]*servedPort{}
	for _, in := range w.Inbound {
		if in.Port == outboundPort || in.Port == inboundPort {
			continue
		}
		p := ports[in.Port]
		if p == nil {
			p = &servedPort{number: in.Port, http: true}
			ports[in.Port] = p
		}
		p.http = p.http && in.Protocol.IsHTTP()
		p.tcp = p.tcp || in.Protocol.IsTCP()
		if svc := b.service(in.Hostname); svc != nil {
			p.refs = append(p.refs, svc.Ref())
		}
	}
	out := make([]servedPort, 0, len(ports))
	for _, p := range ports {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b servedPort) int { return cmp.Compare(a.number, b.number) })
	return out
}

// virtualInbound receives all captured inbound connections and tells them apart by their original port. A port that no service points to is
// passed through.
func (b *Builder) virtualInbound(ports []servedPort, v4, v6 bool) *Resource {
	l := bound("virtualInbound", inboundPort, v4, v6)
	l.TrafficDirection = corev3.TrafficDirection_INBOUND
	l.ListenerFilters = []*listenerv3.ListenerFilter{{
		Name:       origDstName,
		ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(&origdstv3.OriginalDst{})},
	}}
	var refs []model.Ref
	var open []uint32
	for _, p := range ports {
		refs = append(refs, p.refs...)
		if p.http {
			c := toPort(p.number, network(hcmFilter, b.inboundManager(p.number)))
			if p.tcp {
				open = append(open, p.number)
				c = whenHTTP(c)
			}
			l.FilterChains = append(l.FilterChains, c)
		}
		if p.tcp {
			l.FilterChains = append(l.FilterChains, toPort(p.number, tcpProxy("inbound_"+routeName(p.number), inboundCluster(p.number))))
		}
	}
	if len(open) > 0 {
		b.detect(l, open...)
	}
	// As in virtualOutbound: what was meant for this port itself would come back.
	l.FilterChains = append(l.FilterChains, toPort(inboundPort, tcpProxy("blackhole", blackHoleCluster)))
	l.DefaultFilterChain = chain(tcpProxy("inbound_passthrough", inboundPassthroughCluster))
	return newResource(l.Name, l, refs...)
}

// inboundManager hands requests to the application as they came.
func (b *Builder) inboundManager(port uint32) *hcmv3.HttpConnectionManager {
	m := b.connectionManager("inbound_" + routeName(port))
	m.HttpFilters = []*hcmv3.HttpFilter{httpFilter(routerFilter, &routerv3.Router{})}
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		// UF: the connection to the application could not be made, so it has seen nothing of the request.
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"UF"}},
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: unprocessedHeader, Value: "true"}}},
	}}}
	m.RouteSpecifier = inline(&routev3.RouteConfiguration{
		Name: inboundCluster(port),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "inbound",
			Domains: []string{"*"},
			Routes: []*routev3.Route{newRoute("default", anyPath(), nil, &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: inboundCluster(port)},
				Timeout:          durationpb.New(0),
			}})},
		}},
	})
	return m
}

// inbound is what a sidecar has for itself.
func (b *Builder) inbound(w *model.Workload, v4, v6 bool) []*Resource {
	ports := b.servedPorts(w)
	out := []*Resource{b.inboundPassthrough(v4, v6), b.virtualOutbound(v4, v6), b.virtualInbound(ports, v4, v6)}
	loopback := "127.0.0.1"
	if !v4 {
		loopback = "::1"
	}
	for _, p := range ports {
		out = append(out, b.inboundServiceCluster(p.number, loopback, p.http))
	}
	return out
}
