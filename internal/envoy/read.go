package envoy

import (
	"net/netip"
	"slices"

	"github.com/meshctl/meshctl/internal/model"
)

// How a unit reads.
//
// Everything proxies are told is made of units (units.go): a virtual host, a cluster, its endpoints, a listener. A unit is a pure function of what it reads
// of the mesh, and is kept until something of that changes. What it reads it asks the methods below for, and nothing else: they write down that it was
// read, also when there was nothing. So a unit
//   - never walks a list of the mesh, whose every change would be its own;
//   - asks for a thing of another name by that name, when it needs it: b.service(host), c.rulesFor(host);
//   - needs a new input? Give it a kind in index.go and a method here with the smallest key that answers the question ("is the port HTTP", not "all
//     ports"), and let index.follow say when the answer changes;
//   - names a cluster only by what c.cluster, c.part, c.to and c.externalCluster return: these see to it that the cluster is there.
//
// Settings are read for free: when one changes, everything is made anew.

// Builder is the mesh as one unit reads it.
type Builder struct {
	index *index
	// read and want write down what the unit depends on and what it needs.
	read func(input)
	want func(unit)
}

// settings are what the mesh says of itself: everything but its lists.
func (b *Builder) settings() *model.Mesh { return b.index.settings }

// service is the service of a full name, or nil. It changes with the Service object, not with its endpoints.
func (b *Builder) service(host string) *model.Service {
	b.read(input{kind: aService, name: host})
	return b.index.services[host]
}

// endpoints are the instances of a service.
func (b *Builder) endpoints(svc *model.Service) []model.Endpoint {
	b.read(input{kind: endpointsOf, name: svc.Hostname})
	if e := b.index.instances[svc.Hostname]; e != nil {
		return e.List
	}
	return nil
}

// external are the entries of a host outside of the mesh; no two have the same port.
func (b *Builder) external(host string) []*model.External {
	b.read(input{kind: anExternal, name: host})
	return b.index.externals[host]
}

// externalsAt are the hosts outside of the mesh that may be called at a port, by host. It changes with each of them.
func (b *Builder) externalsAt(port uint32) []externalPort {
	b.read(input{kind: externalsAt, port: port})
	if f := b.index.ports[port]; f != nil {
		return f.externals
	}
	return nil
}

// isHTTP says whether requests to the port, whatever the address, are routed by the name asked for: a host outside has it, or a service that says HTTP or
// has no address of its own.
func (b *Builder) isHTTP(port uint32) bool {
	b.read(input{kind: routedPort, port: port})
	f := b.index.ports[port]
	return f != nil && f.routed > 0
}

// saysHTTP says whether a service or a host outside says that the port is HTTP.
func (b *Builder) saysHTTP(port uint32) bool {
	b.read(input{kind: saysHTTP, port: port})
	f := b.index.ports[port]
	return f != nil && f.says > 0
}

// workload is the pod of that name, or nil.
func (b *Builder) workload(key model.WorkloadKey) *model.Workload {
	b.read(workloadInput(key))
	return b.index.workloads[key]
}

// ingress are the paths of all Ingresses, in the mesh's order. It changes with each of them.
func (b *Builder) ingress() []*model.IngressRoute {
	b.read(input{kind: ingressRules})
	return b.index.mesh.Ingress
}

// caller is the view of the mesh of all proxies that rules treat alike, for one unit.
type caller struct {
	b *Builder
	view
}

// view is what makes callers differ.
type view struct {
	role model.ProxyType
	// namespace of the callers; empty for what all see.
	namespace string
	// bound are the rules and policies for some callers alone that bind these.
	bound map[binding]bool
}

// ingressTLS are the certificates of the hosts of all Ingresses, by host. It changes with each of them.
func (b *Builder) ingressTLS() []*model.IngressTLS {
	b.read(input{kind: ingressCertificates})
	return b.index.mesh.IngressTLS
}

// rulesFor are the rules that act on these callers' requests to host, in the order they are tried.
func (c *caller) rulesFor(host string) []*model.Rule {
	c.b.read(input{kind: rulesFor, name: host})
	rules := c.b.index.rules[host]
	if !rules.some {
		return rules.all
	}
	return slices.DeleteFunc(slices.Clone(rules.all), func(r *model.Rule) bool {
		return (r.CallerNamespace != "" || r.Source != nil) && !c.bound[binding{rule: r}]
	})
}

// policiesFor are the policies that act on these callers' requests to host, in the order they are asked.
func (c *caller) policiesFor(host string) []*model.Policy {
	c.b.read(input{kind: policiesFor, name: host})
	policies := c.b.index.policies[host]
	if !policies.some {
		return policies.all
	}
	return slices.DeleteFunc(slices.Clone(policies.all), func(p *model.Policy) bool {
		return (p.CallerNamespace != "" || p.Source != nil) && !c.bound[binding{policy: p}]
	})
}

// domainsOf are the names by which these callers call svc at a port, the full one first, and the patterns of the names of its single instances.
func (c *caller) domainsOf(svc *model.Service, port uint32) (names, pods []string) {
	c.b.read(input{kind: domainsOf, name: svc.Hostname})
	for _, n := range callNames(svc, c.b.settings().Domain) {
		if n.namespace != "" && n.namespace != c.namespace || !c.b.index.claims.has(claimOf(port, n.name), svc.Hostname, n.rank, c.namespace) {
			continue
		}
		list := &names
		if n.pods {
			list = &pods
		}
		if !slices.Contains(*list, n.name) {
			*list = append(*list, n.name)
		}
	}
	return names, pods
}

// owns says whether these callers reach the host outside of the mesh by its name at a port.
func (c *caller) owns(e externalPort) bool {
	c.b.read(input{kind: domainsOf, name: e.Host})
	return c.b.index.claims.has(claimOf(e.port.Number, hostOf(e.Host)), e.Host, outside, c.namespace)
}

// isOpen says whether the port has a listener for all addresses.
func (b *Builder) isOpen(port uint32) bool {
	b.read(input{kind: openPort, port: port})
	f := b.index.ports[port]
	return f != nil && f.open > 0
}

// addressesAt are the addresses of the services that have the port as an HTTP port. It changes with each of them.
func (b *Builder) addressesAt(port uint32) []netip.Addr {
	b.read(input{kind: addressesAt, port: port})
	var out []netip.Addr
	if f := b.index.ports[port]; f != nil {
		for _, a := range f.addresses {
			if addr, err := netip.ParseAddr(a); err == nil {
				out = append(out, addr)
			}
		}
	}
	return out
}
