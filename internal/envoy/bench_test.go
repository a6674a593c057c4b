package envoy_test

import (
	"fmt"
	"testing"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
)

// BenchmarkBuild translates a mesh of services with ten endpoints each: everything for the first sidecar, and what one more costs.
func BenchmarkBuild(b *testing.B) {
	for _, services := range []int{100, 1000} {
		mesh := wide(services)
		first := model.Proxy{Type: model.Sidecar, Workload: mesh.Workloads[0].Key}
		b.Run(fmt.Sprintf("first/services=%d", services), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t := envoy.NewTranslator()
				t.Update(mesh)
				t.Snapshot(first)
			}
		})
		b.Run(fmt.Sprintf("next/services=%d", services), func(b *testing.B) {
			b.ReportAllocs()
			t := envoy.NewTranslator()
			t.Update(mesh)
			t.Snapshot(first)
			i := 0
			for b.Loop() {
				i++
				t.Snapshot(model.Proxy{Type: model.Sidecar, Workload: mesh.Workloads[i%len(mesh.Workloads)].Key})
			}
		})
	}
}

// wide is a mesh of n services with a rule each.
func wide(n int) *model.Mesh {
	m := &model.Mesh{Domain: "cluster.local"}
	for i := range n {
		name := fmt.Sprintf("svc-%04d", i)
		host := name + ".default.svc.cluster.local"
		svc := &model.Service{
			Hostname: host, Name: name, Namespace: "default", Addresses: []string{fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)},
			Ports: []model.Port{{Name: "http", Number: 8080, Protocol: model.HTTP}},
		}
		instances := &model.Endpoints{Hostname: host}
		for j := range 10 {
			w := &model.Workload{
				Key: model.WorkloadKey{Namespace: "default", Name: fmt.Sprintf("%s-%d", name, j)}, Labels: map[string]string{"app": name, "version": fmt.Sprint("v", j%2)},
				Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 100+j, i/250, i%250+1)}, Inbound: []model.InboundPort{{Hostname: host, ServicePort: 8080, Port: 8080, Protocol: model.HTTP}},
			}
			m.Workloads = append(m.Workloads, w)
			instances.List = append(instances.List, model.Endpoint{ServicePort: 8080, Address: w.Addresses[0], Port: 8080, Labels: w.Labels, Workload: w.Key, Ready: true})
		}
		m.Services, m.Endpoints = append(m.Services, svc), append(m.Endpoints, instances)
		m.Rules = append(m.Rules, &model.Rule{
			Ref: model.Ref{Kind: "RouteRule", Namespace: "default", Name: name}, Host: host,
			Routes: []model.Target{{Host: host, Labels: map[string]string{"version": "v0"}, Weight: 90}, {Host: host, Labels: map[string]string{"version": "v1"}, Weight: 10}},
		})
	}
	return m
}
