package resource

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshctl/meshctl/internal/model"
)

func res(name, content string, refs ...model.Ref) *Resource {
	return New("type.googleapis.com/x", name, []byte(content), refs...)
}

func TestAResourceIsWhatTheProtocolSays(t *testing.T) {
	r := res("a", "some content")
	var m discoveryv3.DeltaDiscoveryResponse
	if err := proto.Unmarshal(slices.Concat(r.Delta(), res("b", "").Delta()), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.GetResources()) != 2 {
		t.Fatalf("%d resources of 2", len(m.GetResources()))
	}
	got := m.GetResources()[0]
	if got.GetName() != "a" || got.GetVersion() != r.Version || got.GetResource().GetTypeUrl() != r.TypeURL || string(got.GetResource().GetValue()) != "some content" {
		t.Errorf("%v", got)
	}
	var a anypb.Any
	if err := proto.Unmarshal(r.Any(), &a); err != nil {
		t.Fatal(err)
	}
	if a.GetTypeUrl() != r.TypeURL || !bytes.Equal(a.GetValue(), r.Value) {
		t.Errorf("%v", &a)
	}
	if res("a", "x").Version == r.Version || res("b", "some content").Version != r.Version {
		t.Error("the version does not follow the content")
	}
}

// random names: few, so that sets meet the same ones again, and some whose places in the tree are the same far down.
func random(r *rand.Rand, many int) *Resource {
	return res(fmt.Sprint("name-", r.IntN(many)), fmt.Sprint(r.IntN(3)), model.Ref{Name: fmt.Sprint(r.IntN(2))})
}

func TestASetMadeFromAnotherEqualsOneMadeFromNothing(t *testing.T) {
	for seed := range uint64(16) {
		r := rand.New(rand.NewPCG(seed, 1))
		many := []int{3, 30, 300, 2000}[seed%4]
		want := map[string]*Resource{}
		var s *Set
		history := []*Set{s}
		contents := []map[string]*Resource{{}}
		for range 12 {
			var put []*Resource
			var drop []string
			for range r.IntN(1 + r.IntN(many)) {
				put = append(put, random(r, many))
			}
			for range r.IntN(1 + r.IntN(many)) {
				drop = append(drop, fmt.Sprint("name-", r.IntN(many)))
			}
			for _, n := range drop {
				delete(want, n)
			}
			for _, p := range put {
				want[p.Name] = p
			}
			s = s.With(put, drop)
			same(t, s, want)
			same(t, NewSet(slices.Collect(maps.Values(want))...), want)
			for i, old := range history {
				changed, removed := s.Since(old)
				since(t, changed, removed, contents[i], want)
			}
			history, contents = append(history, s), append(contents, maps.Clone(want))
		}
	}
}

func same(t *testing.T, s *Set, want map[string]*Resource) {
	t.Helper()
	if s.Len() != len(want) {
		t.Fatalf("%d of %d resources", s.Len(), len(want))
	}
	n := 0
	for r := range s.All() {
		n++
		if want[r.Name] == nil {
			t.Fatalf("%s should not be there", r.Name)
		}
	}
	if n != len(want) || !slices.IsSortedFunc(s.Sorted(), byName) || len(s.Sorted()) != n {
		t.Fatalf("%d of %d resources, sorted %d", n, len(want), len(s.Sorted()))
	}
	for name, w := range want {
		if got := s.Get(name); got == nil || !equal(got, w) || got.Name != name {
			t.Fatalf("%s is %v instead of %v", name, got, w)
		}
	}
	if s.Get("nothing") != nil {
		t.Fatal("what was never put is there")
	}
}

func byName(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) }

func since(t *testing.T, changed, removed []*Resource, old, now map[string]*Resource) {
	t.Helper()
	wantChanged, wantRemoved := map[string]string{}, map[string]string{}
	for n, r := range now {
		if old[n] == nil || old[n].Version != r.Version {
			wantChanged[n] = r.Version
		}
	}
	for n, r := range old {
		if now[n] == nil {
			wantRemoved[n] = r.Version
		}
	}
	for what, pair := range map[string]struct {
		got  []*Resource
		want map[string]string
	}{"changed": {changed, wantChanged}, "removed": {removed, wantRemoved}} {
		got := map[string]string{}
		for _, r := range pair.got {
			if _, twice := got[r.Name]; twice {
				t.Fatalf("%s is %s twice", r.Name, what)
			}
			got[r.Name] = r.Version
		}
		if !maps.Equal(got, pair.want) {
			t.Fatalf("%s: %v instead of %v", what, got, pair.want)
		}
	}
}

