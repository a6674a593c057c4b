// Package memo keeps what was made of inputs until an input that was read changes.
//
// In: functions that make a value and say which inputs they read. Out: their values, made again only after Changed named one of those inputs.
package memo

import "maps"

// Table keeps values of type V under keys of type K, each with the inputs of type I that were read to make it. It is not safe for concurrent use.
type Table[K, I comparable, V any] struct {
	kept map[K]entry[I, V]
	// readers are the keys whose values were made from an input.
	readers map[I]map[K]struct{}
}

type entry[I comparable, V any] struct {
	value V
	read  map[I]struct{}
}

// New makes an empty table.
func New[K, I comparable, V any]() *Table[K, I, V] {
	return &Table[K, I, V]{kept: map[K]entry[I, V]{}, readers: map[I]map[K]struct{}{}}
}

// Get is the value kept for key, or what compute makes now. compute calls read for every input it looks at, also for one that it finds missing.
func (t *Table[K, I, V]) Get(key K, compute func(read func(I)) V) V {
	if e, ok := t.kept[key]; ok {
		return e.value
	}
	e := entry[I, V]{read: map[I]struct{}{}}
	e.value = compute(func(input I) { e.read[input] = struct{}{} })
	t.kept[key] = e
	for input := range e.read {
		if t.readers[input] == nil {
			t.readers[input] = map[K]struct{}{}
		}
		t.readers[input][key] = struct{}{}
	}
	return e.value
}

// Kept is the value kept for key, if one is.
func (t *Table[K, I, V]) Kept(key K) (V, bool) {
	e, ok := t.kept[key]
	return e.value, ok
}

// Changed forgets every value that was made from one of the inputs, and returns their keys, in no order.
func (t *Table[K, I, V]) Changed(inputs ...I) []K {
	stale := map[K]struct{}{}
	for _, input := range inputs {
		maps.Copy(stale, t.readers[input])
	}
	out := make([]K, 0, len(stale))
	for key := range stale {
		t.Drop(key)
		out = append(out, key)
	}
	return out
}

// Drop forgets the value of key.
func (t *Table[K, I, V]) Drop(key K) {
	for input := range t.kept[key].read {
		delete(t.readers[input], key)
		if len(t.readers[input]) == 0 {
			delete(t.readers, input)
		}
	}
	delete(t.kept, key)
}

// Len counts the values kept.
func (t *Table[K, I, V]) Len() int { return len(t.kept) }
