// Package memo keeps what was made of inputs until an input that was read changes.
//
// In: functions that make a value and say which inputs they read. Out: their values, made again only after Changed named one of those inputs.
package memo

import "slices"

// Table keeps values of type V under keys of type K, each with the inputs of type I that were read to make it. It is not safe for concurrent use.
type Table[K, I comparable, V any] struct {
	kept map[K]*entry[K, I, V]
	// readers are the entries that were made from an input. There are many inputs with few readers each.
	readers map[I][]*entry[K, I, V]
}

type entry[K, I comparable, V any] struct {
	key   K
	value V
	read  []reading[I]
}

// reading is an input, and where the entry is among its readers.
type reading[I comparable] struct {
	input I
	at    int
}

// A list this short is searched faster than a map.
const short = 16

// New makes an empty table.
func New[K, I comparable, V any]() *Table[K, I, V] {
	return &Table[K, I, V]{kept: map[K]*entry[K, I, V]{}, readers: map[I][]*entry[K, I, V]{}}
}

// Get is the value kept for key, or what compute makes now. compute calls read for every input it looks at, also for one that it finds missing.
func (t *Table[K, I, V]) Get(key K, compute func(read func(I)) V) V {
	if e, ok := t.kept[key]; ok {
		return e.value
	}
	e := &entry[K, I, V]{key: key}
	var seen map[I]bool
	e.value = compute(func(input I) {
		switch {
		case len(e.read) < short:
			if slices.ContainsFunc(e.read, func(r reading[I]) bool { return r.input == input }) {
				return
			}
		case seen == nil:
			seen = make(map[I]bool, 2*short)
			for _, r := range e.read {
				seen[r.input] = true
			}
			fallthrough
		default:
			if seen[input] {
				return
			}
			seen[input] = true
		}
		e.read = append(e.read, reading[I]{input: input})
	})
	t.Drop(key) // should compute have asked for its own value
	t.kept[key] = e
	for i, r := range e.read {
		all := t.readers[r.input]
		e.read[i].at = len(all)
		t.readers[r.input] = append(all, e)
	}
	return e.value
}

// Kept is the value kept for key, if one is.
func (t *Table[K, I, V]) Kept(key K) (V, bool) {
	if e, ok := t.kept[key]; ok {
		return e.value, true
	}
	var none V
	return none, false
}

// Readers are the keys whose values were made from one of the inputs, in no order. Their values are still kept.
func (t *Table[K, I, V]) Readers(inputs ...I) []K {
	var out []K
	seen := map[*entry[K, I, V]]bool{}
	for _, input := range inputs {
		for _, e := range t.readers[input] {
			if !seen[e] {
				seen[e] = true
				out = append(out, e.key)
			}
		}
	}
	return out
}

// Changed forgets every value that was made from one of the inputs, and returns their keys, in no order.
func (t *Table[K, I, V]) Changed(inputs ...I) []K {
	stale := t.Readers(inputs...)
	for _, key := range stale {
		t.Drop(key)
	}
	return stale
}

// Drop forgets the value of key.
func (t *Table[K, I, V]) Drop(key K) {
	e, ok := t.kept[key]
	if !ok {
		return
	}
	delete(t.kept, key)
	for _, r := range e.read {
		all := t.readers[r.input]
		last := len(all) - 1
		if last == 0 {
			delete(t.readers, r.input)
			continue
		}
		if r.at != last { // the last one moves to its place
			moved := all[last]
			all[r.at] = moved
			i := slices.IndexFunc(moved.read, func(x reading[I]) bool { return x.input == r.input })
			moved.read[i].at = r.at
		}
		all[last] = nil
		t.readers[r.input] = all[:last]
	}
}

// Len counts the values kept.
func (t *Table[K, I, V]) Len() int { return len(t.kept) }