func TestSetsShareWhatDidNotChange(t *testing.T) {
	var all []*Resource
	for i := range 5000 {
		all = append(all, res(fmt.Sprint("name-", i), "1"))
	}
	s := NewSet(all...)
	if s.With([]*Resource{res("name-7", "1")}, []string{"unknown"}) != s {
		t.Error("putting what is there makes another set")
	}
	if again := s.With([]*Resource{res("name-7", "1", model.Ref{Name: "other"})}, nil); again == s || again.Get("name-7").Refs == nil {
		t.Error("a resource of the same content and other objects is not put")
	}
	next := s.With([]*Resource{res("name-7", "2")}, nil)
	calls := 0
	differ(s.tree(), next.tree(), func(_, _ *Resource) { calls++ })
	if calls != 1 {
		t.Errorf("%d resources were compared and not 1", calls)
	}
	if back := next.With([]*Resource{all[7]}, nil); slices.Compare(names(back), names(s)) != 0 {
		t.Error("an edit taken back does not give what was")
	}
	var none *Set
	if none.Len() != 0 || none.Get("a") != nil || len(none.Sorted()) != 0 || none.With(nil, []string{"a"}).Len() != 0 {
		t.Error("no set is not an empty one")
	}
}

func names(s *Set) (out []string) {
	for r := range s.All() {
		out = append(out, r.Name)
	}
	return out
}

func TestSetsOfEqualContentAreWalkedInTheSameOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var all []*Resource
	for i := range 700 {
		all = append(all, res(fmt.Sprint("name-", i), "1"))
	}
	want := names(NewSet(all...))
	for range 5 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var s *Set
		for i, x := range all {
			s = s.With([]*Resource{x, res(fmt.Sprint("gone-", i), "1")}, nil)
		}
		for i := range all {
			s = s.With(nil, []string{fmt.Sprint("gone-", i)})
		}
		if got := names(s); !slices.Equal(got, want) {
			t.Fatal("the order depends on how a set came about")
		}
	}
}

func TestALaterLayerCounts(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 2))
		var g Group
		was, wasContent := g, map[string]*Resource{}
		for range 20 {
			next := slices.Clone(g)
			for range 1 + r.IntN(3) {
				switch i := r.IntN(3); {
				case i >= len(next):
					next = append(next, NewSet(random(r, 30)))
				case r.IntN(10) == 0:
					next[i] = nil
				case r.IntN(10) == 0:
					next = next[:i]
				default:
					next[i] = next[i].With([]*Resource{random(r, 30), random(r, 30)}, []string{random(r, 30).Name, random(r, 30).Name})
				}
			}
			g = next
			content := map[string]*Resource{}
			for _, s := range g {
				for _, x := range s.Sorted() {
					content[x.Name] = x
				}
			}
			if g.Len() != len(content) {
				t.Fatalf("seed %d: %d of %d", seed, g.Len(), len(content))
			}
			seen := map[string]*Resource{}
			for x := range g.All() {
				seen[x.Name] = x
			}
			if !maps.Equal(seen, content) {
				t.Fatalf("seed %d: walked %v instead of %v", seed, seen, content)
			}
			for name, x := range content {
				if g.Get(name) != x {
					t.Fatalf("seed %d: %s is that of another layer", seed, name)
				}
			}
			changed, removed := g.Since(was)
			since(t, changed, removed, wasContent, content)
			if r.IntN(2) == 0 {
				was, wasContent = g, content
			}
		}
	}
}

func TestNamesOfOneHashAreKeptApart(t *testing.T) {
	var entries []entry
	for i := range full * 2 {
		entries = append(entries, entry{42, res(fmt.Sprintf("name-%03d", i), "1")})
	}
	n := grow(entries, 0)
	if n.len() != full*2 {
		t.Fatalf("%d", n.len())
	}
	edits := []edit{{42, "name-003", nil}, {42, "name-004", res("name-004", "2")}}
	next := n.with(edits, 0)
	if next.len() != full*2-1 {
		t.Fatalf("%d", next.len())
	}
	calls := 0
	differ(n, next, func(_, _ *Resource) { calls++ })
	if calls != 2 {
		t.Errorf("%d differ", calls)
	}
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		var all []*Resource
		for i := range n {
			all = append(all, res(fmt.Sprintf("outbound|80||svc-%d.bench-%d.svc.cluster.local", i, i%10), "1"))
		}
		s := NewSet(all...)
		edits := []*Resource{New(all[7].TypeURL, all[7].Name, []byte("2")), all[7]}
		b.Run(fmt.Sprintf("%d/With", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s = s.With(edits[i%2:i%2+1], nil)
			}
		})
		b.Run(fmt.Sprintf("%d/Since", n), func(b *testing.B) {
			b.ReportAllocs()
			next := s.With(edits[:1], nil).With(edits[1:], nil)
			for b.Loop() {
				next.Since(s)
			}
		})
		b.Run(fmt.Sprintf("%d/Get", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				s.Get(all[i%n].Name)
			}
		})
		b.Run(fmt.Sprintf("%d/All", n), func(b *testing.B) {
			for b.Loop() {
				for range s.All() {
				}
			}
		})
	}
}
