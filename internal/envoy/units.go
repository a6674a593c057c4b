package envoy

import (
	"cmp"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// unit names a piece of configuration that is made, and made anew, as one. How its function may read the mesh is told in read.go.
type unit struct {
	kind unitKind
	// host is the full name of a service or of a host outside of the mesh.
	host string
	port uint32
	// labels tell the versions of a service apart, as in subset, and other those of a share.
	labels, other string
}

type unitKind uint8

// The units. The first ones are there by themselves, the others are wanted by another.
const (
	// meshUnit is what every proxy has.
	meshUnit unitKind = iota
	// portUnit is what takes requests to a port, whatever the address.
	portUnit
	// serviceUnit is what takes connections to a service's addresses; it wants the virtual hosts and clusters of its ports.
	serviceUnit
	// externalUnit wants those of a host outside.
	externalUnit
	// gatewayUnit are the routes of an ingress gateway.
	gatewayUnit

	serviceHostUnit
	externalHostUnit
	// detectedUnit are the routes of a port that does not say what it speaks.
	detectedUnit
	clusterUnit
	endpointsUnit
	spreadUnit
	externalClusterUnit
)

// root says whether a unit of the index is there by itself, for proxies of a role.
func (x *index) root(u unit, role model.ProxyType) bool {
	sidecar := role == model.Sidecar
	switch u.kind {
	case meshUnit:
		return true
	case portUnit:
		f := x.ports[u.port]
		return sidecar && f != nil && f.open > 0
	case serviceUnit:
		return sidecar && x.services[u.host] != nil
	case externalUnit:
		return sidecar && len(x.externals[u.host]) > 0
	case gatewayUnit:
		return role == model.Ingress
	}
	return false
}

// rootOf is the unit that comes and goes with an input.
func rootOf(i input) (unit, bool) {
	switch i.kind {
	case aService:
		return unit{kind: serviceUnit, host: i.name}, true
	case anExternal:
		return unit{kind: externalUnit, host: i.name}, true
	case openPort:
		return unit{kind: portUnit, port: i.port}, true
	}
	return unit{}, false
}

// make makes a unit.
func (c *caller) make(u unit) []*Resource {
	switch u.kind {
	case meshUnit:
		return c.forAll()
	case portUnit:
		out := []*Resource{c.b.outboundAny(u.port)}
		if c.b.isHTTP(u.port) {
			out = append(out, c.outboundRoutes(u.port)...)
		}
		return out
	case serviceUnit:
		return c.service(u.host)
	case externalUnit:
		return c.external(u.host)
	case gatewayUnit:
		return c.ingressRoutes()
	case serviceHostUnit:
		return c.serviceHost(u.host, u.port)
	case externalHostUnit:
		return c.externalHost(u.host, u.port)
	case detectedUnit:
		if svc, p, ok := c.port(u.host, u.port); ok {
			return []*Resource{c.detectedRoutes(svc, p)}
		}
	case clusterUnit:
		return c.subset(subset{host: u.host, port: u.port, labels: u.labels})
	case endpointsUnit:
		return c.endpoints(subset{host: u.host, port: u.port, labels: u.labels})
	case spreadUnit:
		return c.spread(subset{host: u.host, port: u.port, labels: u.labels}, u.other)
	case externalClusterUnit:
		if e, ok := c.externalPort(u.host, u.port); ok {
			return c.externalClusters(e)
		}
	}
	return nil
}

func (c *caller) want(u unit) { c.b.want(u) }

// forAll is what every proxy of the role has.
func (c *caller) forAll() []*Resource {
	out := []*Resource{c.b.blackHole()}
	if c.role == model.Sidecar {
		out = append(out, c.b.passthrough())
	}
	return out
}

// port is a port of a service.
func (c *caller) port(host string, number uint32) (*model.Service, model.Port, bool) {
	svc := c.b.service(host)
	if svc == nil {
		return nil, model.Port{}, false
	}
	i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Number == number })
	if i < 0 {
		return nil, model.Port{}, false
	}
	return svc, svc.Ports[i], true
}

// externalPort is a port of a host outside.
func (c *caller) externalPort(host string, number uint32) (externalPort, bool) {
	for _, e := range c.b.external(host) {
		if i := slices.IndexFunc(e.Ports, func(p model.Port) bool { return p.Number == number }); i >= 0 {
			return externalPort{External: e, port: e.Ports[i]}, true
		}
	}
	return externalPort{}, false
}

// service wants what requests to a service need, and makes what takes connections to it.
func (c *caller) service(host string) []*Resource {
	svc := c.b.service(host)
	if svc == nil {
		return nil
	}
	for _, p := range svc.Ports {
		_, outside := c.b.leads(svc)
		if svc.ExternalName == "" || outside != "" && p.Protocol.IsHTTP() {
			c.cluster(newSubset(host, p.Number, nil))
		}
		if !p.Protocol.IsHTTP() || reserved(p.Number) {
			continue
		}
		if c.b.isHTTP(p.Number) {
			c.want(unit{kind: serviceHostUnit, host: host, port: p.Number})
		}
		if p.Protocol.IsTCP() && len(svc.Addresses) > 0 {
			c.want(unit{kind: detectedUnit, host: host, port: p.Number})
		}
	}
	return c.connections(svc)
}

