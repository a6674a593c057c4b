package meshd

import (
	"sync"
	"weak"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/xds"
)

// translator makes an xds.Source of each mesh, reusing the resources and sets of the one before wherever they are equal: that is what makes
// unchanged things cost nothing on the way to the proxies.
type translator struct {
	mu sync.Mutex
	// last is what each proxy was given most recently, as long as something still uses it.
	last map[proxyKey]weak.Pointer[xds.Snapshot]
}

type proxyKey struct {
	role      model.ProxyType
	workload  model.WorkloadKey
	addresses string
}

func newTranslator() *translator { return &translator{last: map[proxyKey]weak.Pointer[xds.Snapshot]{}} }

// source is the translation of one mesh, made for each proxy when it is first asked for.
type source struct {
	translator *translator
	builder    *envoy.Builder

	mu        sync.Mutex
	snapshots map[proxyKey]func() *xds.Snapshot
	sets      map[sliceID]func() *xds.Set
	resources map[*envoy.Resource]*xds.Resource
}

// sliceID tells slices apart by their place in memory. The builder shares slices between proxies, and never changes them.
type sliceID struct {
	first **envoy.Resource
	n     int
}

func (t *translator) source(mesh *model.Mesh) *source {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, p := range t.last {
		if p.Value() == nil {
			delete(t.last, k)
		}
	}
	return &source{
		translator: t, builder: envoy.NewBuilder(mesh),
		snapshots: map[proxyKey]func() *xds.Snapshot{}, sets: map[sliceID]func() *xds.Set{}, resources: map[*envoy.Resource]*xds.Resource{},
	}
}

// Snapshot implements xds.Source.
func (s *source) Snapshot(p model.Proxy) *xds.Snapshot {
	key := proxyKey{role: p.Type, workload: p.Workload}
	for _, a := range p.Addresses {
		key.addresses += a + " "
	}
	s.mu.Lock()
	once := s.snapshots[key]
	if once == nil {
		once = sync.OnceValue(func() *xds.Snapshot { return s.make(key, p) })
		s.snapshots[key] = once
	}
	s.mu.Unlock()
	return once()
}

func (s *source) make(key proxyKey, p model.Proxy) *xds.Snapshot {
	r := s.builder.For(p)
	t := s.translator
	t.mu.Lock()
	last := t.last[key].Value()
	t.mu.Unlock()
	if last == nil {
		last = &xds.Snapshot{}
	}
	snap := &xds.Snapshot{
		Clusters: s.group(r.Clusters, last.Clusters), Endpoints: s.group(r.Endpoints, last.Endpoints),
		Listeners: s.group(r.Listeners, last.Listeners), Routes: s.group(r.Routes, last.Routes),
	}
	t.mu.Lock()
	t.last[key] = weak.Make(snap)
	t.mu.Unlock()
	return snap
}

func (s *source) group(rs []*envoy.Resource, last xds.Group) xds.Group {
	var was *xds.Set
	if len(last) > 0 {
		was = last[0]
	}
	id := sliceID{n: len(rs)}
	if len(rs) > 0 {
		id.first = &rs[0]
	}
	s.mu.Lock()
	once := s.sets[id]
	if once == nil {
		once = sync.OnceValue(func() *xds.Set { return s.set(rs, was) })
		s.sets[id] = once
	}
	s.mu.Unlock()
	return xds.Group{once()}
}

// set is was when nothing changed, and otherwise has its resources wherever they did not.
func (s *source) set(rs []*envoy.Resource, was *xds.Set) *xds.Set {
	out := make([]*xds.Resource, len(rs))
	same := was.Len() == len(rs)
	for i, r := range rs {
		if old := was.Get(r.Name); old != nil && old.Version == r.Version {
			out[i] = old
			continue
		}
		same = false
		out[i] = s.resource(r)
	}
	if same && was != nil {
		return was
	}
	return xds.NewSet(out...)
}

func (s *source) resource(r *envoy.Resource) *xds.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.resources[r]
	if x == nil {
		x = xds.NewResource(r.Name, r.Version, r.Body, r.Refs)
		s.resources[r] = x
	}
	return x
}
