package envoy

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/meshctl/meshctl/internal/model"
)

// Builder translates one mesh for any number of proxies. What proxies share is made once: all sidecars get the same clusters, endpoints and
// outbound listeners, those of one namespace to which the same rules apply the same routes, and only the inbound side is each one's own.
// It is safe for concurrent use. How its parts read the mesh is told in read.go.
type Builder struct {
	mesh      *model.Mesh
	services  map[string]*model.Service
	instances map[string][]model.Endpoint
	workloads map[model.WorkloadKey]*model.Workload
	// httpServices are the services with a port of the number that may be HTTP, by hostname.
	httpServices map[uint32][]servicePort
	outside      map[string]*model.External
	// externals are the hosts outside of the mesh that may be called at the port, by host.
	externals map[uint32][]externalPort
	// httpPorts are the ports that are routed by the name asked for, whatever the address, sorted: those of hosts outside and of services that
	// say HTTP or have no address of their own. openPorts are also those on which hosts outside are told by TLS's name or by their subnet.
	httpPorts, openPorts []uint32
	// plainHTTP are those of them that some service or host outside says are HTTP.
	plainHTTP map[uint32]bool
	// scoped are the hosts with a policy for some callers alone, so that their clusters are not the same for all.
	scoped map[string]bool

	sidecar func() *Resources
	subsets func() map[subset]selection
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
		instances:    make(map[string][]model.Endpoint, len(mesh.Endpoints)),
		workloads:    make(map[model.WorkloadKey]*model.Workload, len(mesh.Workloads)),
		httpServices: map[uint32][]servicePort{},
		outside:      make(map[string]*model.External, len(mesh.Externals)),
		externals:    map[uint32][]externalPort{},
		plainHTTP:    map[uint32]bool{},
		scoped:       map[string]bool{},
		groups:       map[string]func() *Resources{},
	}
	for _, svc := range mesh.Services {
		b.services[svc.Hostname] = svc
		for _, p := range svc.Ports {
			if !p.Protocol.IsHTTP() || reserved(p.Number) {
				continue
			}
			b.httpServices[p.Number] = append(b.httpServices[p.Number], servicePort{svc: svc, port: p})
			if !p.Protocol.IsTCP() || len(svc.Addresses) == 0 {
				b.httpPorts = append(b.httpPorts, p.Number)
			}
			if !p.Protocol.IsTCP() {
				b.plainHTTP[p.Number] = true
			}
		}
	}
	for _, e := range mesh.Endpoints {
		b.instances[e.Hostname] = e.List
	}
	for _, e := range mesh.Externals {
		b.outside[e.Host] = e
		for _, p := range e.Ports {
			b.externals[p.Number] = append(b.externals[p.Number], externalPort{External: e, port: p})
		}
	}
	b.openPorts = slices.Clone(b.httpPorts)
	for port, outside := range b.externals {
		if slices.ContainsFunc(outside, externalPort.isHTTP) {
			b.httpPorts = append(b.httpPorts, port)
			b.plainHTTP[port] = true
		}
		if slices.ContainsFunc(outside, externalPort.needsAny) {
			b.openPorts = append(b.openPorts, port)
		}
	}
	for _, ports := range []*[]uint32{&b.httpPorts, &b.openPorts} {
		slices.Sort(*ports)
		*ports = slices.Compact(*ports)
	}
	for _, w := range mesh.Workloads {
		b.workloads[w.Key] = w
	}
	for _, p := range mesh.Policies {
		if p.CallerNamespace != "" || p.Source != nil {
			b.scoped[p.Host] = true
		}
	}
	b.sidecar = sync.OnceValue(b.sidecarOutbound)
	b.subsets = sync.OnceValue(b.sidecarSubsets)
	return b
}

// reserved says whether a service's port is one that the mesh keeps for itself; it cannot be captured.
func reserved(port uint32) bool { return port == outboundPort || port == inboundPort }

// For is what proxy is told. The result must not be modified.
func (b *Builder) For(proxy model.Proxy) *Resources {
	w := b.workload(proxy.Workload)
	if w == nil {
		w = &model.Workload{Key: proxy.Workload, Addresses: proxy.Addresses, Labels: proxy.Labels}
	}
	v4, v6 := families(w.Addresses)
	switch proxy.Type {
	case model.Sidecar:
		return b.forSidecar(w, v4, v6)
	case model.Ingress:
		r := b.group(proxy.Type, w, fmt.Sprint(v4, v6), func(c *caller) *Resources { return c.gateway(v4, v6) })
		if proxy.Unproven {
			return r.withoutSecrets()
		}
		return r
	case model.Egress:
	}
	return &Resources{}
}

