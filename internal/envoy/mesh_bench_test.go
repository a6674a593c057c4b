package envoy_test

import (
	"bytes"
	"fmt"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
)

var types = []string{envoy.ClusterType, envoy.EndpointType, envoy.ListenerType, envoy.RouteType}

// BenchmarkEnvoy translates services of ten instances each for a sidecar of every namespace: from nothing, and after one object changed. Beside the
// time it tells of one proxy the bytes of all its resources (made), of those that an edit changes (moved), and of the part of those that the edit is
// about: the virtual host, the endpoint set (needed).
func BenchmarkEnvoy(b *testing.B) {
	for _, services := range []int{100, 1000, 5000} {
		m := load.Mesh{Services: services, Instances: 10}
		objs := m.Objects()
		before := load.Model(objs)
		run := func(name string, mesh *model.Mesh) {
			b.Run(fmt.Sprintf("%s/services=%d", name, services), func(b *testing.B) {
				var one *envoy.Resources
				cpu.Loop(b, func() {
					t := envoy.NewTranslator()
					t.Update(mesh)
					for i := range load.Namespaces {
						one = envoy.All(t.Snapshot(m.Proxy(i)))
					}
				})
				old := envoy.Build(before, m.Proxy(load.Namespaces-1))
				made, moved, needed := 0, 0, 0
				for _, url := range types {
					was := map[string]*envoy.Resource{}
					for _, r := range old.Of(url) {
						was[r.Name] = r
					}
					for _, r := range one.Of(url) {
						size := len(r.Value)
						made += size
						if o := was[r.Name]; o == nil || o.Version != r.Version {
							moved += size
							needed += differing(b, o, r)
						}
					}
				}
				b.ReportMetric(float64(made), "made-B")
				b.ReportMetric(float64(moved), "moved-B")
				b.ReportMetric(float64(needed), "needed-B")
			})
		}
		run("Whole", before)
		run("RouteEdit", load.Model(load.RouteEdit(objs, "0001")))
		run("EndpointEdit", load.Model(m.EndpointEdit(objs, "10.250.0.1")))
	}
}

// differing is the size of the virtual hosts that are not the same in both; of another resource, its size.
func differing(b *testing.B, was, is *envoy.Resource) int {
	if is.TypeURL != envoy.RouteType || was == nil {
		return len(is.Value)
	}
	hosts := func(r *envoy.Resource) map[string][]byte {
		m := &routev3.RouteConfiguration{}
		if err := envoy.Message(r).UnmarshalTo(m); err != nil {
			b.Fatal(err)
		}
		out := map[string][]byte{}
		for _, h := range m.GetVirtualHosts() {
			body, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
			if err != nil {
				b.Fatal(err)
			}
			out[h.GetName()] = body
		}
		return out
	}
	n, old := 0, hosts(was)
	for name, h := range hosts(is) {
		if !bytes.Equal(old[name], h) {
			n += len(h)
		}
	}
	return n
}
