package objects

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Set is a frozen collection of objects in a canonical order, whatever order they were given in. Sets made of one another by With share what they
// have in common, so that a change costs what it changes.
type Set struct {
	// kinds are by group and kind, none of them empty.
	kinds []kind
	// self is this set and no other; parent that of the set of which With made it, by edits. Neither keeps a set alive.
	self, parent *mark
	edits        []Edit
}

// kind is the objects of one group and kind, by namespace and name.
type kind struct {
	of      schema.GroupKind
	objects []*Object
}

// mark has an address of its own.
type mark struct{ _ byte }

// Edit is what became of one object between two sets: it came when Old is nil, went when New is nil, and changed otherwise.
type Edit struct{ Old, New *Object }

// Key of the object.
func (e Edit) Key() Key {
	if e.New != nil {
		return e.New.Key()
	}
	return e.Old.Key()
}

// NewSet freezes objs. Of two objects with one key the later one stays.
func NewSet(objs ...*Object) *Set {
	byKind := map[schema.GroupKind][]*Object{}
	for _, o := range objs {
		byKind[o.GVK.GroupKind()] = append(byKind[o.GVK.GroupKind()], o)
	}
	s := &Set{self: &mark{}}
	for of, all := range byKind {
		s.kinds = append(s.kinds, kind{of: of, objects: arrange(all)})
	}
	slices.SortFunc(s.kinds, func(a, b kind) int { return compareKinds(a.of, b.of) })
	return s
}

// arrange sorts objects of one kind and keeps the last of those with one name.
func arrange(objs []*Object) []*Object {
	slices.SortStableFunc(objs, compareNames)
	out := objs[:0]
	for i, o := range objs {
		if i+1 < len(objs) && compareNames(o, objs[i+1]) == 0 {
			continue
		}
		out = append(out, o)
	}
	return out
}

func compareKinds(a, b schema.GroupKind) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind))
}

func compareNames(a, b *Object) int {
	return cmp.Or(cmp.Compare(a.Value.GetNamespace(), b.Value.GetNamespace()), cmp.Compare(a.Value.GetName(), b.Value.GetName()))
}

// All objects in canonical order, in a slice made for the caller.
func (s *Set) All() []*Object {
	out := make([]*Object, 0, s.Len())
	for _, k := range s.kinds {
		out = append(out, k.objects...)
	}
	return out
}

// Len counts the objects.
func (s *Set) Len() int {
	n := 0
	for _, k := range s.kinds {
		n += len(k.objects)
	}
	return n
}

// Get is the object with the key, or nil.
func (s *Set) Get(k Key) *Object {
	all := s.Kind(k.Group, k.Kind)
	if i, ok := find(all, k); ok {
		return all[i]
	}
	return nil
}

// find is where the object of the key is among those of its kind, or where it would be.
func find(all []*Object, k Key) (int, bool) {
	return slices.BinarySearchFunc(all, k, func(o *Object, k Key) int {
		return cmp.Or(cmp.Compare(o.Value.GetNamespace(), k.Namespace), cmp.Compare(o.Value.GetName(), k.Name))
	})
}

// Kind lists the objects of a group and kind in canonical order; the slice must not be modified.
func (s *Set) Kind(group, kind string) []*Object {
	if i, ok := s.kind(schema.GroupKind{Group: group, Kind: kind}); ok {
		return s.kinds[i].objects
	}
	return nil
}

// Namespace lists the objects of a group and kind in one namespace as Kind does.
func (s *Set) Namespace(group, kind, namespace string) []*Object {
	all := s.Kind(group, kind)
	from, _ := slices.BinarySearchFunc(all, namespace, func(o *Object, ns string) int { return cmp.Compare(o.Value.GetNamespace(), ns) })
	to, _ := slices.BinarySearchFunc(all[from:], namespace, func(o *Object, ns string) int {
		if o.Value.GetNamespace() > ns {
			return 1
		}
		return -1
	})
	return all[from : from+to]
}

func (s *Set) kind(of schema.GroupKind) (int, bool) {
	return slices.BinarySearchFunc(s.kinds, of, func(k kind, of schema.GroupKind) int { return compareKinds(k.of, of) })
}

// Overlay is the set with other's objects added, replacing those of equal key.
func (s *Set) Overlay(other *Set) *Set { return s.With(other.All(), nil) }

