package memo

import "maps"

// Layer keeps the units that one view of the inputs is made of. A unit is a pure function of the inputs it reads, and may want other units to be there
// as well. The lowest layer has the units that are there by themselves, and all that is wanted from there on; a layer above another is a view in which a
// few inputs have other values: it keeps only the units that read one of these, and those that they want and that are not below. Its other units are those
// of the layer below.
//
// Whatever the order of changes, a layer holds what one made from nothing would. Units must not want each other in a circle. A Layer is not safe for
// concurrent use.
type Layer[K, I comparable, V any] struct {
	plan  Plan[K, I, V]
	below *Layer[K, I, V]
	// units of this layer itself.
	units map[K]*unit[K, I, V]
	// readers are the units of this layer that read an input.
	readers map[I]*set[K]
	// wanted counts the units of this layer that want a unit.
	wanted map[K]int
	// differs are the inputs with other values than below.
	differs map[I]struct{}
}

// Plan says what a layer's units are.
type Plan[K, I comparable, V any] struct {
	// Root says whether a unit is there by itself. Only the lowest layer asks.
	Root func(K) bool
	// Make makes a unit. It says by the Making what it reads, also what it reads in vain, and what it wants. The value it had last is was.
	Make func(key K, m *Making[K, I], was V) V
}

// Making collects what one unit reads and wants.
type Making[K, I comparable] struct {
	reads []I
	wants []K
}

// Read notes that the unit depends on an input.
func (m *Making[K, I]) Read(input I) { m.reads = add(m.reads, input) }

// Want asks for another unit.
func (m *Making[K, I]) Want(key K) { m.wants = add(m.wants, key) }

// add appends what is not there. The lists are short.
func add[T comparable](list []T, item T) []T {
	for _, have := range list {
		if have == item {
			return list
		}
	}
	return append(list, item)
}

type unit[K, I comparable, V any] struct {
	value V
	Making[K, I]
}

// Change is a unit that came, went or was made anew. Of one that is not there the value is zero.
type Change[K comparable, V any] struct {
	Key     K
	Was, Is V
	// WasOwn and IsOwn say whether the unit was and is one of the layer itself, not of the one below.
	WasOwn, IsOwn bool
}

// NewLayer makes an empty layer above another, or the lowest one when below is nil. The first Update fills it.
func NewLayer[K, I comparable, V any](below *Layer[K, I, V], plan Plan[K, I, V]) *Layer[K, I, V] {
	return &Layer[K, I, V]{
		plan: plan, below: below,
		units: map[K]*unit[K, I, V]{}, readers: map[I]*set[K]{}, wanted: map[K]int{}, differs: map[I]struct{}{},
	}
}

// Update is what happened to a layer.
type Update[K, I comparable, V any] struct {
	// Changed are the inputs with another value in this view.
	Changed []I
	// Roots are the units for which Root may answer differently.
	Roots []K
	// Below are the changes of the layer below.
	Below []Change[K, V]
	// Parts and Joins are the inputs whose values begin, and cease, to be others than below.
	Parts, Joins []I
}

// Update makes everything anew that what happened makes stale, and returns what changed in the view: units of its own and of the layers below.
func (l *Layer[K, I, V]) Update(u Update[K, I, V]) []Change[K, V] {
	w := &work[K, I, V]{Layer: l, stale: map[K]struct{}{}, touched: make(map[K]int, len(u.Roots)+len(u.Below))}
	for _, c := range u.Below {
		// The layer below has changed already: what was there before is known from the change alone.
		w.touch(c.Key, c.Was)
	}
	for _, key := range u.Roots {
		w.look(key)
	}
	for _, inputs := range [][]I{u.Changed, u.Parts, u.Joins} {
		for _, i := range inputs {
			l.readers[i].each(func(key K) {
				w.stale[key] = struct{}{}
				w.look(key)
			})
		}
	}
	for _, i := range u.Parts {
		l.differs[i] = struct{}{}
	}
	for _, i := range u.Joins {
		delete(l.differs, i)
	}
	if l.below != nil {
		for _, inputs := range [][]I{u.Parts, u.Joins} {
			for _, i := range inputs {
				l.below.reading(i, w.look)
			}
		}
	}
	w.run()
	out := w.changes[:0]
	for _, c := range w.changes {
		if own := l.units[c.Key]; own != nil {
			c.Is, c.IsOwn = own.value, true
		} else if below := l.below.find(c.Key); below != nil {
			c.Is = below.value
		}
		out = append(out, c)
	}
	return out
}

// Get is the value of a unit as the view has it.
func (l *Layer[K, I, V]) Get(key K) (value V, ok bool) {
	if u := l.find(key); u != nil {
		return u.value, true
	}
	return value, false
}

// Own says whether the layer has the unit itself.
func (l *Layer[K, I, V]) Own(key K) bool { return l.units[key] != nil }

// Len counts the units of the layer itself.
func (l *Layer[K, I, V]) Len() int { return len(l.units) }

// find is the unit as the view has it, or nil.
func (l *Layer[K, I, V]) find(key K) *unit[K, I, V] {
	for ; l != nil; l = l.below {
		if u := l.units[key]; u != nil {
			return u
		}
	}
	return nil
}

