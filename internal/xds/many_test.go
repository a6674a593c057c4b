package xds_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/xds"
)

// mirror is a proxy that keeps what it was given, as an Envoy would, and acknowledges.
type mirror struct {
	mu   sync.Mutex
	held map[string]map[string]string // by type and name: version
}

func (m *mirror) run(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, id string, changed func()) error {
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, Node: &corev3.Node{Id: id}}); err != nil {
		return err
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: lds}); err != nil {
		return err
	}
	asked := map[string]bool{}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		var names, gone []string
		m.mu.Lock()
		if m.held[r.TypeUrl] == nil {
			m.held[r.TypeUrl] = map[string]string{}
		}
		for _, x := range r.Resources {
			if (r.TypeUrl == eds || r.TypeUrl == rds) && !asked[r.TypeUrl+x.Name] {
				continue // crossed the unsubscription on the wire
			}
			m.held[r.TypeUrl][x.Name] = x.Version
			names = append(names, x.Name)
		}
		for _, n := range r.RemovedResources {
			delete(m.held[r.TypeUrl], n)
			gone = append(gone, n)
		}
		m.mu.Unlock()
		follow := map[string]string{cds: eds, lds: rds}[r.TypeUrl]
		if follow != "" {
			var add, drop []string
			for _, n := range names {
				if !asked[follow+n] {
					asked[follow+n] = true
					add = append(add, n)
				}
			}
			for _, n := range gone {
				delete(asked, follow+n)
				drop = append(drop, n)
				m.mu.Lock()
				delete(m.held[follow], n)
				m.mu.Unlock()
			}
			if len(add)+len(drop) > 0 {
				if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: follow, ResourceNamesSubscribe: add, ResourceNamesUnsubscribe: drop}); err != nil {
					return err
				}
			}
		}
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}); err != nil {
			return err
		}
		changed()
	}
}

// versions of what content says, for comparison.
func (f *fixture) versions(c content) map[string]map[string]string {
	out := map[string]map[string]string{cds: {}, eds: {}, lds: {}, rds: {}}
	for n, v := range c.cds {
		out[cds][n] = made(f.t, n, cluster(n, v)).Version
	}
	for n := range c.cds { // one endpoint set per cluster, if only an empty one
		out[eds][n] = "absent"
		if v, ok := c.eds[n]; ok {
			out[eds][n] = made(f.t, n, endpoint(n, v)).Version
		}
	}
	for n, v := range c.lds {
		out[lds][n] = made(f.t, n, listener(n, v)).Version
	}
	for n := range c.lds {
		if v, ok := c.rds[n]; ok {
			out[rds][n] = made(f.t, n, route(n, v)).Version
		}
	}
	return out
}

func (m *mirror) differs(want map[string]map[string]string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for url, w := range want {
		got := m.held[url]
		for n, v := range w {
			if got[n] != v {
				return fmt.Sprintf("%s %s: has %q, want %q", url, n, got[n], v)
			}
		}
		for n := range got {
			if _, ok := w[n]; !ok {
				return fmt.Sprintf("%s %s: has it, should not", url, n)
			}
		}
	}
	return ""
}

// A law: whatever is published in whatever order and speed, every proxy ends with the last publication and nothing else.
func TestEveryProxyEndsWithTheLastPublicationWhateverCameBefore(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	var mirrors []*mirror
	var wg sync.WaitGroup
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}
	for i := range 20 {
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(t, f.addr)).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m := &mirror{held: map[string]map[string]string{}}
		mirrors = append(mirrors, m)
		wg.Go(func() {
			if err := m.run(s, fmt.Sprint("p", i), changed); status.Code(err) != codes.Canceled {
				t.Errorf("stream ended: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var last content
	random := func() set {
		m := set{}
		for n := range 12 {
			if rng.IntN(3) > 0 {
				m[fmt.Sprint("n", n)] = 1 + rng.IntN(2)
			}
		}
		return m
	}
	for range 5 {
		for range 1 + rng.IntN(30) {
			last = content{cds: random(), eds: random(), lds: random(), rds: random()}
			f.publish(last)
		}
		want := f.versions(last)
		deadline := time.After(patience)
		for {
			diff := ""
			for i, m := range mirrors {
				if d := m.differs(want); d != "" {
					diff = fmt.Sprintf("proxy %d: %s", i, d)
				}
			}
			if diff == "" {
				break
			}
			select {
			case <-changes:
			case <-time.After(10 * time.Millisecond):
			case <-deadline:
				t.Fatal(diff)
			}
		}
		f.await("all have answered", func() bool { _, behind := f.server.Progress(f.generation); return behind == 0 })
	}
}

// big are more clusters than windows hold.
func (f *fixture) big() resource.Group {
	many := set{}
	for i := range 20000 {
		many[fmt.Sprintf("a-cluster-with-a-name-of-some-length-so-that-the-windows-fill-%d", i)] = 1
	}
	return resource.Group{f.set(many, cluster)}
}

// slow is a client that asks for clusters and never receives.
func (f *fixture) slow() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(f.t, f.addr)).DeltaAggregatedResources(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, Node: &corev3.Node{Id: "slow"}}); err != nil {
		f.t.Fatal(err)
	}
}

func TestAProxyThatStopsReadingLosesItsStream(t *testing.T) {
	f := start(t, stepTimeout)
	f.generation++
	f.server.Publish(source{&resource.Snapshot{Clusters: f.big(), Routes: resource.Group{f.set(set{"80": 1}, route)}}}, f.generation)
	f.slow()
	f.await("the slow one is connected and behind", func() bool { _, behind := f.server.Progress(f.generation); return behind == 1 })
	c := f.delta("quick")
	c.subscribe(rds, "80")
	c.hearAndAck(rds, "80")
	f.await("the quick one alone counts", func() bool { n, behind := f.server.Progress(f.generation); return n == 1 && behind == 0 })
	c.quiet()
}