func (b *Builder) forSidecar(w *model.Workload, v4, v6 bool) *Resources {
	shared := b.sidecar()
	group := b.group(model.Sidecar, w, "", func(c *caller) *Resources { return c.sidecarRoutes(w.Key.Namespace) })
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
		Clusters:  byName(slices.Concat(own, group.Clusters, shared.Clusters)),
		Endpoints: merged(shared.Endpoints, group.Endpoints),
		Listeners: byName(slices.Concat([]*Resource{b.virtualOutbound(v4, v6), b.virtualInbound(ports, v4, v6)}, shared.Listeners)),
		Routes:    group.Routes,
	}
}

// merged is the resources of both, by name.
func merged(shared, own []*Resource) []*Resource {
	if len(own) == 0 {
		return shared
	}
	return byName(slices.Concat(shared, own))
}

// group makes what is the same for all callers of a namespace to whom the same rules and policies apply, once.
func (b *Builder) group(role model.ProxyType, w *model.Workload, variant string, build func(*caller) *Resources) *Resources {
	c := &caller{b: b, role: role, rules: map[string][]*model.Rule{}, policies: map[string][]*model.Policy{}}
	var key strings.Builder
	fmt.Fprintf(&key, "%s/%s/%s", role, w.Key.Namespace, variant)
	for i, rule := range b.mesh.Rules {
		if rule.CallerNamespace == "" && rule.Source == nil {
			c.rules[rule.Host] = append(c.rules[rule.Host], rule)
			continue
		}
		if b.binds(rule.CallerNamespace, rule.Source, w) {
			c.rules[rule.Host] = append(c.rules[rule.Host], rule)
			fmt.Fprintf(&key, "/%d", i)
		}
	}
	for i, p := range b.mesh.Policies {
		if !b.binds(p.CallerNamespace, p.Source, w) {
			continue
		}
		c.policies[p.Host] = append(c.policies[p.Host], p)
		if b.scoped[p.Host] {
			fmt.Fprintf(&key, "/p%d", i)
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

// binds says whether a rule or policy for some callers acts on calls from w.
func (b *Builder) binds(namespace string, s *model.Source, w *model.Workload) bool {
	if namespace != "" && namespace != w.Key.Namespace {
		return false
	}
	if s == nil {
		return true
	}
	if s.Namespace != "" && s.Namespace != w.Key.Namespace {
		return false
	}
	member := func(in model.InboundPort) bool { return in.Hostname == s.Host }
	return (s.Host == "" || slices.ContainsFunc(w.Inbound, member)) && selects(s.Labels, w.Labels)
}

// sidecarOutbound is what all sidecars have in common: the way out, but for the routes and for services with policies for some callers alone.
func (b *Builder) sidecarOutbound() *Resources {
	r := &Resources{Clusters: []*Resource{b.blackHole(), b.passthrough()}}
	c := &caller{b: b, role: model.Sidecar, policies: map[string][]*model.Policy{}}
	for _, p := range b.mesh.Policies {
		c.policies[p.Host] = append(c.policies[p.Host], p)
	}
	c.addExternals(r, func(host string) bool { return !b.scoped[host] })
	c.addClusters(r, b.subsets(), func(s subset) bool { return !b.scoped[s.host] })
	for _, port := range b.openPorts {
		r.Listeners = append(r.Listeners, b.outboundAny(port))
	}
	r.Listeners = append(r.Listeners, b.outboundTCPs()...)
	byName(r.Listeners)
	return r
}

// sidecarSubsets are all that a sidecar may be asked to send to.
func (b *Builder) sidecarSubsets() map[subset]selection {
	subsets := map[subset]selection{}
	for _, svc := range b.mesh.Services {
		if svc.ExternalName != "" {
			if _, outside := b.leads(svc); outside == "" {
				continue
			}
		}
		for _, p := range svc.Ports {
			if svc.ExternalName == "" || p.Protocol.IsHTTP() {
				subsets[newSubset(svc.Hostname, p.Number, nil)] = selection{}
			}
		}
	}
	for _, rule := range b.mesh.Rules {
		b.addSubsets(subsets, rule)
	}
	return subsets
}

// addSubsets adds the versions that a rule sends to.
func (b *Builder) addSubsets(subsets map[subset]selection, rule *model.Rule) {
	svc := b.service(rule.Host)
	if svc == nil {
		return
	}
	for _, p := range svc.Ports {
		if !p.Protocol.IsHTTP() {
			continue
		}
		for _, t := range rule.Targets() {
			if s, ok := b.target(t.Host, t.Labels, p); ok {
				subsets[s] = selection{labels: t.Labels}
			}
		}
	}
}

// addClusters adds the clusters and endpoints of the subsets that wanted lets through, and of the shares that policies make of them.
func (c *caller) addClusters(r *Resources, subsets map[subset]selection, wanted func(subset) bool) {
	there := map[subset]bool{}
	for s, which := range subsets {
		if !wanted(s) {
			continue
		}
		svc := c.b.service(s.host)
		i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Number == s.port })
		up := upstreamFor(svc.Ports[i].Protocol, c.role)
		add := func(s subset, which selection) {
			if there[s] {
				return
			}
			there[s] = true
			if svc.ExternalName != "" {
				r.Clusters = append(r.Clusters, c.b.aliasCluster(s, up, svc, c.treatment(s.host, which.labels)))
				return
			}
			r.Clusters = append(r.Clusters, c.b.serviceCluster(s, up, svc, c.treatment(s.host, which.labels)))
			r.Endpoints = append(r.Endpoints, endpoints(s, which, svc, c.b.endpoints(svc)))
		}
		add(s, which)
		if up == notHTTP {
			continue
		}
		shares := c.shares(svc, s.port, which.labels)
		for i, one := range shares {
			add(one.subset, one.selection)
			if len(shares) > 1 {
				r.Clusters = append(r.Clusters, c.b.spread(s, shares, i, svc))
			}
		}
	}
	byName(r.Clusters)
	byName(r.Endpoints)
}

// outboundTCPs are the listeners of all ports that may not be HTTP: one for each address of the service, or of the host outside of the mesh. A
// headless service has no address of its own and needs no listener, because what is not listened for goes where it was going; but where there is
// a listener for all addresses of the port, or what is not listened for is refused, its instances get theirs.
func (b *Builder) outboundTCPs() []*Resource {
	var out []*Resource
	taken := map[string]bool{}
	add := func(host string, p model.Port, cluster, routes string, from model.Ref) {
		name := listenerName(host, p.Number)
		if taken[name] {
			return
		}
		taken[name] = true
		if p.Protocol.IsHTTP() {
			out = append(out, b.outboundDetected(host, p.Number, routes, cluster, from))
		} else {
			out = append(out, outboundTCP(host, p.Number, cluster, from))
		}
	}
	for _, svc := range b.mesh.Services {
		for _, p := range svc.Ports {
			if !p.Protocol.IsTCP() || reserved(p.Number) || svc.ExternalName != "" {
				continue
			}
			for _, a := range svc.Addresses {
				add(a, p, newSubset(svc.Hostname, p.Number, nil).cluster(), detectedRouteName(svc, p), svc.Ref())
			}
			if len(svc.Addresses) > 0 || !b.isOpen(p.Number) && !b.settings().Closed {
				continue
			}
			if p.Protocol.IsHTTP() && !b.saysHTTP(p.Number) && !b.settings().Closed {
				continue // the listener for all addresses tells them apart
			}
			for _, e := range b.endpoints(svc) {
				if e.ServicePort == p.Number && e.Port == p.Number {
					add(e.Address, p, passthroughCluster, routeName(p.Number), svc.Ref())
				}
			}
		}
	}
	for _, outside := range b.mesh.Externals {
		for _, p := range outside.Ports {
			e := externalPort{outside, p}
			// The address of a service is the service's.
			if a, one := e.Address(); e.isTCP() && one && !slices.Contains(b.addressesAt(p.Number), a) {
				add(e.Host, p, e.cluster(), "", e.Ref)
			}
		}
	}
	return out
}

// sidecarRoutes are the routes of all HTTP ports, and the clusters that are not the same for all sidecars.
func (c *caller) sidecarRoutes(namespace string) *Resources {
	r := &Resources{}
	for _, port := range c.b.httpPorts {
		r.Routes = append(r.Routes, c.outboundRoutes(port, namespace))
	}
	for _, svc := range c.b.mesh.Services {
		for _, p := range svc.Ports {
			if p.Protocol.IsHTTP() && p.Protocol.IsTCP() && len(svc.Addresses) > 0 && !reserved(p.Number) {
				r.Routes = append(r.Routes, c.detectedRoutes(svc, p))
			}
		}
	}
	byName(r.Routes)
	if len(c.b.scoped) > 0 {
		c.addExternals(r, func(host string) bool { return c.b.scoped[host] })
		c.addClusters(r, c.b.subsets(), func(s subset) bool { return c.b.scoped[s.host] })
	}
	return r
}

// gateway is all that an ingress gateway is told: what its Ingresses lead to and no more.
func (c *caller) gateway(v4, v6 bool) *Resources {
	r := &Resources{
		Clusters:  []*Resource{c.b.blackHole()},
		Listeners: c.b.ingressListeners(v4, v6),
		Routes:    c.ingressRoutes(),
		Secrets:   c.b.ingressSecrets(),
	}
	subsets := map[subset]selection{}
	for _, in := range c.b.ingress() {
		svc, port, ok := c.b.ingressBackend(in)
		if !ok {
			continue
		}
		subsets[newSubset(svc.Hostname, port.Number, nil)] = selection{}
		for _, rule := range c.rulesFor(svc.Hostname) {
			c.b.addSubsets(subsets, rule)
		}
	}
	c.addClusters(r, subsets, func(subset) bool { return true })
	return r
}
