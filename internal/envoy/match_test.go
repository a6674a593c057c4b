package envoy

import (
	"slices"
	"testing"

	"github.com/meshctl/meshctl/internal/model"
)

func TestANameIsGivenToOneService(t *testing.T) {
	plain := &model.Service{Hostname: "a.default.svc.cluster.local", Name: "a", Namespace: "default", Addresses: []string{"10.96.0.1", "fd00::1"}}
	dotted := &model.Service{Hostname: "a.default.default.svc.cluster.local", Name: "a.default", Namespace: "default", Addresses: []string{"10.96.0.1"}}
	port := []model.Port{{Number: 80, Protocol: model.HTTP}}
	plain.Ports, dotted.Ports = port, port
	x := newIndex()
	x.follow(&model.Mesh{Domain: "cluster.local", Services: []*model.Service{plain, dotted}})
	names := func(svc *model.Service) []string {
		c := &caller{b: &Builder{index: x, read: func(input) {}}, view: view{namespace: "default"}}
		names, _ := c.domainsOf(svc, 80)
		return names
	}
	want := []string{"a.default.default.svc.cluster.local", "a.default", "a.default.default", "a.default.default.svc", "a.default.default.svc.cluster", "10.96.0.1"}
	if got := names(dotted); !slices.Equal(got, want) {
		t.Errorf("the first by name has %v, want %v", got, want)
	}
	want = []string{"a.default.svc.cluster.local", "a", "a.default.svc", "a.default.svc.cluster", "[fd00::1]"}
	if got := names(plain); !slices.Equal(got, want) {
		t.Errorf("the second has %v, want %v", got, want)
	}
}

func TestIntersectionOfPaths(t *testing.T) {
	exact := func(v string) pathMatch { return pathMatch{kind: model.Exact, value: v} }
	prefix := func(v string) pathMatch { return pathMatch{kind: model.Prefix, value: v} }
	elements := func(v string) pathMatch { return pathMatch{kind: model.Prefix, value: v, elements: true} }
	regex := func(v string) pathMatch { return pathMatch{kind: model.Regex, value: v} }
	none := pathMatch{}
	for _, c := range []struct {
		name       string
		p, q, want pathMatch
		extra      int
	}{
		{"everything and something", anyPath(), exact("/a"), exact("/a"), 0},
		{"equal exact paths", exact("/a"), exact("/a"), exact("/a"), 0},
		{"different exact paths", exact("/a"), exact("/b"), none, 0},
		{"an exact path under a prefix", exact("/a/b"), prefix("/a"), exact("/a/b"), 0},
		{"an exact path beside a prefix", exact("/b"), prefix("/a"), none, 0},
		{"nested prefixes", prefix("/a"), prefix("/a/b"), prefix("/a/b"), 0},
		{"disjoint prefixes", prefix("/a"), prefix("/b"), none, 0},
		{"equal prefixes, one of elements", prefix("/a"), elements("/a"), elements("/a"), 0},
		{"a prefix that ends inside the other's element", elements("/foo"), prefix("/fo"), elements("/foo"), 0},
		{"a prefix that goes on inside the other's element", elements("/foo"), prefix("/foobar"), none, 0},
		{"a prefix that goes on with another element", elements("/foo"), prefix("/foo/b"), prefix("/foo/b"), 0},
		{"an exact path inside the element", elements("/foo"), exact("/foobar"), none, 0},
		{"an expression and an exact path", regex("/a.*"), exact("/ab"), exact("/ab"), 1},
		{"two expressions", regex("/a.*"), regex("/.*b"), regex("/.*b"), 1},
		{"an expression and everything", regex("/a.*"), anyPath(), regex("/a.*"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, pair := range [][2]pathMatch{{c.p, c.q}, {c.q, c.p}} {
				got, extra, ok := intersect(pair[0], pair[1])
				if c.extra > 0 && c.p.kind == c.q.kind {
					// Of two expressions either may be the path's.
					c.want = pair[1]
				}
				if ok != (c.want != none) || len(extra) != c.extra || (ok && got != c.want) {
					t.Errorf("%v and %v: %v with %d more conditions, %v", pair[0], pair[1], got, len(extra), ok)
				}
			}
		})
	}
}
