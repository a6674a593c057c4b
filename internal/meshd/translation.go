package meshd

import (
	"sync"
	"weak"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
)

// translator makes an xds.Source of each mesh, reusing the resources and sets of the one before wherever they are equal: that is what makes
// unchanged things cost nothing on the way to the proxies.
type translator struct {
	mu sync.Mutex
	// last is what each proxy was given most recently, as long as something still uses it.
	last map[proxyKey]weak.Pointer[resource.Snapshot]
}

type proxyKey struct {
	role      model.ProxyType
	workload  model.WorkloadKey
	addresses string
	unproven  bool
}

func newTranslator() *translator {
	return &translator{last: map[proxyKey]weak.Pointer[resource.Snapshot]{}}
}

// source is the translation of one mesh, made for each proxy when it is first asked for.
type source struct {
	translator *translator
	builder    *envoy.Builder

	mu        sync.Mutex
	snapshots map[proxyKey]func() *resource.Snapshot
	sets      map[sliceID]func() *resource.Set
	resources map[*envoy.Resource]*resource.Resource
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
		snapshots: map[proxyKey]func() *resource.Snapshot{}, sets: map[sliceID]func() *resource.Set{}, resources: map[*envoy.Resource]*resource.Resource{},
	}
}

// Snapshot implements xds.Source.
func (s *source) Snapshot(p model.Proxy) *resource.Snapshot {
	key := proxyKey{role: p.Type, workload: p.Workload, unproven: p.Unproven}
	for _, a := range p.Addresses {
		key.addresses += a + " "
	}
	s.mu.Lock()
	once := s.snapshots[key]
	if once == nil {
		once = sync.OnceValue(func() *resource.Snapshot { return s.make(key, p) })
		s.snapshots[key] = once
	}
	s.mu.Unlock()
	return once()
}

func (s *source) make(key proxyKey, p model.Proxy) *resource.Snapshot {
	r := s.builder.For(p)
	t := s.translator
	t.mu.Lock()
	last := t.last[key].Value()
	t.mu.Unlock()
	if last == nil {
		last = &resource.Snapshot{}
	}
	snap := &resource.Snapshot{
		Clusters: s.group(r.Clusters, last.Clusters), Endpoints: s.group(r.Endpoints, last.Endpoints),
		Listeners: s.group(r.Listeners, last.Listeners), Routes: s.group(r.Routes, last.Routes),
		Secrets: s.group(r.Secrets, last.Secrets),
	}
	t.mu.Lock()
	t.last[key] = weak.Make(snap)
	t.mu.Unlock()
	return snap
}

func (s *source) group(rs []*envoy.Resource, last resource.Group) resource.Group {
	var was *resource.Set
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
		once = sync.OnceValue(func() *resource.Set { return s.set(rs, was) })
		s.sets[id] = once
	}
	s.mu.Unlock()
	return resource.Group{once()}
}

// set shares with was whatever did not change.
func (s *source) set(rs []*envoy.Resource, was *resource.Set) *resource.Set {
	var put []*resource.Resource
	for _, r := range rs {
		if old := was.Get(r.Name); old == nil || old.Version != r.Version {
			put = append(put, s.resource(r))
		}
	}
	next := was.With(put, nil)
	if next.Len() == len(rs) {
		return next
	}
	meant := make(map[string]bool, len(rs))
	for _, r := range rs {
		meant[r.Name] = true
	}
	var drop []string
	for r := range next.All() {
		if !meant[r.Name] {
			drop = append(drop, r.Name)
		}
	}
	return next.With(nil, drop)
}

func (s *source) resource(r *envoy.Resource) *resource.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.resources[r]
	if x == nil {
		x = resource.NewVersion(r.Body.GetTypeUrl(), r.Name, r.Version, r.Body.GetValue(), r.Refs...)
		s.resources[r] = x
	}
	return x
}
