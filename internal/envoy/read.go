package envoy

import (
	"net/netip"
	"slices"

	"github.com/meshctl/meshctl/internal/model"
)

// How a unit reads.
//
// Everything proxies are told is made of units: a virtual host, a cluster, its endpoints, a listener. A unit is a pure function of what it reads of the
// mesh, and is kept until something of that changes. What it reads it asks the methods below for, and nothing else: they write down that it was read,
// also when there was nothing. So a unit
//   - never walks a list of the mesh, whose every change would be its own;
//   - asks for a thing of another name by that name, when it needs it: b.service(host), c.rulesFor(host);
//   - needs a new input? Give it a method here with the smallest key that answers the question ("is the port HTTP", not "all ports").
//
// Settings are read for free: when one changes, everything is made anew.

// settings are what the mesh says of itself: everything but its lists.
func (b *Builder) settings() *model.Mesh { return b.mesh }

// service is the service of a full name, or nil. It changes with the Service object, not with its endpoints.
func (b *Builder) service(host string) *model.Service { return b.services[host] }

// endpoints are the instances of a service.
func (b *Builder) endpoints(svc *model.Service) []model.Endpoint { return b.instances[svc.Hostname] }

// external is the host outside of the mesh of that name, or nil.
func (b *Builder) external(host string) *model.External { return b.outside[host] }

// externalsAt are the hosts outside of the mesh that may be called at a port, by host. It changes with each of them.
func (b *Builder) externalsAt(port uint32) []externalPort { return b.externals[port] }

// isHTTP says whether requests to the port are routed one by one: some service or host outside of the mesh has it as an HTTP port.
func (b *Builder) isHTTP(port uint32) bool { return slices.Contains(b.httpPorts, port) }

// saysHTTP says whether some service or host outside of the mesh says that the port is HTTP; where requests are routed but none says so, they are
// told from other connections.
func (b *Builder) saysHTTP(port uint32) bool { return b.plainHTTP[port] }

// isOpen says whether the port has a listener for all addresses.
func (b *Builder) isOpen(port uint32) bool { return slices.Contains(b.openPorts, port) }

// addressesAt are the addresses of the services that have the port as an HTTP port. It changes with each of them.
func (b *Builder) addressesAt(port uint32) []netip.Addr {
	var out []netip.Addr
	for _, s := range b.httpServices[port] {
		for _, a := range s.svc.Addresses {
			if addr, err := netip.ParseAddr(a); err == nil {
				out = append(out, addr)
			}
		}
	}
	return out
}

// workload is the pod of that name, or nil.
func (b *Builder) workload(key model.WorkloadKey) *model.Workload { return b.workloads[key] }

// ingress are the paths of all Ingresses, in the mesh's order. It changes with each of them.
func (b *Builder) ingress() []*model.IngressRoute { return b.mesh.Ingress }

// ingressTLS are the certificates of the hosts of all Ingresses, by host. It changes with each of them.
func (b *Builder) ingressTLS() []*model.IngressTLS { return b.mesh.IngressTLS }

// rulesFor are the rules that act on these callers' requests to host, in the order they are tried.
func (c *caller) rulesFor(host string) []*model.Rule { return c.rules[host] }

// policiesFor are the policies that act on these callers' requests to host, in the order they are asked.
func (c *caller) policiesFor(host string) []*model.Policy { return c.policies[host] }
