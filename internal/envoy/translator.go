package envoy

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshctl/meshctl/internal/memo"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
)

// Translator translates a mesh for any number of proxies, again and again as it changes: what it makes anew is what a change concerns. Its result is
// always that of a new Translator for the same mesh. It is safe for concurrent use.
//
// Proxies share what they see alike. All of a role have one layer; on it is one for each namespace, whose callers know short names of its services; on
// that one for callers that rules or policies for some callers alone are bound to. A layer has only what differs from the one below.
// What stands beside one proxy only, its way in, is made for each.
type Translator struct {
	mu         sync.Mutex
	generation uint64
	index      *index
	layers     map[layerKey]*layer
	// order has each layer behind the one below it.
	order []*layer
	// places are the layers of proxies, and own is what is theirs alone.
	places *memo.Table[proxyKey, input, *layer]
	own    *memo.Table[proxyKey, input, []*Resource]
	seen   map[proxyKey]*seen
}

// idle is for how many updates what nobody asks for is kept.
const idle = 16

// proxyKey tells proxies apart by all that translation may depend on.
type proxyKey struct {
	role     model.ProxyType
	workload model.WorkloadKey
	// unknown is what the proxy says of itself.
	unknown  string
	unproven bool
}

// seen is what a proxy was told.
type seen struct {
	used     uint64
	own      []*Resource
	sets     sets
	layer    *layer
	version  uint64
	hosts    bool
	snapshot *resource.Snapshot
}

// NewTranslator makes a translator of an empty mesh.
func NewTranslator() *Translator {
	t := &Translator{seen: map[proxyKey]*seen{}}
	t.reset()
	return t
}

func (t *Translator) reset() {
	t.index, t.layers, t.order = newIndex(), map[layerKey]*layer{}, nil
	t.places, t.own = memo.New[proxyKey, input, *layer](), memo.New[proxyKey, input, []*Resource]()
}

// Update goes on to mesh, whose objects must not change any more. Objects that are the same as in the mesh before are taken to be unchanged.
func (t *Translator) Update(mesh *model.Mesh) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.generation++
	if !reflect.DeepEqual(settingsOf(mesh), t.index.settings) {
		t.reset()
	}
	c := t.index.follow(mesh)
	inputs := slices.Collect(maps.Keys(c.inputs))
	t.places.Changed(inputs...)
	t.own.Changed(inputs...)
	for _, l := range t.order {
		l.update(c, inputs)
	}
	for _, l := range t.order {
		l.changes = nil
	}
	if t.generation%idle == 0 {
		t.sweep()
	}
}

// sweep forgets what nobody has asked for since the last time.
func (t *Translator) sweep() {
	old := func(used uint64) bool { return used+idle < t.generation }
	for key, s := range t.seen {
		if old(s.used) {
			delete(t.seen, key)
			t.places.Drop(key)
			t.own.Drop(key)
		}
	}
	// Layers above go before those below.
	for i := len(t.order) - 1; i >= 0; i-- {
		if l := t.order[i]; old(l.used) {
			delete(t.layers, l.key)
			t.order = slices.Delete(t.order, i, i+1)
		}
	}
}

// Snapshot is what proxy is told of the mesh that was last given to Update.
func (t *Translator) Snapshot(proxy model.Proxy) *resource.Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := proxyKey{role: proxy.Type, workload: proxy.Workload, unknown: strings.Join(proxy.Addresses, " ") + " " + formatLabels(proxy.Labels), unproven: proxy.Unproven}
	place := t.places.Get(key, func(read func(input)) *layer { return t.place(proxy, read) })
	own := t.own.Get(key, func(read func(input)) []*Resource { return t.ownOf(proxy, read) })
	for l := place; l != nil; l = l.below {
		l.used = t.generation
	}
	s := t.seen[key]
	if s == nil {
		s = &seen{}
		t.seen[key] = s
	}
	s.used = t.generation
	if s.snapshot != nil && s.layer == place && s.version == place.version && s.hosts == proxy.VirtualHosts && same(s.own, own) {
		return s.snapshot
	}
	s.layer, s.version, s.hosts = place, place.version, proxy.VirtualHosts
	if !same(s.own, own) {
		s.sets.replace(s.own, own)
		s.own = own
	}
	s.snapshot = place.snapshot(&s.sets, proxy.VirtualHosts)
	return s.snapshot
}

