package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"weak"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshctl/meshctl/internal/model"
)

// Resource is one named piece of configuration, encoded once and shared by every stream that sends it.
type Resource struct {
	Name string
	// Version is the hash of the content: equal versions mean equal bodies.
	Version string
	// Refs are the objects the resource was made from; a rejection is theirs.
	Refs []model.Ref

	// The field `resources` of a delta and of a state-of-the-world response up to the body's value, which both share.
	deltaHead, sotwHead, value []byte
}

// NewResource takes ownership of body. An empty version is computed from the body.
func NewResource(name, version string, body *anypb.Any, refs []model.Ref) *Resource {
	if version == "" {
		sum := sha256.Sum256(body.GetValue())
		version = hex.EncodeToString(sum[:8])
	}
	r := &Resource{Name: name, Version: version, Refs: refs, value: body.GetValue()}

	var anyHead []byte
	anyHead = protowire.AppendTag(anyHead, 1, protowire.BytesType)
	anyHead = protowire.AppendString(anyHead, body.GetTypeUrl())
	anyHead = protowire.AppendTag(anyHead, 2, protowire.BytesType)
	anyHead = protowire.AppendVarint(anyHead, uint64(len(r.value)))
	anyLen := len(anyHead) + len(r.value)

	var res []byte // discovery.v3.Resource: version = 1, name = 3, resource = 2
	res = protowire.AppendTag(res, 1, protowire.BytesType)
	res = protowire.AppendString(res, version)
	res = protowire.AppendTag(res, 3, protowire.BytesType)
	res = protowire.AppendString(res, name)
	res = protowire.AppendTag(res, 2, protowire.BytesType)
	res = protowire.AppendVarint(res, uint64(anyLen))
	res = append(res, anyHead...)

	r.deltaHead = protowire.AppendTag(nil, 2, protowire.BytesType)
	r.deltaHead = protowire.AppendVarint(r.deltaHead, uint64(len(res)+len(r.value)))
	r.deltaHead = append(r.deltaHead, res...)

	r.sotwHead = protowire.AppendTag(nil, 2, protowire.BytesType)
	r.sotwHead = protowire.AppendVarint(r.sotwHead, uint64(anyLen))
	r.sotwHead = append(r.sotwHead, anyHead...)
	return r
}

// Set is an immutable set of resources of one type. Sets are shared by all proxies that see the same; what changed from one to
// the next is computed once for all of them.
type Set struct {
	byName map[string]*Resource
	sorted []*Resource

	mu sync.Mutex
	// from is weak so that a set does not keep alive all sets that came before it.
	from weak.Pointer[Set]
	diff *difference
}

type difference struct {
	changed []*Resource // added or of another version
	removed []*Resource // as they were
}

// NewSet freezes resources; of two with one name the later stays.
func NewSet(resources ...*Resource) *Set {
	s := &Set{byName: make(map[string]*Resource, len(resources))}
	for _, r := range resources {
		s.byName[r.Name] = r
	}
	s.sorted = make([]*Resource, 0, len(s.byName))
	for _, r := range s.byName {
		s.sorted = append(s.sorted, r)
	}
	slices.SortFunc(s.sorted, func(a, b *Resource) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// Get is the resource with the name, or nil.
func (s *Set) Get(name string) *Resource {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// Len counts the resources.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.sorted)
}

// since is what changed from old to s.
func (s *Set) since(old *Set) *difference {
	if s == nil {
		s = &Set{}
	}
	if old == nil { // never from the difference kept: a set it was made for that is gone reads as nil as well
		return &difference{changed: s.sorted}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.diff != nil && s.from.Value() == old {
		return s.diff
	}
	d := &difference{}
	for _, r := range s.sorted {
		if was := old.byName[r.Name]; was == nil || was.Version != r.Version {
			d.changed = append(d.changed, r)
		}
	}
	for _, r := range old.sorted {
		if s.byName[r.Name] == nil {
			d.removed = append(d.removed, r)
		}
	}
	s.from, s.diff = weak.Make(old), d
	return d
}

// Group is the resources of one type as disjoint sets: first what many proxies share, then what is a proxy's own. Sets at the same
// place of two groups are compared with each other, so a shared part costs nothing per proxy.
type Group []*Set

func (g Group) get(name string) *Resource {
	for _, s := range g {
		if r := s.Get(name); r != nil {
			return r
		}
	}
	return nil
}

func (g Group) len() int {
	n := 0
	for _, s := range g {
		n += s.Len()
	}
	return n
}

// each calls f for every resource.
func (g Group) each(f func(*Resource)) {
	for _, s := range g {
		if s == nil {
			continue
		}
		for _, r := range s.sorted {
			f(r)
		}
	}
}

// since is what changed from old to g; a resource that only moved between parts is not reported as removed.
func (g Group) since(old Group) (changed, removed []*Resource) {
	for i := range max(len(g), len(old)) {
		var a, b *Set
		if i < len(old) {
			a = old[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a == b {
			continue
		}
		d := b.since(a)
		if len(g) == 1 && len(old) <= 1 {
			return d.changed, d.removed
		}
		changed = append(changed, d.changed...)
		for _, r := range d.removed {
			if g.get(r.Name) == nil {
				removed = append(removed, r)
			}
		}
	}
	return changed, removed
}

// Snapshot is everything one proxy may be sent, immutable.
type Snapshot struct {
	Clusters, Endpoints, Listeners, Routes Group
}

func (s *Snapshot) group(k kind) Group {
	if s == nil {
		return nil
	}
	switch k {
	case clusters:
		return s.Clusters
	case endpoints:
		return s.Endpoints
	case listeners:
		return s.Listeners
	case routes:
		return s.Routes
	}
	return nil
}
