package resource

import "iter"

// Group is the resources of one type that a proxy is meant to have, in layers: first what most proxies share, then what fewer do, last the proxy's own.
// Of two with one name, that of the later layer counts. Layers at the same place of two groups are compared with each other.
type Group []*Set

// Get is the resource of the name, or nil.
func (g Group) Get(name string) *Resource {
	for i := len(g) - 1; i >= 0; i-- {
		if r := g[i].Get(name); r != nil {
			return r
		}
	}
	return nil
}

// Len counts the names.
func (g Group) Len() int {
	n := 0
	for i, s := range g {
		n += s.Len()
		for _, above := range g[i+1:] {
			if above.Len() > 0 {
				n -= overlap(s, g[i+1:])
				break
			}
		}
	}
	return n
}

// overlap counts the resources of s that a later layer replaces.
func overlap(s *Set, later Group) int {
	// Layers are large below and small above.
	n := 0
	for i, above := range later {
		for r := range above.All() {
			if s.Get(r.Name) != nil && later[:i].Get(r.Name) == nil {
				n++
			}
		}
	}
	return n
}

// All are the resources, in an order that depends on the layers' names alone.
func (g Group) All() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for i, s := range g {
			later := g[i+1:]
			bare := later.empty()
			for r := range s.All() {
				if (bare || later.Get(r.Name) == nil) && !yield(r) {
					return
				}
			}
		}
	}
}

// Since is what changed from old to g: the resources added or of another version, and those no longer there as they were. One that only moved
// between layers has not changed.
func (g Group) Since(old Group) (changed, removed []*Resource) {
	layers := max(len(g), len(old))
	for i := range layers {
		was, is := old.layer(i), g.layer(i)
		differ(was.tree(), is.tree(), func(a, b *Resource) {
			name := nameOf(a, b)
			for j := range i {
				if old.layer(j).Get(name) != g.layer(j).Get(name) {
					return // was compared there
				}
			}
			if layers > 1 {
				a, b = old.Get(name), g.Get(name)
			}
			switch {
			case b == nil && a != nil:
				removed = append(removed, a)
			case b != nil && (a == nil || a.Version != b.Version):
				changed = append(changed, b)
			}
		})
	}
	return changed, removed
}

func (g Group) empty() bool {
	for _, s := range g {
		if s.Len() > 0 {
			return false
		}
	}
	return true
}

func (g Group) layer(i int) *Set {
	if i < len(g) {
		return g[i]
	}
	return nil
}

func nameOf(a, b *Resource) string {
	if a != nil {
		return a.Name
	}
	return b.Name
}

// VirtualHosts is the key in a node's metadata by which a proxy says, with the value true, that it takes virtual hosts on their own. It must then speak
// the incremental protocol.
const VirtualHosts = "virtual_hosts"

// Snapshot is everything one proxy may be sent, immutable. Virtual hosts on their own are named <route configuration>/<anything>, and their own name
// is the same: by it Envoy finds those to remove. Proxies that do not take them have all in Routes.
type Snapshot struct {
	Clusters, Endpoints, Listeners, Routes, VirtualHosts, Secrets Group
}
