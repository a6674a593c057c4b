package ingest

import (
	"reflect"
	"slices"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/memo"
	"github.com/meshctl/meshctl/internal/objects"
)

// input is something that can be looked up: what, and by which two names.
type input struct {
	what what
	a, b string
}

// what is a kind of thing that is looked up.
type what int

const (
	// objectNamed is an object by kind and name, kindNamed all of a kind.
	objectNamed what = iota
	kindNamed
	// podNamed is a pod by namespace and name, podAt the one that an address means.
	podNamed
	podAt
	// servicesOf are the services that lead to a pod.
	servicesOf
	serviceNamed
	// holderOf is the service that has an address.
	holderOf
	// slicesOf is what the slices of a service have.
	slicesOf
	externalNamed
)

// unit is what is made of one object.
type unit[T any] struct {
	value    T
	findings []finding.Finding
	// judged says whether check was asked about the object.
	judged bool
}

// units are those of the objects of one kind.
type units[T comparable] struct {
	keeper      *Keeper
	group, kind string
	// make makes the unit of an object: nil when there is nothing to make of it.
	make func(*builder, *objects.Object) T
	// same says whether a value may stay in the place of another.
	same func(was, is T) bool
	kept *memo.Table[objects.Key, input, unit[T]]
}

// change is what became of a unit: it came when was is nil, and went when is is.
type change[T any] struct{ was, is T }

// stage is units of any type.
type stage interface {
	// found is what was found about an object when its unit was made, and whether check was asked about it.
	found(objects.Key) ([]finding.Finding, bool)
}

func newUnits[T comparable](k *Keeper, group, kind string, make func(*builder, *objects.Object) T) *units[T] {
	u := &units[T]{
		keeper: k, group: group, kind: kind, make: make, same: func(was, is T) bool { return reflect.DeepEqual(was, is) },
		kept: memo.New[objects.Key, input, unit[T]](),
	}
	k.stages[[2]string{group, kind}] = append(k.stages[[2]string{group, kind}], u)
	return u
}

func (u *units[T]) found(key objects.Key) ([]finding.Finding, bool) {
	kept, _ := u.kept.Kept(key)
	return kept.findings, kept.judged
}

// update makes anew what an object, or something looked up for it, is another for, in the order of objects, and returns the values that changed.
func (u *units[T]) update() []change[T] {
	k := u.keeper
	stale := map[objects.Key]*objects.Object{}
	for _, e := range k.edits[[2]string{u.group, u.kind}] {
		stale[e.Key()] = e.New
	}
	for _, key := range u.kept.Readers(k.changed...) {
		if _, edited := stale[key]; !edited {
			stale[key] = k.set.Get(key)
		}
	}
	keys := make([]objects.Key, 0, len(stale))
	for key := range stale {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, objects.Key.Compare)
	var out []change[T]
	for _, key := range keys {
		was, _ := u.kept.Kept(key)
		u.kept.Drop(key)
		var is unit[T]
		if o := stale[key]; o != nil {
			is = u.kept.Get(key, func(read func(input)) unit[T] { return u.one(o, was.value, read) })
		}
		if was.judged != is.judged || !slices.Equal(was.findings, is.findings) {
			k.touched[key] = true
		}
		if was.value != is.value {
			out = append(out, change[T]{was: was.value, is: is.value})
		}
	}
	return out
}

// one makes one unit, which was something else or the same before.
func (u *units[T]) one(o *objects.Object, was T, read func(input)) unit[T] {
	b := &builder{keeper: u.keeper, cfg: u.keeper.cfg, read: read}
	value := u.make(b, o)
	var nothing T
	if was != nothing && value != nothing && u.same(was, value) {
		value = was
	}
	return unit[T]{value: value, findings: b.findings, judged: b.judged}
}

// of makes units of objects that are of a type, and of no others.
func of[V objects.Value, T any](f func(*builder, *objects.Object, V) T) func(*builder, *objects.Object) T {
	return func(b *builder, o *objects.Object) T {
		var nothing T
		v, ok := o.Value.(V)
		if !ok {
			return nothing
		}
		return f(b, o, v)
	}
}

// accepted makes units of objects that check lets through.
func accepted[V objects.Value, T any](f func(*builder, *objects.Object, V) T) func(*builder, *objects.Object, V) T {
	return func(b *builder, o *objects.Object, v V) T {
		var nothing T
		if !b.judge(o) {
			return nothing
		}
		return f(b, o, v)
	}
}

// splice is list, which is in order and without two that order calls equal, with changes. It is list itself when there are none.
func splice[T comparable](list []T, order func(a, b T) int, changes []change[T]) []T {
	var nothing T
	var gone, come []T
	for _, c := range changes {
		if c.was != nothing {
			gone = append(gone, c.was)
		}
		if c.is != nothing {
			come = append(come, c.is)
		}
	}
	if len(gone)+len(come) == 0 {
		return list
	}
	slices.SortFunc(gone, order)
	slices.SortFunc(come, order)
	out := make([]T, 0, len(list)+len(come)-len(gone))
	done := 0 // of list
	for len(gone)+len(come) > 0 {
		// The one that is first; of two for one place the one that goes.
		if len(come) == 0 || len(gone) > 0 && order(gone[0], come[0]) <= 0 {
			at := done + place(list[done:], gone[0], order)
			out = append(out, list[done:at]...)
			done, gone = at+1, gone[1:]
			continue
		}
		at := done + place(list[done:], come[0], order)
		out = append(append(out, list[done:at]...), come[0])
		done, come = at, come[1:]
	}
	if out = append(out, list[done:]...); len(out) == 0 {
		return nil
	}
	return out
}

func place[T any](list []T, item T, order func(a, b T) int) int {
	i, _ := slices.BinarySearchFunc(list, item, order)
	return i
}

// claims say who of several that claim a name has it: the first by namespace and name.
type claims[K comparable] struct{ holders map[K][]objects.Key }

func newClaims[K comparable]() *claims[K] { return &claims[K]{holders: map[K][]objects.Key{}} }

// edit replaces what an object claims, and calls changed for each name that another has now.
func (c *claims[K]) edit(who objects.Key, was, is []K, changed func(K)) {
	for _, name := range was {
		if slices.Contains(is, name) {
			continue
		}
		all := c.holders[name]
		i, there := slices.BinarySearchFunc(all, who, objects.Key.Compare)
		if !there {
			continue
		}
		if len(all) == 1 {
			delete(c.holders, name)
		} else {
			c.holders[name] = slices.Delete(all, i, i+1)
		}
		if i == 0 {
			changed(name)
		}
	}
	for _, name := range is {
		i, there := slices.BinarySearchFunc(c.holders[name], who, objects.Key.Compare)
		if there {
			continue
		}
		c.holders[name] = slices.Insert(c.holders[name], i, who)
		if i == 0 {
			changed(name)
		}
	}
}

// holder has the name.
func (c *claims[K]) holder(name K) (objects.Key, bool) {
	if all := c.holders[name]; len(all) > 0 {
		return all[0], true
	}
	return objects.Key{}, false
}
