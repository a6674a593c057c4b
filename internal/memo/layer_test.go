package memo_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshctl/meshctl/internal/memo"
)

// view is a layer over numbers: its inputs are numbers, some of them other than those of the view below.
type view struct {
	*memo.Layer[int, int, string]
	below *view
	own   map[int]int
	base  []int
	roots map[int]bool
	made  int
	// has is what the changes told so far add up to.
	has map[int]string
}

func newView(below *view, base []int, roots map[int]bool) *view {
	v := &view{below: below, own: map[int]int{}, base: base, roots: roots, has: map[int]string{}}
	var under *memo.Layer[int, int, string]
	if below != nil {
		under = below.Layer
		maps.Copy(v.has, below.has)
	}
	v.Layer = memo.NewLayer(under, memo.Plan[int, int, string]{
		Root: func(key int) bool { return v.roots[key] },
		Make: func(key int, m *memo.Making[int, int], _ string) string {
			v.made++
			return v.unit(key, m)
		},
	})
	return v
}

func (v *view) input(i int) int {
	if x, ok := v.own[i]; ok {
		return x
	}
	if v.below != nil {
		return v.below.input(i)
	}
	return v.base[i]
}

// unit reads inputs that depend on those read before, and wants units of higher numbers.
func (v *view) unit(key int, m *memo.Making[int, int]) string {
	out, at := "", key%len(v.base)
	for range 3 {
		m.Read(at)
		x := v.input(at)
		out += fmt.Sprint(at, "=", x, " ")
		if x%3 == 0 && key < 40 {
			m.Want(key + 1 + x%7)
		}
		at = (at + x + 1) % len(v.base)
	}
	return out
}

func (v *view) update(t *testing.T, u memo.Update[int, int, string]) []memo.Change[int, string] {
	t.Helper()
	changes := v.Update(u)
	for _, c := range changes {
		if c.Was != v.has[c.Key] {
			t.Fatalf("unit %d was %q and is said to have been %q", c.Key, v.has[c.Key], c.Was)
		}
		if c.Is == "" {
			delete(v.has, c.Key)
		} else {
			v.has[c.Key] = c.Is
		}
		if c.IsOwn != v.Own(c.Key) {
			t.Fatalf("unit %d is said to be the layer's own: %v", c.Key, c.IsOwn)
		}
	}
	return changes
}

// The law: whatever changes in whatever order, and wherever in a stack of layers, each has what it would have if made from nothing.
func TestLayersEqualFreshOnes(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		base, roots := make([]int, 12), map[int]bool{}
		for i := range base {
			base[i] = r.IntN(20)
		}
		stack := make([]*view, 3)
		for i := range stack {
			var below *view
			if i > 0 {
				below = stack[i-1]
			}
			stack[i] = newView(below, base, roots)
		}
		for range 150 {
			updates := make([]memo.Update[int, int, string], len(stack))
			for range 1 + r.IntN(2) {
				i := r.IntN(len(base))
				switch level := r.IntN(4); level {
				case 0:
					base[i] = r.IntN(20)
					for l := range updates {
						updates[l].Changed = append(updates[l].Changed, i)
					}
				case 1:
					roots[i] = !roots[i]
					updates[0].Roots = append(updates[0].Roots, i)
				default:
					v, u := stack[level-1], &updates[level-1]
					if _, other := v.own[i]; other && r.IntN(2) == 0 {
						delete(v.own, i)
						u.Parts = slices.DeleteFunc(u.Parts, func(x int) bool { return x == i })
						u.Joins = append(u.Joins, i)
					} else {
						v.own[i] = r.IntN(20)
						u.Joins = slices.DeleteFunc(u.Joins, func(x int) bool { return x == i })
						u.Parts = append(u.Parts, i)
					}
					for l := level; l < len(updates); l++ {
						updates[l].Changed = append(updates[l].Changed, i)
					}
				}
			}
			var below []memo.Change[int, string]
			for l, v := range stack {
				updates[l].Below = below
				below = v.update(t, updates[l])
			}
			equalFresh(t, seed, stack)
		}
	}
}

func equalFresh(t *testing.T, seed uint64, stack []*view) {
	t.Helper()
	var below *view
	for l, v := range stack {
		fresh := newView(below, v.base, v.roots)
		fresh.own = v.own
		u := memo.Update[int, int, string]{Parts: slices.Collect(maps.Keys(v.own))}
		if below == nil {
			u.Roots = slices.Collect(maps.Keys(v.roots))
		}
		fresh.update(t, u)
		if !maps.Equal(v.has, fresh.has) || v.Len() != fresh.Len() {
			t.Fatalf("seed %d: layer %d has %v, made from nothing %v", seed, l, v.has, fresh.has)
		}
		below = fresh
	}
}

func TestALayerKeepsOnlyWhatDiffers(t *testing.T) {
	base, roots := []int{1, 1, 1, 1, 1, 1}, map[int]bool{0: true, 1: true, 2: true, 3: true}
	low := newView(nil, base, roots)
	low.update(t, memo.Update[int, int, string]{Roots: []int{0, 1, 2, 3}})
	high := newView(low, base, roots)
	high.own[5] = 2
	high.update(t, memo.Update[int, int, string]{Parts: []int{5}})
	// Unit 1 reads 1, 3 and 5, unit 3 reads 3, 5 and 1.
	if high.Len() != 2 || !high.Own(1) || !high.Own(3) || high.made != 2 {
		t.Errorf("the upper layer made %d units and has %d", high.made, high.Len())
	}
	low.made, base[0] = 0, 7
	changes := low.update(t, memo.Update[int, int, string]{Changed: []int{0}})
	if high.update(t, memo.Update[int, int, string]{Changed: []int{0}, Below: changes}); low.made != 2 || high.made != 2 {
		t.Errorf("after a change %d units are made below and %d above", low.made, high.made-2)
	}
}