// external wants what calls to a host outside need, and makes what takes connections to its address.
func (c *caller) external(host string) []*Resource {
	var out []*Resource
	for _, outside := range c.b.external(host) {
		for _, p := range outside.Ports {
			e := externalPort{outside, p}
			c.want(unit{kind: externalClusterUnit, host: host, port: p.Number})
			if e.isHTTP() {
				c.want(unit{kind: externalHostUnit, host: host, port: p.Number})
			}
			// The address of a service is the service's.
			if a, one := e.Address(); e.isTCP() && one && !slices.Contains(c.b.addressesAt(p.Number), a) {
				out = append(out, outboundTCP(host, p.Number, e.cluster(), e.Ref))
			}
		}
	}
	return out
}

// cluster is the name of a subset's cluster, which will be there.
func (c *caller) cluster(s subset) string {
	c.want(unit{kind: clusterUnit, host: s.host, port: s.port, labels: s.labels})
	return s.cluster()
}

// subset is the cluster of a subset and its endpoints.
func (c *caller) subset(s subset) []*Resource {
	svc, p, ok := c.port(s.host, s.port)
	if !ok {
		return nil
	}
	which := parseSelection(s.labels)
	up := upstreamFor(p.Protocol, c.role)
	if svc.ExternalName != "" {
		return []*Resource{c.b.aliasCluster(s, up, svc, c.treatment(s.host, which.labels))}
	}
	c.want(unit{kind: endpointsUnit, host: s.host, port: s.port, labels: s.labels})
	return []*Resource{c.b.serviceCluster(s, up, svc, c.treatment(s.host, which.labels))}
}

// endpoints are those of a subset's cluster.
func (c *caller) endpoints(s subset) []*Resource {
	svc := c.b.service(s.host)
	if svc == nil {
		return nil
	}
	return []*Resource{endpoints(s, parseSelection(s.labels), svc, c.b.endpoints(svc))}
}

// connections are the listeners for the ports of a service that may not be HTTP: one for each of its addresses. A headless service has no address of its
// own and needs no listener, because what is not listened for goes where it was going; but where HTTP services have the same port, and with it a
// listener for all addresses, its instances get theirs.
func (c *caller) connections(svc *model.Service) []*Resource {
	var out []*Resource
	add := func(host string, p model.Port, cluster, routes string) {
		if p.Protocol.IsHTTP() {
			out = append(out, c.b.outboundDetected(host, p.Number, routes, cluster, svc.Ref()))
		} else {
			out = append(out, outboundTCP(host, p.Number, cluster, svc.Ref()))
		}
	}
	for _, p := range svc.Ports {
		if !p.Protocol.IsTCP() || reserved(p.Number) || svc.ExternalName != "" {
			continue
		}
		for _, a := range svc.Addresses {
			add(a, p, c.cluster(newSubset(svc.Hostname, p.Number, nil)), detectedRouteName(svc, p))
		}
		if len(svc.Addresses) > 0 || !c.b.isOpen(p.Number) && !c.b.settings().Closed {
			continue
		}
		if p.Protocol.IsHTTP() && !c.b.saysHTTP(p.Number) && !c.b.settings().Closed {
			continue // the listener for all addresses tells them apart
		}
		for _, e := range c.b.endpoints(svc) {
			if e.ServicePort == p.Number && e.Port == p.Number {
				add(e.Address, p, passthroughCluster, routeName(p.Number))
			}
		}
	}
	return out
}

// serviceHost are the virtual hosts of a service's port: that of its names, and that of its instances' names.
func (c *caller) serviceHost(host string, port uint32) []*Resource {
	svc, p, ok := c.port(host, port)
	if !ok {
		return nil
	}
	names, pods := c.domainsOf(svc, port)
	var refs []model.Ref
	for _, rule := range c.rulesFor(host) {
		refs = append(refs, rule.Ref)
	}
	out := []*Resource{newVirtualHost(port, &routev3.VirtualHost{
		Name:        host,
		Domains:     names,
		Routes:      c.routes(c.destination(svc, p), "default", anyPath(), nil),
		RetryPolicy: defaultRetryPolicy(),
	}, refs...)}
	if len(pods) > 0 {
		out = append(out, newVirtualHost(port, &routev3.VirtualHost{
			Name:    "pods." + host,
			Domains: pods,
			Routes:  []*routev3.Route{passthroughRoute(nil)},
		}))
	}
	return out
}

// externalHost is the virtual host of a host outside of the mesh; none when its name is a service's.
func (c *caller) externalHost(host string, port uint32) []*Resource {
	e, ok := c.externalPort(host, port)
	if !ok || !c.owns(e) {
		return nil
	}
	refs := []model.Ref{e.Ref}
	for _, rule := range c.rulesFor(host) {
		refs = append(refs, rule.Ref)
	}
	d := destination{host: host, port: e.port, own: c.outside(e), external: true}
	return []*Resource{newVirtualHost(port, &routev3.VirtualHost{
		Name:        e.cluster(),
		Domains:     []string{hostOf(host)},
		Routes:      c.routes(d, "default", anyPath(), nil),
		RetryPolicy: defaultRetryPolicy(),
	}, refs...)}
}

func newVirtualHost(port uint32, m *routev3.VirtualHost, refs ...model.Ref) *Resource {
	return newResource(routeName(port)+"/"+m.GetName(), m, refs...)
}

// compare orders units.
func (u unit) compare(other unit) int {
	return cmp.Or(cmp.Compare(u.kind, other.kind), strings.Compare(u.host, other.host), cmp.Compare(u.port, other.port), strings.Compare(u.labels, other.labels),
		strings.Compare(u.other, other.other))
}
