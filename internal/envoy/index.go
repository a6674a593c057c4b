package envoy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/model"
)

// input is something that units read: a part of the mesh that changes as one.
type input struct {
	kind inputKind
	// name is a hostname or a pod's name, namespace one of either.
	name, namespace string
	port            uint32
}

type inputKind uint8

const (
	// aService is the service of a name, but for its endpoints.
	aService inputKind = iota
	endpointsOf
	anExternal
	rulesFor
	policiesFor
	// domainsOf are the names by which the service or external of a name is called.
	domainsOf
	// externalsAt a port, all together.
	externalsAt
	// routedPort and saysHTTP are what is known of a port.
	routedPort
	saysHTTP
	openPort
	// addressesAt a port, of the services that have it as an HTTP port.
	addressesAt
	aWorkload
	// ingressRules are those of all Ingresses.
	ingressRules
	ingressCertificates
	// callersIn, callersOf and anyCallers are the rules and policies for some callers alone: those of a namespace, those of a service, and the
	// others.
	callersIn
	callersOf
	anyCallers
)

// index is the mesh as units read it. It follows the mesh by what is not the same object any more.
type index struct {
	mesh *model.Mesh
	// settings is the mesh without what is indexed below.
	settings  *model.Mesh
	services  map[string]*model.Service
	instances map[string]*model.Endpoints
	externals map[string][]*model.External
	workloads map[model.WorkloadKey]*model.Workload
	rules     map[string]scoped[*model.Rule]
	policies  map[string]scoped[*model.Policy]
	// callers are the rules and policies for some callers alone, by the input that says which.
	callers map[input][]binding
	ports   map[uint32]*portFacts
	claims  claims
}

// scoped is a host's rules or policies in the mesh's order.
type scoped[T any] struct {
	all []T
	// some says that there is one for some callers alone.
	some bool
}

// portFacts counts who has a port.
type portFacts struct {
	// routed by the name asked for, whatever the address: hosts outside, and services that say HTTP or have no address of their own.
	routed int
	// says counts those that say HTTP.
	says int
	// open counts those that need a listener for all addresses.
	open int
	// addresses of the services that have it as an HTTP port, sorted.
	addresses []string
	// externals by host.
	externals []externalPort
}

// binding is a rule or a policy for some callers alone.
type binding struct {
	rule   *model.Rule
	policy *model.Policy
}

func newIndex() *index {
	return &index{
		mesh: &model.Mesh{}, settings: &model.Mesh{},
		services: map[string]*model.Service{}, instances: map[string]*model.Endpoints{}, externals: map[string][]*model.External{},
		workloads: map[model.WorkloadKey]*model.Workload{}, rules: map[string]scoped[*model.Rule]{}, policies: map[string]scoped[*model.Policy]{},
		callers: map[input][]binding{}, ports: map[uint32]*portFacts{}, claims: claims{},
	}
}

// settingsOf is the mesh without the lists that the index follows. A list that it does not know is a setting: when it changes, everything is made anew.
func settingsOf(mesh *model.Mesh) *model.Mesh {
	out := *mesh
	out.Services, out.Endpoints, out.Workloads, out.Rules, out.Policies, out.Externals, out.Ingress, out.IngressTLS = nil, nil, nil, nil, nil, nil, nil, nil
	return &out
}

// changes is what one step of the index changes.
type changes struct {
	inputs map[input]struct{}
	// bound are inputs that have changed for those callers alone to whom a rule or policy is bound.
	bound map[input]struct{}
	// came and went are names that mean something else to callers in the namespace of the service they are of.
	came, went []*model.Service
}

func (c *changes) dirty(i input) { c.inputs[i] = struct{}{} }

// follow makes the index one of mesh, and says what changed.
func (x *index) follow(mesh *model.Mesh) *changes {
	was := x.mesh
	x.mesh, x.settings = mesh, settingsOf(mesh)
	c := &changes{inputs: map[input]struct{}{}, bound: map[input]struct{}{}}
	differing(was.Services, mesh.Services,
		func(s *model.Service) { x.removeService(c, s) }, func(s *model.Service) { x.addService(c, s) })
	differing(was.Endpoints, mesh.Endpoints,
		func(e *model.Endpoints) {
			delete(x.instances, e.Hostname)
			c.dirty(input{kind: endpointsOf, name: e.Hostname})
		}, func(e *model.Endpoints) {
			x.instances[e.Hostname] = e
			c.dirty(input{kind: endpointsOf, name: e.Hostname})
		})
	differing(was.Workloads, mesh.Workloads,
		func(w *model.Workload) {
			delete(x.workloads, w.Key)
			c.dirty(workloadInput(w.Key))
		}, func(w *model.Workload) {
			x.workloads[w.Key] = w
			c.dirty(workloadInput(w.Key))
		})
	differing(was.Externals, mesh.Externals,
		func(e *model.External) { x.removeExternal(c, e) }, func(e *model.External) { x.addExternal(c, e) })
	followScoped(x, c, x.rules, rulesFor, was.Rules, mesh.Rules, func(r *model.Rule) (string, binding, bool) {
		return r.Host, binding{rule: r}, r.CallerNamespace != "" || r.Source != nil
	})
	followScoped(x, c, x.policies, policiesFor, was.Policies, mesh.Policies, func(p *model.Policy) (string, binding, bool) {
		return p.Host, binding{policy: p}, p.CallerNamespace != "" || p.Source != nil
	})
	if !slices.Equal(was.Ingress, mesh.Ingress) {
		c.dirty(input{kind: ingressRules})
	}
	if !slices.Equal(was.IngressTLS, mesh.IngressTLS) {
		c.dirty(input{kind: ingressCertificates})
	}
	return c
}

