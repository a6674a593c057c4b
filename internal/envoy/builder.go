package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/meshctl/meshctl/internal/model"
)

// Builder translates one mesh for any number of proxies. What proxies share is made once: all sidecars get the same clusters, endpoints and
// outbound listeners, those of one namespace to which the same rules apply the same routes, and only the inbound side is each one's own.
// It is safe for concurrent use.
type Builder struct {
	mesh      *model.Mesh
	services  map[string]*model.Service
	workloads map[model.WorkloadKey]*model.Workload
	// httpServices are the services with an HTTP port of the number, by hostname.
	httpServices map[uint32][]servicePort

	sidecar func() *Resources
	mu      sync.Mutex
	groups  map[string]func() *Resources
}

type servicePort struct {
	svc  *model.Service
	port model.Port
}

// NewBuilder prepares the translation of mesh, which must not change any more.
func NewBuilder(mesh *model.Mesh) *Builder {
	b := &Builder{
		mesh:         mesh,
		services:     make(map[string]*model.Service, len(mesh.Services)),
		workloads:    make(map[model.WorkloadKey]*model.Workload, len(mesh.Workloads)),
		httpServices: map[uint32][]servicePort{},
		groups:       map[string]func() *Resources{},
	}
	for _, svc := range mesh.Services {
		b.services[svc.Hostname] = svc
		for _, p := range svc.Ports {
			if p.Protocol.IsHTTP() && !reserved(p.Number) {
				b.httpServices[p.Number] = append(b.httpServices[p.Number], servicePort{svc: svc, port: p})
			}
		}
	}
	for _, w := range mesh.Workloads {
		b.workloads[w.Key] = w
	}
	b.sidecar = sync.OnceValue(b.sidecarOutbound)
	return b
}

// reserved says whether a service's port is one that the mesh keeps for itself; it cannot be captured.
func reserved(port uint32) bool { return port == outboundPort || port == inboundPort }

// For is what proxy is told. The result must not be modified.
func (b *Builder) For(proxy model.Proxy) *Resources {
	w := b.workloads[proxy.Workload]
	if w == nil {
		w = &model.Workload{Key: proxy.Workload, Addresses: proxy.Addresses, Labels: proxy.Labels}
	}
	v4, v6 := families(w.Addresses)
	switch proxy.Type {
	case model.Sidecar:
		return b.forSidecar(w, v4, v6)
	case model.Ingress:
		return b.group(proxy.Type, w, fmt.Sprint(v4, v6), func(c *caller) *Resources { return c.gateway(v4, v6) })
	case model.Egress:
	}
	return &Resources{}
}

func (b *Builder) forSidecar(w *model.Workload, v4, v6 bool) *Resources {
	shared := b.sidecar()
	routes := b.group(model.Sidecar, w, "", func(c *caller) *Resources { return c.sidecarRoutes(w.Key.Namespace) })
	ports := b.servedPorts(w)
	own := []*Resource{b.inboundPassthrough(v4, v6)}
	loopback := "127.0.0.1"
	if !v4 {
		loopback = "::1"
	}
	for _, p := range ports {
		own = append(own, b.inboundServiceCluster(p.number, loopback, p.http))
	}
	return &Resources{
		Clusters:  byName(slices.Concat(own, shared.Clusters)),
		Endpoints: shared.Endpoints,
		Listeners: byName(slices.Concat([]*Resource{b.virtualOutbound(v4, v6), b.virtualInbound(ports, v4, v6)}, shared.Listeners)),
		Routes:    routes.Routes,
	}
}

// group makes what is the same for all callers of a namespace to whom the same rules apply, once.
func (b *Builder) group(role model.ProxyType, w *model.Workload, variant string, build func(*caller) *Resources) *Resources {
	c := &caller{b: b, role: role, rules: map[string][]*model.Rule{}}
	var key strings.Builder
	fmt.Fprintf(&key, "%s/%s/%s", role, w.Key.Namespace, variant)
	for i, rule := range b.mesh.Rules {
		if rule.CallerNamespace == "" && rule.Source == nil {
			c.rules[rule.Host] = append(c.rules[rule.Host], rule)
			continue
		}
		if b.binds(rule, w) {
			c.rules[rule.Host] = append(c.rules[rule.Host], rule)
			fmt.Fprintf(&key, "/%d", i)
		}
	}
	b.mu.Lock()
	once := b.groups[key.String()]
	if once == nil {
		once = sync.OnceValue(func() *Resources { return build(c) })
		b.groups[key.String()] = once
	}
	b.mu.Unlock()
	return once()
}