// reading calls f for each unit of the view that reads an input.
func (l *Layer[K, I, V]) reading(input I, f func(K)) {
	l.readers[input].each(f)
	if l.below != nil {
		l.below.reading(input, func(key K) {
			if l.units[key] == nil {
				f(key)
			}
		})
	}
}

// work is one update under way.
type work[K, I comparable, V any] struct {
	*Layer[K, I, V]
	stale   map[K]struct{}
	changes []Change[K, V]
	// touched are the places in changes.
	touched map[K]int
	// open are units to look at; gone those that nothing wanted when they were looked at, which may have changed since.
	open, gone []K
}

// touch puts a unit on the list, with the value the view had of it.
func (w *work[K, I, V]) touch(key K, below V) {
	w.open = append(w.open, key)
	if _, known := w.touched[key]; known {
		return
	}
	c := Change[K, V]{Key: key, Was: below}
	if own := w.units[key]; own != nil {
		c.Was, c.WasOwn = own.value, true
	}
	w.touched[key] = len(w.changes)
	w.changes = append(w.changes, c)
}

func (w *work[K, I, V]) look(key K) {
	var below V
	if u := w.below.find(key); u != nil {
		below = u.value
	}
	w.touch(key, below)
}

// run looks at units until there is nothing left to do. Those to be taken away come last: something made meanwhile may want them.
func (w *work[K, I, V]) run() {
	for len(w.open) > 0 || len(w.gone) > 0 {
		list, last := &w.open, false
		if len(*list) == 0 {
			list, last = &w.gone, true
		}
		key := (*list)[len(*list)-1]
		*list = (*list)[:len(*list)-1]
		switch {
		case w.meant(key):
			w.make(key)
		case w.units[key] == nil:
		case last:
			w.replace(key, nil)
		default:
			w.gone = append(w.gone, key)
		}
	}
}

// meant says whether the layer itself is to have the unit.
func (w *work[K, I, V]) meant(key K) bool {
	if w.below == nil {
		return w.wanted[key] > 0 || w.plan.Root(key)
	}
	u := w.below.find(key)
	if u == nil {
		return w.wanted[key] > 0
	}
	if len(w.differs) == 0 {
		return false
	}
	for _, i := range u.reads {
		if _, other := w.differs[i]; other {
			return true
		}
	}
	return false
}

func (w *work[K, I, V]) make(key K) {
	had := w.units[key]
	if _, stale := w.stale[key]; had != nil && !stale {
		return
	}
	delete(w.stale, key)
	var was V
	if had != nil {
		was = had.value
	} else if at, ok := w.touched[key]; ok {
		was = w.changes[at].Was
	}
	u := &unit[K, I, V]{}
	u.value = w.plan.Make(key, &u.Making, was)
	w.replace(key, u)
}

// replace puts a unit, or takes it away, and with it what it reads and wants.
func (w *work[K, I, V]) replace(key K, u *unit[K, I, V]) {
	had := w.units[key]
	if u == nil {
		delete(w.units, key)
	} else {
		w.units[key] = u
		for _, i := range u.reads {
			if w.readers[i] == nil {
				w.readers[i] = &set[K]{}
			}
			w.readers[i].add(key)
		}
		for _, other := range u.wants {
			if w.wanted[other]++; w.wanted[other] == 1 {
				w.look(other)
			}
		}
	}
	if had == nil {
		return
	}
	for _, i := range had.reads {
		if u != nil && contains(u.reads, i) {
			continue
		}
		if r := w.readers[i]; r.remove(key) {
			delete(w.readers, i)
		}
	}
	for _, other := range had.wants {
		if w.wanted[other]--; w.wanted[other] == 0 {
			delete(w.wanted, other)
			w.look(other)
		}
	}
}

func contains[T comparable](list []T, item T) bool {
	for _, have := range list {
		if have == item {
			return true
		}
	}
	return false
}

// set is a set of keys, small as long as there are few, as there mostly are.
type set[K comparable] struct {
	few  []K
	many map[K]struct{}
}

const few = 8

func (s *set[K]) add(key K) {
	if s.many != nil {
		s.many[key] = struct{}{}
		return
	}
	if s.few = add(s.few, key); len(s.few) > few {
		s.many = make(map[K]struct{}, len(s.few))
		for _, k := range s.few {
			s.many[k] = struct{}{}
		}
		s.few = nil
	}
}

// remove says whether nothing is left.
func (s *set[K]) remove(key K) bool {
	if s.many != nil {
		delete(s.many, key)
		return len(s.many) == 0
	}
	for i, k := range s.few {
		if k == key {
			last := len(s.few) - 1
			s.few[i] = s.few[last]
			s.few = s.few[:last]
			break
		}
	}
	return len(s.few) == 0
}

// each calls f for each key there is now, also when f changes the set.
func (s *set[K]) each(f func(K)) {
	if s == nil {
		return
	}
	if s.many == nil {
		for _, k := range append([]K(nil), s.few...) {
			f(k)
		}
		return
	}
	for k := range maps.Clone(s.many) {
		f(k)
	}
}