// differing calls what is told of each object that only one of two lists has: first of all that are gone, as they may make way.
func differing[T any](was, is []*T, removed, added func(*T)) {
	if len(was) == len(is) && (len(is) == 0 || &was[0] == &is[0]) {
		return
	}
	for len(was) > 0 && len(is) > 0 && was[0] == is[0] {
		was, is = was[1:], is[1:]
	}
	for len(was) > 0 && len(is) > 0 && was[len(was)-1] == is[len(is)-1] {
		was, is = was[:len(was)-1], is[:len(is)-1]
	}
	only := func(list, other []*T, tell func(*T)) {
		there := make(map[*T]struct{}, len(other))
		for _, o := range other {
			there[o] = struct{}{}
		}
		for _, o := range list {
			if _, both := there[o]; !both {
				tell(o)
			}
		}
	}
	only(was, is, removed)
	only(is, was, added)
}

func (x *index) removeService(c *changes, s *model.Service) {
	delete(x.services, s.Hostname)
	c.dirty(input{kind: aService, name: s.Hostname})
	c.went = append(c.went, s)
	for _, p := range s.Ports {
		x.count(c, s, p, -1)
	}
	x.eachClaim(s, func(at claim, by claimant) { x.claims.release(c, at, by) })
}

func (x *index) addService(c *changes, s *model.Service) {
	x.services[s.Hostname] = s
	c.dirty(input{kind: aService, name: s.Hostname})
	c.came = append(c.came, s)
	for _, p := range s.Ports {
		x.count(c, s, p, 1)
	}
	x.eachClaim(s, func(at claim, by claimant) { x.claims.take(c, at, by) })
}

// count notes that a service has a port, or no longer has it.
func (x *index) count(c *changes, s *model.Service, p model.Port, n int) {
	if !p.Protocol.IsHTTP() || reserved(p.Number) {
		return
	}
	routed, says := 0, 0
	if !p.Protocol.IsTCP() || len(s.Addresses) == 0 {
		routed = n
	}
	if !p.Protocol.IsTCP() {
		says = n
	}
	f := x.port(c, p.Number, routed, says, routed)
	for _, a := range s.Addresses {
		f.addresses = slices.Clone(f.addresses)
		if n < 0 {
			if i := slices.Index(f.addresses, a); i >= 0 {
				f.addresses = slices.Delete(f.addresses, i, i+1)
			}
		} else {
			f.addresses = append(f.addresses, a)
			slices.Sort(f.addresses)
		}
		c.dirty(input{kind: addressesAt, port: p.Number})
	}
}

// port adds to what is counted of a port, and says when an answer about it changes.
func (x *index) port(c *changes, number uint32, routed, says, open int) *portFacts {
	f := x.ports[number]
	if f == nil {
		f = &portFacts{}
		x.ports[number] = f
	}
	was := *f
	f.routed += routed
	f.says += says
	f.open += open
	if (was.open > 0) != (f.open > 0) {
		c.dirty(input{kind: openPort, port: number})
	}
	if (was.routed > 0) != (f.routed > 0) {
		c.dirty(input{kind: routedPort, port: number})
	}
	if (was.says > 0) != (f.says > 0) {
		c.dirty(input{kind: saysHTTP, port: number})
	}
	return f
}

// externalPort notes that a host outside has a port, or no longer has it.
func (x *index) externalPort(c *changes, e *model.External, p model.Port, n int) *portFacts {
	routed, open := 0, 0
	at := externalPort{External: e, port: p}
	if at.isHTTP() {
		routed = n
	}
	if at.needsAny() {
		open = n
	}
	return x.port(c, p.Number, routed, routed, open)
}