func TestTheStreamOfAWorkloadThatIsGoneEnds(t *testing.T) {
	f := start(t)
	f.publish(base())
	gone, stays := connect(t, f, "gone"), connect(t, f, "stays")
	f.server.Keep(func(_ context.Context, p model.Proxy) bool { return p.Workload.Name != "gone" })
	select {
	case err := <-gone.over:
		if status.Code(err) != codes.PermissionDenied {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
	f.await("one is left", func() bool { n, _ := f.server.Progress(0); return n == 1 })
	stays.quiet()
}

// faulty panics for one proxy.
type faulty struct{ source }

func (s faulty) Snapshot(p model.Proxy) *resource.Snapshot {
	if p.Workload.Name == "unlucky" {
		panic("a fault in the translation")
	}
	return s.source.Snapshot(p)
}

func TestAFaultInOneProxysConfigurationEndsItsStreamAlone(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	f.server.Publish(faulty{source{&resource.Snapshot{}}}, 2)
	c.hearAndAck(lds, "-80")
	unlucky := f.delta("unlucky")
	unlucky.subscribe(cds)
	if err := <-unlucky.over; status.Code(err) != codes.Internal {
		t.Error(err)
	}
	c.hearAndAck(cds, "-a", "-b")
}

func TestAProxyThatDoesNotReadHoldsUpNobody(t *testing.T) {
	f := start(t)
	big := f.big()
	publish := func(v int) {
		f.generation++
		f.server.Publish(source{&resource.Snapshot{Clusters: big, Routes: resource.Group{f.set(set{"80": v}, route)}}}, f.generation)
	}
	publish(1)
	f.slow()
	f.await("the slow one is connected", func() bool { n, _ := f.server.Progress(0); return n == 1 })
	c := f.delta("quick")
	c.subscribe(rds, "80")
	c.hearAndAck(rds, "80")
	for v := 2; v <= 20; v++ {
		publish(v)
		c.hearAndAck(rds, "80")
	}
}

func TestWhoIsNotAdmittedHearsWhy(t *testing.T) {
	f := start(t)
	c := f.delta("stranger")
	c.subscribe(cds)
	if err := <-c.over; status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "not you" {
		t.Errorf("got %v", err)
	}
}

func TestAStreamWithoutANodeIsRefused(t *testing.T) {
	f := start(t)
	c := f.delta("p")
	c.node = nil
	c.subscribe(cds)
	if err := <-c.over; status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestNamesWithoutEndAreRefused(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.delta("p")
	for i := 0; ; i++ {
		names := make([]string, 100_000)
		for j := range names {
			names[j] = fmt.Sprintf("%d-%d", i, j)
		}
		err := c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, Node: &corev3.Node{Id: "p"}, ResourceNamesSubscribe: names})
		if err != nil || i > 10 {
			break
		}
	}
	go func() {
		for range c.in { // the answers do not matter
		}
	}()
	if err := <-c.over; status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

// BenchmarkRouteEdit measures the time from a publication until the last of many proxies has acknowledged a changed route.
func BenchmarkRouteEdit(b *testing.B) {
	for _, services := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(services, "-services"), func(b *testing.B) { benchmarkRouteEdit(b, services, 100) })
	}
}

func benchmarkRouteEdit(b *testing.B, services, proxies int) {
	var acked atomic.Int64
	progress := make(chan struct{}, 1)
	server := xds.New(xds.Config{
		Progress: func() {
			select {
			case progress <- struct{}{}:
			default:
			}
		},
		Log: quietLog(),
	})
	opts, err := xds.Options()
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	server.Register(g, byName)
	addr := serve(b, g)
	content := func(v int) (c []*resource.Resource, r []*resource.Resource) {
		for i := range services {
			name := fmt.Sprint("s", i)
			c = append(c, made(b, name, cluster(name, 1)))
			rv := 1
			if i == 0 {
				rv = v
			}
			r = append(r, made(b, name, route(name, rv)))
		}
		return
	}
	cs, rs := content(1)
	shared := resource.Group{resource.NewSet(cs...)}
	generation := uint64(1)
	lsr := make([]*resource.Resource, 0, services)
	for i := range services {
		name := fmt.Sprint("s", i)
		lsr = append(lsr, made(b, name, listener(name, 1)))
	}
	ls := resource.Group{resource.NewSet(lsr...)}
	server.Publish(source{&resource.Snapshot{Clusters: shared, Listeners: ls, Routes: resource.Group{resource.NewSet(rs...)}}}, generation)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range proxies {
		s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(b, addr)).DeltaAggregatedResources(ctx)
		if err != nil {
			b.Fatal(err)
		}
		m := &mirror{held: map[string]map[string]string{}}
		wg.Go(func() { _ = m.run(s, fmt.Sprint("p", i), func() { acked.Add(1) }) })
	}
	b.Cleanup(func() { cancel(); wg.Wait() })
	wait := func() {
		for {
			if n, behind := server.Progress(generation); n == proxies && behind == 0 {
				return
			}
			<-progress
		}
	}
	wait()
	// The sets are made outside the clock: what is measured is the way to the proxies.
	v := 1
	for b.Loop() {
		b.StopTimer()
		v++
		rs = append([]*resource.Resource(nil), rs...)
		rs[0] = made(b, "s0", route("s0", v))
		set := resource.NewSet(rs...)
		generation++
		b.StartTimer()
		server.Publish(source{&resource.Snapshot{Clusters: shared, Listeners: ls, Routes: resource.Group{set}}}, generation)
		wait()
	}
}
