package meshd

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/meshctl/meshctl/internal/model"
)

// meshOf is a mesh of n HTTP services with an instance each, and a workload for every name.
func meshOf(services int, workloads ...string) *model.Mesh {
	m := &model.Mesh{Domain: "cluster.local"}
	for i := range services {
		host := fmt.Sprintf("s%03d.default.svc.cluster.local", i)
		m.Services = append(m.Services, &model.Service{
			Hostname: host, Name: fmt.Sprintf("s%03d", i), Namespace: "default", Addresses: []string{fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)},
			Ports: []model.Port{{Name: "http", Number: 80, Protocol: model.HTTP}},
		})
		m.Endpoints = append(m.Endpoints, &model.Endpoints{Hostname: host, List: []model.Endpoint{
			{ServicePort: 80, Address: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), Port: 8080, Ready: true},
		}})
	}
	for i, w := range workloads {
		m.Workloads = append(m.Workloads, &model.Workload{Key: model.WorkloadKey{Namespace: "default", Name: w}, Addresses: []string{fmt.Sprint("10.2.0.", i+1)}})
	}
	return m
}

func sidecar(name string) model.Proxy {
	return model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: name}}
}

func TestWhatDoesNotChangeStaysTheSameSet(t *testing.T) {
	tr := newTranslator()
	mesh := meshOf(5, "a", "b")
	first := tr.source(mesh)
	a, b := first.Snapshot(sidecar("a")), first.Snapshot(sidecar("b"))
	if a != first.Snapshot(sidecar("a")) {
		t.Error("the same proxy is translated twice")
	}
	if a.Endpoints[0] != b.Endpoints[0] || a.Routes[0] != b.Routes[0] {
		t.Error("two proxies that see the same do not share it")
	}
	copied := *mesh
	second := tr.source(&copied).Snapshot(sidecar("a"))
	for i, pair := range [][2]any{{a.Clusters[0], second.Clusters[0]}, {a.Endpoints[0], second.Endpoints[0]}, {a.Listeners[0], second.Listeners[0]}, {a.Routes[0], second.Routes[0]}} {
		if pair[0] != pair[1] {
			t.Errorf("an unchanged mesh gives another set of type %d", i)
		}
	}
	changed := *mesh
	changed.Endpoints = slices.Clone(mesh.Endpoints)
	changed.Endpoints[0] = &model.Endpoints{Hostname: mesh.Endpoints[0].Hostname, List: []model.Endpoint{{ServicePort: 80, Address: "10.1.9.9", Port: 8080, Ready: true}}}
	third := tr.source(&changed).Snapshot(sidecar("a"))
	name := "outbound|80||s000.default.svc.cluster.local"
	if third.Endpoints[0] == a.Endpoints[0] || third.Endpoints[0].Get(name).Version == a.Endpoints[0].Get(name).Version {
		t.Error("a changed endpoint changes nothing")
	}
	other := "outbound|80||s001.default.svc.cluster.local"
	if third.Endpoints[0].Get(other) != a.Endpoints[0].Get(other) {
		t.Error("an unchanged endpoint set is encoded anew")
	}
	if third.Clusters[0] != a.Clusters[0] || third.Listeners[0] != a.Listeners[0] || third.Routes[0] != a.Routes[0] {
		t.Error("an endpoint touched clusters, listeners or routes")
	}
	runtime.KeepAlive(a) // as the stream that was sent it would
	runtime.KeepAlive(second)
}