func (x *index) removeExternal(c *changes, e *model.External) {
	if x.externals[e.Host] = slices.DeleteFunc(slices.Clone(x.externals[e.Host]), func(o *model.External) bool { return o == e }); len(x.externals[e.Host]) == 0 {
		delete(x.externals, e.Host)
	}
	c.dirty(input{kind: anExternal, name: e.Host})
	for _, p := range e.Ports {
		f := x.externalPort(c, e, p, -1)
		f.externals = slices.DeleteFunc(slices.Clone(f.externals), func(o externalPort) bool { return o.External == e })
		c.dirty(input{kind: externalsAt, port: p.Number})
		x.claims.release(c, claimOf(p.Number, hostOf(e.Host)), claimant{host: e.Host, rank: outside})
	}
}

func (x *index) addExternal(c *changes, e *model.External) {
	x.externals[e.Host] = append(slices.Clip(x.externals[e.Host]), e)
	c.dirty(input{kind: anExternal, name: e.Host})
	for _, p := range e.Ports {
		f := x.externalPort(c, e, p, 1)
		f.externals = append(slices.Clone(f.externals), externalPort{External: e, port: p})
		slices.SortFunc(f.externals, func(a, b externalPort) int { return strings.Compare(a.Host, b.Host) })
		c.dirty(input{kind: externalsAt, port: p.Number})
		x.claims.take(c, claimOf(p.Number, hostOf(e.Host)), claimant{host: e.Host, rank: outside})
	}
}

// followScoped keeps the lists of the hosts that a list of rules or policies is about.
func followScoped[T any](x *index, c *changes, byHost map[string]scoped[*T], kind inputKind, was, is []*T, about func(*T) (string, binding, bool)) {
	hosts := map[string][]*T{}
	differing(was, is, func(r *T) {
		host, b, some := about(r)
		hosts[host] = nil
		if some {
			at := b.callers()
			x.callers[at] = slices.DeleteFunc(slices.Clone(x.callers[at]), func(o binding) bool { return o == b })
			if len(x.callers[at]) == 0 {
				delete(x.callers, at)
			}
			c.dirty(at)
		}
	}, func(r *T) {
		host, b, some := about(r)
		hosts[host] = nil
		if some {
			at := b.callers()
			x.callers[at] = append(slices.Clip(x.callers[at]), b)
			c.dirty(at)
		}
	})
	if len(hosts) == 0 {
		return
	}
	for _, r := range is {
		host, _, _ := about(r)
		if list, affected := hosts[host]; affected {
			hosts[host] = append(list, r)
		}
	}
	for host, list := range hosts {
		some := func(r *T) bool { _, _, some := about(r); return some }
		now := scoped[*T]{all: list, some: slices.ContainsFunc(list, some)}
		before := byHost[host]
		if len(list) == 0 {
			delete(byHost, host)
		} else {
			byHost[host] = now
		}
		if !slices.Equal(without(before, some), without(now, some)) {
			c.dirty(input{kind: kind, name: host})
		}
		if before.some || now.some {
			c.bound[input{kind: kind, name: host}] = struct{}{}
		}
	}
}

// without is the list without those for some callers alone.
func without[T any](s scoped[*T], some func(*T) bool) []*T {
	if !s.some {
		return s.all
	}
	return slices.DeleteFunc(slices.Clone(s.all), some)
}

func workloadInput(key model.WorkloadKey) input {
	return input{kind: aWorkload, name: key.Name, namespace: key.Namespace}
}

// callers says who may be bound, as narrowly as one input can.
func (b binding) callers() input {
	namespace, s := b.scope()
	switch {
	case s != nil && s.Host != "":
		return input{kind: callersOf, name: s.Host}
	case namespace != "":
		return input{kind: callersIn, namespace: namespace}
	case s != nil && s.Namespace != "":
		return input{kind: callersIn, namespace: s.Namespace}
	}
	return input{kind: anyCallers}
}

func (b binding) scope() (namespace string, s *model.Source) {
	if b.rule != nil {
		return b.rule.CallerNamespace, b.rule.Source
	}
	return b.policy.CallerNamespace, b.policy.Source
}

// input is what has another value for whom the rule or policy binds.
func (b binding) input() input {
	if b.rule != nil {
		return input{kind: rulesFor, name: b.rule.Host}
	}
	return input{kind: policiesFor, name: b.policy.Host}
}

// binds says whether a rule or policy for some callers acts on calls from w.
func (b binding) binds(w *model.Workload) bool {
	namespace, s := b.scope()
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

// reserved says whether a service's port is one that the mesh keeps for itself; it cannot be captured.
func reserved(port uint32) bool { return port == outboundPort || port == inboundPort }

// id tells rules and policies apart as long as they are kept.
func (b binding) id() string {
	if b.rule != nil {
		return fmt.Sprintf("%p", b.rule)
	}
	return fmt.Sprintf("%p", b.policy)
}
