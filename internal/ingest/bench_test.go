package ingest_test

import (
	"fmt"
	"testing"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/objects"
)

// BenchmarkIngest makes the mesh of services of ten instances each: from nothing, and after one object changed.
func BenchmarkIngest(b *testing.B) {
	for _, services := range []int{100, 1000, 5000} {
		m := load.Mesh{Services: services, Instances: 10}
		objs := m.Objects()
		run := func(name string, objs []*objects.Object) {
			b.Run(fmt.Sprintf("%s/services=%d", name, services), func(b *testing.B) {
				cpu.Loop(b, func() {
					mesh, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{})
					if len(mesh.Services) != services || len(mesh.Rules) != 1 {
						b.Fatalf("%d services, %d rules, %v", len(mesh.Services), len(mesh.Rules), fs)
					}
				})
			})
		}
		run("Whole", objs)
		run("RouteEdit", load.RouteEdit(objs, "0001"))
		run("EndpointEdit", m.EndpointEdit(objs, "10.250.0.1"))
	}
}
