package envoy

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// Consistent says whether the resources are complete in themselves: every name they refer to is among them, none is there twice, each message
// keeps the rules of its fields, and no two listeners or virtual hosts claim the same.
func Consistent(r *Resources) error {
	c := &consistency{
		clusters:  map[string]bool{},
		endpoints: map[string]bool{},
		routes:    map[string]bool{},
		secrets:   map[string]bool{},
		addresses: map[string]string{},
	}
	c.names("cluster", r.Clusters, c.clusters)
	c.names("endpoints", r.Endpoints, c.endpoints)
	c.names("route configuration", r.Routes, c.routes)
	c.names("listener", r.Listeners, map[string]bool{})
	c.names("secret", r.Secrets, c.secrets)
	for _, res := range r.Clusters {
		open(c, res, c.cluster)
	}
	for _, res := range r.Endpoints {
		open(c, res, func(*endpointv3.ClusterLoadAssignment) {})
	}
	for _, res := range r.Listeners {
		open(c, res, c.listener)
	}
	for _, res := range r.Routes {
		open(c, res, c.routeConfig)
	}
	for _, res := range r.Secrets {
		open(c, res, func(*tlsv3.Secret) {})
	}
	return errors.Join(c.problems...)
}

type consistency struct {
	clusters, endpoints, routes, secrets map[string]bool
	addresses                            map[string]string
	where                                string
	problems                             []error
}

func (c *consistency) fault(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s: %s", c.where, fmt.Sprintf(format, args...)))
}

func (c *consistency) names(kind string, rs []*Resource, into map[string]bool) {
	last := ""
	for _, r := range rs {
		c.where = kind + " " + r.Name
		if into[r.Name] {
			c.fault("is there twice")
		}
		if r.Name < last {
			c.fault("is not in order")
		}
		last = r.Name
		into[r.Name] = true
	}
}

// message is what every generated message offers.
type message[T any] interface {
	*T
	proto.Message
	ValidateAll() error
}

// open unmarshals a resource, checks its fields and hands it to look.
func open[T any, M message[T]](c *consistency, r *Resource, look func(M)) {
	c.where = r.Name
	m := M(new(T))
	if err := Message(r).UnmarshalTo(m); err != nil {
		c.fault("%v", err)
		return
	}
	if err := m.ValidateAll(); err != nil {
		c.fault("%v", err)
	}
	look(m)
}

func (c *consistency) cluster(m *clusterv3.Cluster) {
	if m.GetType() == clusterv3.Cluster_EDS && !c.endpoints[m.GetEdsClusterConfig().GetServiceName()] {
		c.fault("no endpoints named %q", m.GetEdsClusterConfig().GetServiceName())
	}
	aggregate := &aggregatev3.ClusterConfig{}
	if config := m.GetClusterType().GetTypedConfig(); config.MessageIs(aggregate) {
		if err := config.UnmarshalTo(aggregate); err != nil {
			c.fault("%v", err)
		}
		for _, name := range aggregate.GetClusters() {
			c.refers(name)
		}
	}
}

func (c *consistency) listener(m *listenerv3.Listener) {
	c.address(m.GetAddress())
	for _, a := range m.GetAdditionalAddresses() {
		c.address(a.GetAddress())
	}
	chains := m.GetFilterChains()
	if m.GetDefaultFilterChain() != nil {
		chains = append(chains, m.GetDefaultFilterChain())
	}
	for _, fc := range chains {
		for _, f := range fc.GetFilters() {
			c.filter(f)
		}
		if fc.GetTransportSocket() != nil {
			c.downstreamTLS(fc.GetTransportSocket())
		}
	}
}

func (c *consistency) downstreamTLS(socket *corev3.TransportSocket) {
	m := &tlsv3.DownstreamTlsContext{}
	if err := socket.GetTypedConfig().UnmarshalTo(m); err != nil {
		c.fault("%v", err)
		return
	}
	if err := m.ValidateAll(); err != nil {
		c.fault("%v", err)
	}
	for _, s := range m.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
		if !c.secrets[s.GetName()] {
			c.fault("no secret named %q", s.GetName())
		}
	}
}

func (c *consistency) address(a *corev3.Address) {
	key := listenerName(a.GetSocketAddress().GetAddress(), a.GetSocketAddress().GetPortValue())
	if other, taken := c.addresses[key]; taken {
		c.fault("address %s is listener %s's", key, other)
	}
	c.addresses[key] = c.where
}

func (c *consistency) filter(f *listenerv3.Filter) {
	m, err := f.GetTypedConfig().UnmarshalNew()
	if err != nil {
		c.fault("%v", err)
		return
	}
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			c.fault("%v", err)
		}
	}
	switch m := m.(type) {
	case *tcpv3.TcpProxy:
		c.refers(m.GetCluster())
	case *hcmv3.HttpConnectionManager:
		if m.GetRouteConfig() != nil {
			c.routeConfig(m.GetRouteConfig())
		} else if !c.routes[m.GetRds().GetRouteConfigName()] {
			c.fault("no route configuration named %q", m.GetRds().GetRouteConfigName())
		}
	}
}

func (c *consistency) routeConfig(m *routev3.RouteConfiguration) {
	domains := map[string]string{}
	hosts := map[string]bool{}
	for _, vh := range m.GetVirtualHosts() {
		if hosts[vh.GetName()] {
			c.fault("two virtual hosts named %q", vh.GetName())
		}
		hosts[vh.GetName()] = true
		for _, d := range vh.GetDomains() {
			d = strings.ToLower(d)
			if other, taken := domains[d]; taken {
				c.fault("virtual hosts %s and %s both have the domain %q", other, vh.GetName(), d)
			}
			domains[d] = vh.GetName()
		}
		for _, r := range vh.GetRoutes() {
			c.route(r)
		}
	}
}

func (c *consistency) route(r *routev3.Route) {
	for name, config := range r.GetTypedPerFilterConfig() {
		m, err := config.UnmarshalNew()
		if err != nil {
			c.fault("%s: %v", name, err)
			continue
		}
		if v, ok := m.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				c.fault("%s: %v", name, err)
			}
		}
	}
	a := r.GetRoute()
	if a == nil {
		return
	}
	if wc := a.GetWeightedClusters(); wc != nil {
		for _, w := range wc.GetClusters() {
			c.refers(w.GetName())
		}
		return
	}
	c.refers(a.GetCluster())
}

func (c *consistency) refers(cluster string) {
	if !c.clusters[cluster] {
		c.fault("no cluster named %q", cluster)
	}
}
