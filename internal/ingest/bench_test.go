package ingest_test

import (
	"fmt"
	"testing"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/objects"
)

// BenchmarkIngest makes the mesh of services of ten instances each: from nothing, and after one object changed. What it takes to put that into the set
// is counted.
func BenchmarkIngest(b *testing.B) {
	for _, services := range []int{100, 1000, 5000} {
		m := load.Mesh{Services: services, Instances: 10}
		objs := m.Objects()
		b.Run(fmt.Sprintf("Whole/services=%d", services), func(b *testing.B) {
			b.ReportAllocs()
			cpu.Loop(b, func() {
				mesh, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{})
				if len(mesh.Services) != services || len(mesh.Rules) != 1 {
					b.Fatalf("%d services, %d rules, %v", len(mesh.Services), len(mesh.Rules), fs)
				}
			})
		})
		edit := func(name string, a, z []*objects.Object) {
			b.Run(fmt.Sprintf("%s/services=%d", name, services), func(b *testing.B) {
				b.ReportAllocs()
				set := objects.NewSet(a...)
				there, back := objects.NewSet(z...).Since(set), set.Since(objects.NewSet(z...))
				if len(there) != 1 {
					b.Fatalf("%d edits", len(there))
				}
				keeper := ingest.NewKeeper()
				mesh, _ := keeper.Update(set, ingest.Config{})
				n := 0
				cpu.Loop(b, func() {
					put := []*objects.Object{there[0].New}
					if n++; n%2 == 0 {
						put[0] = back[0].New
					}
					set = set.With(put, nil)
					before := mesh
					if mesh, _ = keeper.Update(set, ingest.Config{}); mesh == before {
						b.Fatal("the edit changes nothing")
					}
				})
			})
		}
		edit("RouteEdit", objs, load.RouteEdit(objs, "0001"))
		edit("EndpointEdit", objs, m.EndpointEdit(objs, "10.250.0.1"))
	}
}
