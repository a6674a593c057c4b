package resource

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
)

// Set is an immutable set of resources of one type, at most one of a name. A set made from another shares with it all that is equal. A nil Set is
// empty.
type Set struct {
	root   *node
	sorted atomic.Pointer[[]*Resource]
}

// node is a part of the tree, in which a resource's place follows from the hash of its name: four bits a level. Either it has children, or entries.
type node struct {
	children *[fan]*node
	entries  []entry // by hash, then name
	n        int
}

type entry struct {
	hash uint64
	res  *Resource
}

const (
	fan = 16
	// full leaves are split; branches that are left with sparse resources become leaves again.
	full   = 24
	sparse = 12
	// deepest is the level at which the hash is used up.
	deepest = 16
)

// edit puts a resource, or takes away the one of the name.
type edit struct {
	hash uint64
	name string
	res  *Resource // nil to take away
}

// NewSet is the set of resources; of two with one name the later stays.
func NewSet(resources ...*Resource) *Set { return (*Set)(nil).With(resources, nil) }

// With is s with the resources put in, each in place of the one of its name, and those named drop left out; of two put with one name the later
// stays, and what is put is not left out. A resource equal to the one in place changes nothing; if nothing changes, the result is s.
func (s *Set) With(put []*Resource, drop []string) *Set {
	edits := make([]edit, 0, len(put)+len(drop))
	for _, name := range drop {
		edits = append(edits, edit{hash: hashOf(name), name: name})
	}
	for _, r := range put {
		edits = append(edits, edit{hash: hashOf(r.Name), name: r.Name, res: r})
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.name, b.name)) })
	last := edits[:0]
	for i, e := range edits {
		if i+1 == len(edits) || edits[i+1].name != e.name {
			last = append(last, e)
		}
	}
	was := s.tree()
	if root := was.with(last, 0); s == nil || root != was {
		return &Set{root: root}
	}
	return s
}

// Get is the resource of the name, or nil.
func (s *Set) Get(name string) *Resource {
	n := s.tree()
	if n == nil {
		return nil
	}
	hash := hashOf(name)
	for level := 0; n.children != nil; level++ {
		if n = n.children[place(hash, level)]; n == nil {
			return nil
		}
	}
	for _, e := range n.entries {
		if e.hash == hash && e.res.Name == name {
			return e.res
		}
	}
	return nil
}

// Len counts the resources.
func (s *Set) Len() int { return s.tree().len() }

// All are the resources in an order that depends on their names alone, and is not by name.
func (s *Set) All() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) { s.tree().all(yield) }
}

// Sorted are the resources by name. The slice is kept and must not be modified.
func (s *Set) Sorted() []*Resource {
	if s == nil {
		return nil
	}
	if kept := s.sorted.Load(); kept != nil {
		return *kept
	}
	out := slices.AppendSeq(make([]*Resource, 0, s.Len()), s.All())
	slices.SortFunc(out, func(a, b *Resource) int { return strings.Compare(a.Name, b.Name) })
	s.sorted.Store(&out)
	return out
}

// Since is what changed from old to s: the resources added or of another version, and those no longer there as they were. The cost follows the
// number of edits by which one was made from the other, if it was; else the size of both.
func (s *Set) Since(old *Set) (changed, removed []*Resource) {
	differ(old.tree(), s.tree(), func(was, is *Resource) {
		switch {
		case is == nil:
			removed = append(removed, was)
		case was == nil || was.Version != is.Version:
			changed = append(changed, is)
		}
	})
	return changed, removed
}

func (s *Set) tree() *node {
	if s == nil {
		return nil
	}
	return s.root
}

func (n *node) len() int {
	if n == nil {
		return 0
	}
	return n.n
}

// with applies edits, which are by hash and name and all belong to n.
func (n *node) with(edits []edit, level int) *node {
	if len(edits) == 0 {
		return n
	}
	if n == nil || n.children == nil {
		var had []entry
		if n != nil {
			had = n.entries
		}
		entries, same := merge(had, edits)
		if same {
			return n
		}
		return grow(entries, level)
	}
	var children *[fan]*node
	total := n.n
	for len(edits) > 0 {
		at := place(edits[0].hash, level)
		k := 1
		for k < len(edits) && place(edits[k].hash, level) == at {
			k++
		}
		was := n.children[at]
		if is := was.with(edits[:k], level+1); is != was {
			if children == nil {
				copied := *n.children
				children = &copied
			}
			children[at] = is
			total += is.len() - was.len()
		}
		edits = edits[k:]
	}
	switch {
	case children == nil:
		return n
	case total == 0:
		return nil
	}
	out := &node{children: children, n: total}
	if total <= sparse {
		return &node{entries: out.collect(make([]entry, 0, total)), n: total}
	}
	return out
}