// binds says whether the rule acts on calls from w.
func (b *Builder) binds(rule *model.Rule, w *model.Workload) bool {
	if rule.CallerNamespace != "" && rule.CallerNamespace != w.Key.Namespace {
		return false
	}
	s := rule.Source
	if s == nil {
		return true
	}
	if s.Namespace != "" && s.Namespace != w.Key.Namespace {
		return false
	}
	member := func(in model.InboundPort) bool { return in.Hostname == s.Host }
	return (s.Host == "" || slices.ContainsFunc(w.Inbound, member)) && selects(s.Labels, w.Labels)
}

// sidecarOutbound is what all sidecars have in common: the way out, but for the routes.
func (b *Builder) sidecarOutbound() *Resources {
	r := &Resources{Clusters: []*Resource{b.blackHole(), b.passthrough()}}
	subsets := map[subset]map[string]string{}
	for _, svc := range b.mesh.Services {
		if svc.ExternalName != "" {
			continue
		}
		for _, p := range svc.Ports {
			subsets[newSubset(svc.Hostname, p.Number, nil)] = nil
		}
	}
	for _, rule := range b.mesh.Rules {
		b.addSubsets(subsets, rule)
	}
	b.addClusters(r, subsets, model.Sidecar)
	for port := range b.httpServices {
		r.Listeners = append(r.Listeners, b.outboundHTTP(port))
	}
	r.Listeners = append(r.Listeners, b.outboundTCPs()...)
	byName(r.Listeners)
	return r
}

// addSubsets adds the versions that a rule sends to.
func (b *Builder) addSubsets(subsets map[subset]map[string]string, rule *model.Rule) {
	svc := b.services[rule.Host]
	if svc == nil {
		return
	}
	for _, p := range svc.Ports {
		if !p.Protocol.IsHTTP() {
			continue
		}
		for _, t := range rule.Routes {
			if s, ok := b.target(t.Host, t.Labels, p); ok {
				subsets[s] = t.Labels
			}
		}
	}
}

func (b *Builder) addClusters(r *Resources, subsets map[subset]map[string]string, role model.ProxyType) {
	for s, labels := range subsets {
		svc := b.services[s.host]
		i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Number == s.port })
		r.Clusters = append(r.Clusters, b.serviceCluster(s, upstreamFor(svc.Ports[i].Protocol, role), svc))
		r.Endpoints = append(r.Endpoints, endpoints(s, labels, svc))
	}
	byName(r.Clusters)
	byName(r.Endpoints)
}

// outboundTCPs are the listeners of all ports that are not HTTP: one for each address of the service. A headless service has no address of its
// own and needs no listener, because what is not listened for goes where it was going; but where HTTP services have the same port, and with it
// a listener for all addresses, its instances get theirs.
func (b *Builder) outboundTCPs() []*Resource {
	var out []*Resource
	taken := map[string]bool{}
	add := func(host string, p model.Port, cluster string, svc *model.Service) {
		if name := listenerName(host, p.Number); !taken[name] {
			taken[name] = true
			out = append(out, outboundTCP(host, p.Number, cluster, svc))
		}
	}
	for _, svc := range b.mesh.Services {
		for _, p := range svc.Ports {
			if p.Protocol.IsHTTP() || reserved(p.Number) || svc.ExternalName != "" {
				continue
			}
			for _, a := range svc.Addresses {
				add(a, p, newSubset(svc.Hostname, p.Number, nil).cluster(), svc)
			}
			if len(svc.Addresses) > 0 || len(b.httpServices[p.Number]) == 0 {
				continue
			}
			for _, e := range svc.Endpoints {
				if e.ServicePort == p.Number && e.Port == p.Number {
					add(e.Address, p, passthroughCluster, svc)
				}
			}
		}
	}
	return out
}

// sidecarRoutes are the routes of all HTTP ports.
func (c *caller) sidecarRoutes(namespace string) *Resources {
	r := &Resources{}
	for _, port := range slices.Sorted(maps.Keys(c.b.httpServices)) {
		r.Routes = append(r.Routes, c.outboundRoutes(port, namespace))
	}
	byName(r.Routes)
	return r
}

// gateway is all that an ingress gateway is told: what its Ingresses lead to and no more.
func (c *caller) gateway(v4, v6 bool) *Resources {
	r := &Resources{
		Clusters:  []*Resource{c.b.blackHole()},
		Listeners: []*Resource{c.b.ingressListener(v4, v6)},
		Routes:    []*Resource{c.ingressRoutes()},
	}
	subsets := map[subset]map[string]string{}
	for _, in := range c.b.mesh.Ingress {
		svc, port, ok := c.b.ingressBackend(in)
		if !ok {
			continue
		}
		subsets[newSubset(svc.Hostname, port.Number, nil)] = nil
		for _, rule := range c.rules[svc.Hostname] {
			c.b.addSubsets(subsets, rule)
		}
	}
	c.b.addClusters(r, subsets, model.Ingress)
	return r
}
