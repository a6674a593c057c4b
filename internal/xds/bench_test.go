package xds_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/xds"
)

// BenchmarkADS serves a mesh of services of ten instances each to proxies that run in this process, too. All see the same, so that the time is that
// of the server and of the way. Storm: all connect at once, until each has everything; Edit: one route changes, until the last has acknowledged it.
// Beside the time it tells the processor time of both sides, the bytes of all responses (sent) and of the resources in them (needed).
func BenchmarkADS(b *testing.B) {
	const services = 1000
	m := load.Mesh{Services: services, Instances: 10}
	objs := m.Objects()
	first := translate(m, load.Model(objs), nil)
	for _, proxies := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("Storm/proxies=%d", proxies), func(b *testing.B) {
			s := serveLoad(b, first)
			var sent int64
			var meter cpu.Meter
			for b.Loop() {
				meter.Start(b)
				p, _, err := load.Connect(b.Context(), load.Options{Address: s.addr, Proxies: proxies, Node: m.Node})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				meter.Stop(b)
				if sent, err = p.Settle(b.Context()); err != nil {
					b.Fatal(err)
				}
				p.Close()
				b.StartTimer()
			}
			meter.Report(b)
			report(b, sent, int64(proxies)*first.newSince(nil))
		})
		b.Run(fmt.Sprintf("Edit/proxies=%d", proxies), func(b *testing.B) {
			s := serveLoad(b, first)
			p, _, err := load.Connect(b.Context(), load.Options{Address: s.addr, Proxies: proxies, Node: m.Node})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			if _, err := p.Settle(b.Context()); err != nil {
				b.Fatal(err)
			}
			var sent, needed int64
			var meter cpu.Meter
			last, n := first, 0
			for b.Loop() {
				b.StopTimer()
				n++
				marker := fmt.Sprintf("edit-%04d", n)
				next := translate(m, load.Model(load.RouteEdit(objs, marker)), last)
				wave := p.Expect(envoy.RouteType, marker)
				meter.Start(b)
				b.StartTimer()
				s.publish(next)
				if _, err := wave.Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				meter.Stop(b)
				needed, last = int64(proxies)*next.newSince(last), next
				if sent, err = p.Settle(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			meter.Report(b)
			report(b, sent, needed)
		})
	}
}

func report(b *testing.B, sent, needed int64) {
	b.ReportMetric(float64(sent), "sent-B")
	b.ReportMetric(float64(needed), "needed-B")
}

type loadServer struct {
	server     *xds.Server
	addr       string
	generation uint64
}

func (s *loadServer) publish(t *translation) {
	s.generation++
	s.server.Publish(source{t.snapshot}, s.generation)
}

func serveLoad(b *testing.B, t *translation) *loadServer {
	b.Helper()
	s := &loadServer{server: xds.New(xds.Config{StepTimeout: time.Minute, Log: quietLog()})}
	opts, err := xds.Options()
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	s.server.Register(g, func(_ context.Context, id string) (model.Proxy, error) {
		return model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Name: id}}, nil
	})
	s.addr = serve(b, g)
	s.publish(t)
	return s
}

// translation is the snapshot of every proxy and the resources it was made from.
type translation struct {
	snapshot *resource.Snapshot
	from     map[string]*envoy.Resource
}

// translate shares the sets of last wherever they are equal.
func translate(m load.Mesh, mesh *model.Mesh, last *translation) *translation {
	r := envoy.Build(mesh, m.Proxy(0))
	if last == nil {
		last = &translation{snapshot: &resource.Snapshot{}}
	}
	t := &translation{from: map[string]*envoy.Resource{}}
	group := func(rs []*envoy.Resource, was resource.Group) resource.Group {
		var out []*resource.Resource
		for _, r := range rs {
			t.from[r.TypeURL+r.Name] = r
			out = append(out, r)
		}
		if len(was) > 0 { // edits change resources here, and take none away
			return resource.Group{was[0].With(out, nil)}
		}
		return resource.Group{resource.NewSet(out...)}
	}
	t.snapshot = &resource.Snapshot{
		Clusters: group(r.Clusters, last.snapshot.Clusters), Endpoints: group(r.Endpoints, last.snapshot.Endpoints),
		Listeners: group(r.Listeners, last.snapshot.Listeners), Routes: group(r.Routes, last.snapshot.Routes),
	}
	return t
}

// newSince are the bytes of the resources that last has not, or not in this form.
func (t *translation) newSince(last *translation) (n int64) {
	for key, r := range t.from {
		if last != nil && last.from[key] != nil && last.from[key].Version == r.Version {
			continue
		}
		n += int64(len(r.Value))
	}
	return n
}