// grow makes a node of entries, with as many levels as they need.
func grow(entries []entry, level int) *node {
	if len(entries) == 0 {
		return nil
	}
	if len(entries) <= full || level == deepest {
		return &node{entries: entries, n: len(entries)}
	}
	out := &node{children: &[fan]*node{}, n: len(entries)}
	for len(entries) > 0 {
		at := place(entries[0].hash, level)
		k := 1
		for k < len(entries) && place(entries[k].hash, level) == at {
			k++
		}
		out.children[at] = grow(slices.Clip(entries[:k]), level+1)
		entries = entries[k:]
	}
	return out
}

// merge applies edits to entries, and says whether that changed nothing.
func merge(had []entry, edits []edit) (out []entry, same bool) {
	out, same = make([]entry, 0, len(had)+len(edits)), true
	for len(had) > 0 || len(edits) > 0 {
		order := -1
		switch {
		case len(had) == 0:
			order = 1
		case len(edits) > 0:
			order = cmp.Or(cmp.Compare(had[0].hash, edits[0].hash), strings.Compare(had[0].res.Name, edits[0].name))
		}
		if order < 0 {
			out, had = append(out, had[0]), had[1:]
			continue
		}
		e := edits[0]
		edits = edits[1:]
		var was *Resource
		if order == 0 {
			was, had = had[0].res, had[1:]
		}
		if was != nil && e.res != nil && equal(was, e.res) {
			e.res = was
		}
		if e.res != was {
			same = false
		}
		if e.res != nil {
			out = append(out, entry{e.hash, e.res})
		}
	}
	return out, same
}

func equal(a, b *Resource) bool {
	return a == b || a.Version == b.Version && a.TypeURL == b.TypeURL && slices.Equal(a.Refs, b.Refs)
}

func (n *node) all(yield func(*Resource) bool) bool {
	if n == nil {
		return true
	}
	for _, e := range n.entries {
		if !yield(e.res) {
			return false
		}
	}
	if n.children != nil {
		for _, c := range n.children {
			if !c.all(yield) {
				return false
			}
		}
	}
	return true
}

// collect appends the entries under n, which come by hash and name.
func (n *node) collect(out []entry) []entry {
	if n == nil {
		return out
	}
	out = append(out, n.entries...)
	if n.children != nil {
		for _, c := range n.children {
			out = c.collect(out)
		}
	}
	return out
}

// differ calls f for every name whose resources are not one and the same, with both; what the trees share is passed over.
func differ(a, b *node, f func(a, b *Resource)) {
	if a == b {
		return
	}
	if a != nil && b != nil && a.children != nil && b.children != nil {
		for i := range fan {
			differ(a.children[i], b.children[i], f)
		}
		return
	}
	as, bs := a.collect(nil), b.collect(nil)
	for len(as) > 0 || len(bs) > 0 {
		var order int
		switch {
		case len(as) == 0:
			order = 1
		case len(bs) == 0:
			order = -1
		default:
			order = cmp.Or(cmp.Compare(as[0].hash, bs[0].hash), strings.Compare(as[0].res.Name, bs[0].res.Name))
		}
		switch {
		case order < 0:
			f(as[0].res, nil)
			as = as[1:]
		case order > 0:
			f(nil, bs[0].res)
			bs = bs[1:]
		default:
			if as[0].res != bs[0].res {
				f(as[0].res, bs[0].res)
			}
			as, bs = as[1:], bs[1:]
		}
	}
}

// place of a hash among the children of a node at the level.
func place(hash uint64, level int) int { return int(hash >> (60 - 4*level) & (fan - 1)) }

// hashOf is FNV-1a with its bits mixed, as the uppermost choose the place. It is the same everywhere, so that equal sets are walked in the same order.
func hashOf(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	return h ^ h>>33
}