// same says whether both are one slice.
func same(a, b []*Resource) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// workload is the pod of a proxy, or what the proxy says of itself as long as the mesh does not know the pod.
func (b *Builder) workloadOf(p model.Proxy) *model.Workload {
	if w := b.workload(p.Workload); w != nil {
		return w
	}
	return &model.Workload{Key: p.Workload, Addresses: p.Addresses, Labels: p.Labels}
}

// place finds the layer of a proxy.
func (t *Translator) place(p model.Proxy, read func(input)) *layer {
	w := (&Builder{index: t.index, read: read}).workloadOf(p)
	l := t.layer(layerKey{role: p.Type}, nil, view{role: p.Type})
	if p.Type == model.Egress {
		return l
	}
	namespace := ""
	if p.Type == model.Sidecar {
		namespace = w.Key.Namespace
		l = t.layer(layerKey{role: p.Type, namespace: namespace}, l, view{role: p.Type, namespace: namespace})
	}
	bound := map[binding]bool{}
	look := func(i input) {
		read(i)
		for _, b := range t.index.callers[i] {
			if b.binds(w) {
				bound[b] = true
			}
		}
	}
	look(input{kind: anyCallers})
	look(input{kind: callersIn, namespace: w.Key.Namespace})
	for _, in := range w.Inbound {
		look(input{kind: callersOf, name: in.Hostname})
	}
	if len(bound) == 0 {
		return l
	}
	return t.layer(layerKey{role: p.Type, namespace: namespace, bound: boundKey(bound)}, l, view{role: p.Type, namespace: namespace, bound: bound})
}

// layer is the one of the key, made when there is none yet.
func (t *Translator) layer(key layerKey, below *layer, v view) *layer {
	l := t.layers[key]
	if l == nil {
		l = newLayer(t.index, key, below, v)
		t.layers[key] = l
		t.order = append(t.order, l)
	}
	l.used = t.generation
	return l
}

// ownOf makes what is a proxy's alone.
func (t *Translator) ownOf(p model.Proxy, read func(input)) []*Resource {
	b := &Builder{index: t.index, read: read}
	w := b.workloadOf(p)
	v4, v6 := families(w.Addresses)
	switch p.Type {
	case model.Sidecar:
		return b.inbound(w, v4, v6)
	case model.Ingress:
		return b.ingressOwn(v4, v6, p.Unproven)
	case model.Egress:
	}
	return nil
}

// kinds of resources, in no order that matters.
type kind int

const (
	clusterKind kind = iota
	endpointKind
	listenerKind
	routeKind
	virtualHostKind
	secretKind
	// wholeKind are route configurations without their virtual hosts, to which these are added for proxies that do not take them on their own.
	wholeKind
	kinds
)

// wholeType stands for wholeKind.
const wholeType = "whole"

func kindOf(r *Resource) kind {
	switch r.TypeURL {
	case ClusterType:
		return clusterKind
	case EndpointType:
		return endpointKind
	case ListenerType:
		return listenerKind
	case RouteType:
		return routeKind
	case VirtualHostType:
		return virtualHostKind
	case SecretType:
		return secretKind
	default:
		return wholeKind
	}
}

// sets are resources of each kind.
type sets [kinds]*resource.Set

// replace puts is in place of was.
func (s *sets) replace(was, is []*Resource) {
	var e edits
	for _, r := range was {
		e.drop(r)
	}
	for _, r := range is {
		e.put(r)
	}
	e.apply(s)
}

// edits are changes of sets.
type edits struct {
	in  [kinds][]*Resource
	out [kinds][]string
}

func (e *edits) put(r *Resource)  { k := kindOf(r); e.in[k] = append(e.in[k], r) }
func (e *edits) drop(r *Resource) { k := kindOf(r); e.out[k] = append(e.out[k], r.Name) }

// apply makes the edits; what is put is not dropped. It says whether anything changed.
func (e *edits) apply(s *sets) bool {
	changed := false
	for k := range kinds {
		if len(e.in[k])+len(e.out[k]) == 0 {
			continue
		}
		next := s[k].With(e.in[k], e.out[k])
		changed = changed || next != s[k]
		s[k] = next
	}
	return changed
}

// layerKey tells layers apart. Rules and policies are those objects: when one is changed, the layer for it is another.
type layerKey struct {
	role      model.ProxyType
	namespace string
	bound     string
}