// With is the set without the objects of the keys in drop and with those in put, which replace others of equal key. It costs the objects given,
// and a copy of the pointers of each kind among them.
func (s *Set) With(put []*Object, drop []Key) *Set {
	type change struct {
		put  []*Object
		drop []Key
	}
	changes := map[schema.GroupKind]change{}
	for _, k := range drop {
		of := schema.GroupKind{Group: k.Group, Kind: k.Kind}
		c := changes[of]
		c.drop = append(c.drop, k)
		changes[of] = c
	}
	for _, o := range put {
		of := o.GVK.GroupKind()
		c := changes[of]
		c.put = append(c.put, o)
		changes[of] = c
	}
	out := &Set{kinds: slices.Clone(s.kinds), self: &mark{}, parent: s.self}
	for of, c := range changes {
		i, there := out.kind(of)
		var all []*Object
		if there {
			all = out.kinds[i].objects
		}
		now, edits := splice(all, arrange(c.put), c.drop)
		out.edits = append(out.edits, edits...)
		switch {
		case len(edits) == 0:
		case there && len(now) > 0:
			out.kinds[i].objects = now
		case there:
			out.kinds = slices.Delete(out.kinds, i, i+1)
		case len(now) > 0:
			out.kinds = slices.Insert(out.kinds, i, kind{of: of, objects: now})
		}
	}
	slices.SortFunc(out.edits, func(a, b Edit) int { return a.Key().Compare(b.Key()) })
	return out
}

// splice is a copy of all, which are of one kind, with changes, and what they were. put is in order.
func splice(all, put []*Object, drop []Key) ([]*Object, []Edit) {
	// place is an index of all, and what comes there: an object in front of the one there, or in its place, or nothing in its place.
	type place struct {
		at       int
		replaces bool
		object   *Object
	}
	var places []place
	for _, o := range put {
		at, there := find(all, o.Key())
		places = append(places, place{at: at, replaces: there, object: o})
	}
	for _, k := range drop {
		if at, there := find(all, k); there {
			places = append(places, place{at: at, replaces: true})
		}
	}
	// An object that comes in front of another is before one in its place, and what replaces an object before what takes it away.
	slices.SortStableFunc(places, func(a, b place) int {
		order := func(p place) int {
			switch {
			case !p.replaces:
				return 0
			case p.object != nil:
				return 1
			}
			return 2
		}
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(order(a), order(b)))
	})
	out := make([]*Object, 0, len(all)+len(put))
	var edits []Edit
	done := 0 // of all
	for _, p := range places {
		if p.replaces && p.at < done {
			continue // done already
		}
		out = append(out, all[done:p.at]...)
		done = p.at
		var old *Object
		if p.replaces {
			old = all[p.at]
			done++
		}
		if p.object != nil {
			out = append(out, p.object)
		}
		if old != p.object {
			edits = append(edits, Edit{Old: old, New: p.object})
		}
	}
	return append(out, all[done:]...), edits
}

// Since lists, in canonical order, what made s of old; everything came when old is nil. It costs nothing more than the result when With made s
// of old, and otherwise a look at the pointers of each kind that the two do not share.
func (s *Set) Since(old *Set) []Edit {
	if old == nil {
		old = &Set{}
	}
	switch {
	case s == old:
		return nil
	case s.parent != nil && s.parent == old.self:
		return s.edits
	}
	var out []Edit
	i, j := 0, 0
	for i < len(old.kinds) || j < len(s.kinds) {
		var order int
		switch {
		case i == len(old.kinds):
			order = 1
		case j == len(s.kinds):
			order = -1
		default:
			order = compareKinds(old.kinds[i].of, s.kinds[j].of)
		}
		var was, is []*Object
		if order <= 0 {
			was = old.kinds[i].objects
			i++
		}
		if order >= 0 {
			is = s.kinds[j].objects
			j++
		}
		if len(was) == len(is) && &was[0] == &is[0] {
			continue
		}
		out = append(out, between(was, is)...)
	}
	return out
}

// between compares two lists of one kind.
func between(was, is []*Object) []Edit {
	var out []Edit
	i, j := 0, 0
	for i < len(was) && j < len(is) {
		if was[i] == is[j] {
			i, j = i+1, j+1
			continue
		}
		switch order := compareNames(was[i], is[j]); {
		case order < 0:
			out = append(out, Edit{Old: was[i]})
			i++
		case order > 0:
			out = append(out, Edit{New: is[j]})
			j++
		default:
			out = append(out, Edit{Old: was[i], New: is[j]})
			i, j = i+1, j+1
		}
	}
	for ; i < len(was); i++ {
		out = append(out, Edit{Old: was[i]})
	}
	for ; j < len(is); j++ {
		out = append(out, Edit{New: is[j]})
	}
	return out
}