func boundKey(bound map[binding]bool) string {
	var names []string
	for b := range bound {
		names = append(names, b.id())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// layer is what a view of the mesh consists of.
type layer struct {
	key   layerKey
	index *index
	below *layer
	view
	units   *memo.Layer[unit, input, []*Resource]
	changes []memo.Change[unit, []*Resource]
	sets    sets
	// listeners are the layer's own units that make a listener of the name. Two services may have one address.
	listeners map[string][]unit
	// version counts the changes.
	version uint64
	used    uint64
	// tables are whole route configurations, of which those of the ports in stale are out of date.
	tables *resource.Set
	stale  map[string]bool
}

func newLayer(x *index, key layerKey, below *layer, v view) *layer {
	l := &layer{key: key, index: x, below: below, view: v, listeners: map[string][]unit{}, stale: map[string]bool{}}
	var units *memo.Layer[unit, input, []*Resource]
	u := memo.Update[unit, input, []*Resource]{}
	if below == nil {
		u.Roots = x.roots()
	} else {
		units, l.sets, l.tables, l.stale = below.units, below.sets, below.tables, maps.Clone(below.stale)
		for _, s := range x.mesh.Services {
			u.Parts = append(u.Parts, l.ownNames(s)...)
		}
		for b := range v.bound {
			u.Parts = append(u.Parts, b.input())
		}
	}
	l.units = memo.NewLayer(units, memo.Plan[unit, input, []*Resource]{
		Root: func(u unit) bool { return x.root(u, v.role) },
		Make: func(key unit, m *memo.Making[unit, input], was []*Resource) []*Resource {
			c := &caller{b: &Builder{index: x, read: m.Read, want: m.Want}, view: v}
			return keeping(was, c.make(key))
		},
	})
	l.apply(l.units.Update(u))
	l.changes = nil
	return l
}

// ownNames are the inputs with other values for callers in the namespace of a service than for others.
func (l *layer) ownNames(s *model.Service) []input {
	if l.bound != nil || l.namespace == "" || s.Namespace != l.namespace {
		return nil
	}
	// A host outside may have the service's short name.
	return []input{{kind: domainsOf, name: s.Hostname}, {kind: domainsOf, name: s.Name}}
}

// roots are the units that may be there by themselves.
func (x *index) roots() []unit {
	out := []unit{{kind: meshUnit}, {kind: gatewayUnit}}
	for host := range x.services {
		out = append(out, unit{kind: serviceUnit, host: host})
	}
	for host := range x.externals {
		out = append(out, unit{kind: externalUnit, host: host})
	}
	for port := range x.ports {
		out = append(out, unit{kind: portUnit, port: port})
	}
	return out
}

// update follows the index.
func (l *layer) update(c *changes, inputs []input) {
	u := memo.Update[unit, input, []*Resource]{Changed: inputs}
	if l.below == nil {
		for _, i := range inputs {
			if root, ok := rootOf(i); ok {
				u.Roots = append(u.Roots, root)
			}
		}
	} else {
		u.Below = l.below.changes
		u.Changed = slices.AppendSeq(slices.Clip(u.Changed), maps.Keys(c.bound))
		for _, s := range c.went {
			if l.index.services[s.Hostname] == nil {
				u.Joins = append(u.Joins, l.ownNames(s)...)
			}
		}
		for _, s := range c.came {
			u.Parts = append(u.Parts, l.ownNames(s)...)
		}
	}
	l.changes = l.units.Update(u)
	l.apply(l.changes)
}

// apply brings the sets up to date with changed units.
func (l *layer) apply(changed []memo.Change[unit, []*Resource]) {
	var e edits
	contested := map[string]*Resource{}
	for _, c := range changed {
		for _, r := range c.Was {
			if r.TypeURL != ListenerType {
				e.drop(r)
				l.outdate(r)
				continue
			}
			contested[r.Name] = r
			if c.WasOwn {
				if l.listeners[r.Name] = slices.DeleteFunc(l.listeners[r.Name], func(u unit) bool { return u == c.Key }); len(l.listeners[r.Name]) == 0 {
					delete(l.listeners, r.Name)
				}
			}
		}
		for _, r := range c.Is {
			if r.TypeURL != ListenerType {
				e.put(r)
				l.outdate(r)
				continue
			}
			contested[r.Name] = r
			if c.IsOwn {
				l.listeners[r.Name] = append(l.listeners[r.Name], c.Key)
			}
		}
	}
	for name, r := range contested {
		if first := l.first(name); first != nil {
			e.put(first)
		} else {
			e.drop(r)
		}
	}
	if e.apply(&l.sets) {
		l.version++
	}
}

// first is the listener of the name, of several the one of the first service by name.
func (l *layer) first(name string) *Resource {
	var makers []unit
	for at := l; at != nil; at = at.below {
		for _, u := range at.listeners[name] {
			if !slices.Contains(makers, u) {
				makers = append(makers, u)
			}
		}
	}
	slices.SortFunc(makers, unit.compare)
	for _, u := range makers {
		made, _ := l.units.Get(u)
		if i := slices.IndexFunc(made, func(r *Resource) bool { return r.TypeURL == ListenerType && r.Name == name }); i >= 0 {
			return made[i]
		}
	}
	return nil
}

// outdate notes that a whole route configuration has to be put together again.
func (l *layer) outdate(r *Resource) {
	switch kindOf(r) {
	case wholeKind, routeKind:
		l.stale[r.Name] = true
	case virtualHostKind:
		l.stale[tableOf(r)] = true
	}
}

// tableOf is the name of a virtual host's route configuration.
func tableOf(r *Resource) string {
	name, _, _ := strings.Cut(r.Name, "/")
	return name
}

// keeping is made, with the resources of was wherever they are the same.
func keeping(was, made []*Resource) []*Resource {
	all := len(was) == len(made)
	for i, r := range made {
		at := slices.IndexFunc(was, func(o *Resource) bool { return o.Name == r.Name && o.TypeURL == r.TypeURL })
		if at >= 0 && was[at].Version == r.Version && slices.Equal(was[at].Refs, r.Refs) {
			made[i] = was[at]
			all = all && at == i
		} else {
			all = false
		}
	}
	if all {
		return was
	}
	return made
}

// snapshot is what a proxy of the layer is told that has own.
func (l *layer) snapshot(own *sets, hosts bool) *resource.Snapshot {
	group := func(k kind) resource.Group {
		if own[k].Len() == 0 {
			return resource.Group{l.sets[k]}
		}
		return resource.Group{l.sets[k], own[k]}
	}
	s := &resource.Snapshot{Clusters: group(clusterKind), Endpoints: group(endpointKind), Listeners: group(listenerKind), Secrets: group(secretKind)}
	if hosts {
		s.Routes, s.VirtualHosts = group(routeKind), group(virtualHostKind)
	} else {
		s.Routes = resource.Group{l.whole()}
	}
	return s
}

// whole are the route configurations with their virtual hosts in them.
func (l *layer) whole() *resource.Set {
	if len(l.stale) == 0 && l.tables != nil {
		return l.tables
	}
	var e edits
	tables := map[string][]*Resource{}
	for _, host := range l.sets[virtualHostKind].Sorted() {
		if name := tableOf(host); l.stale[name] {
			tables[name] = append(tables[name], host)
		}
	}
	for r := range l.sets[routeKind].All() {
		// Those without virtual hosts of their own.
		if l.sets[wholeKind].Get(r.Name) == nil {
			e.put(r)
		}
	}
	for name := range l.stale {
		if start := l.sets[wholeKind].Get(name); start != nil {
			e.put(table(start, tables[name]))
		}
	}
	for r := range l.tables.All() {
		if l.sets[routeKind].Get(r.Name) == nil {
			e.drop(r)
		}
	}
	l.tables, l.stale = l.tables.With(e.in[routeKind], e.out[routeKind]), map[string]bool{}
	return l.tables
}

// table joins virtual hosts to a route configuration: field virtual_hosts = 2, once for each, wherever they stand.
func table(start *Resource, hosts []*Resource) *Resource {
	size := len(start.Value)
	for _, h := range hosts {
		size += protowire.SizeTag(2) + protowire.SizeBytes(len(h.Value))
	}
	body := make([]byte, 0, size)
	var refs []model.Ref
	for _, h := range hosts {
		body = protowire.AppendBytes(protowire.AppendTag(body, 2, protowire.BytesType), h.Value)
		refs = append(refs, h.Refs...)
	}
	return resource.New(RouteType, start.Name, append(body, start.Value...), sortedRefs(refs)...)
}
