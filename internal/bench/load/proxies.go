package load

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/resource"
)

const (
	method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	// quiet is how long nothing may come before a phase is over.
	quiet = 300 * time.Millisecond
)

// Proxies ask one control plane for configuration over incremental ADS, as so many Envoys would, each on a connection of its own: all clusters, the endpoints
// those name, all listeners, the routes those name, and the virtual hosts of routes that come without. They acknowledge everything and run nothing.
type Proxies struct {
	n      int
	cancel context.CancelFunc
	wg     sync.WaitGroup
	refs   references
	conns  []*grpc.ClientConn

	configured atomic.Int64
	all        chan struct{}
	broken     chan error

	bytes  atomic.Int64
	latest atomic.Int64 // when the latest response came, in nanoseconds since begun
	begun  time.Time
	wave   atomic.Pointer[Wave]
}

// Options of Connect.
type Options struct {
	Address string
	// Proxies is how many there are, Node gives the node id of each.
	Proxies int
	Node    func(int) string
	// VirtualHosts makes them take virtual hosts on their own.
	VirtualHosts bool
}

// RouteType is the type that an edit of a route is sent in.
func (o Options) RouteType() string {
	if o.VirtualHosts {
		return virtualHostType
	}
	return envoy.RouteType
}

const virtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"

// Connect starts proxies and returns when each has all that it asked for, with the time that took.
func Connect(ctx context.Context, o Options) (*Proxies, time.Duration, error) {
	n := o.Proxies
	run, cancel := context.WithCancel(ctx)
	p := &Proxies{n: n, cancel: cancel, refs: references{known: map[string]*reference{}}, all: make(chan struct{}), broken: make(chan error, n)}
	for range n {
		conn, err := grpc.NewClient(o.Address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithReadBufferSize(4<<10))
		if err != nil {
			p.Close()
			return nil, 0, fmt.Errorf("connecting to %s: %w", o.Address, err)
		}
		p.conns = append(p.conns, conn)
	}
	p.begun = time.Now()
	for i, conn := range p.conns {
		p.wg.Go(func() {
			x := &proxy{all: p, requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 256), node: &corev3.Node{Id: o.Node(i), UserAgentName: "envoy"}}
			if o.VirtualHosts {
				x.node.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{resource.VirtualHosts: structpb.NewBoolValue(true)}}
			}
			if err := x.run(run, conn); run.Err() == nil {
				p.broken <- fmt.Errorf("proxy %d: %w", i, err)
			}
		})
	}
	select {
	case <-p.all:
		return p, time.Since(p.begun), nil
	case err := <-p.broken:
		p.Close()
		return nil, 0, err
	case <-ctx.Done():
		done := p.configured.Load()
		p.Close()
		return nil, 0, fmt.Errorf("waiting for %d proxies, of which %d are configured: %w", n, done, ctx.Err())
	}
}

// Close ends all proxies.
func (p *Proxies) Close() {
	p.cancel()
	for _, c := range p.conns {
		_ = c.Close() // what it was about to say matters no more
	}
	p.wg.Wait()
}

// Settle returns when nothing has come for a moment, with the bytes of all responses since the last call.
func (p *Proxies) Settle(ctx context.Context) (int64, error) {
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	for time.Since(p.begun)-time.Duration(p.latest.Load()) < quiet {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case err := <-p.broken:
			return 0, err
		case <-tick.C:
		}
	}
	return p.bytes.Swap(0), nil
}

// Wave is one edit on its way to all proxies.
type Wave struct {
	url    string
	marker []byte
	left   atomic.Int64
	done   chan struct{}
	begun  time.Time
}

// Expect begins to look for an edit: for responses of the type that contain marker.
func (p *Proxies) Expect(url, marker string) *Wave {
	w := &Wave{url: url, marker: []byte(marker), done: make(chan struct{}), begun: time.Now()}
	w.left.Store(int64(p.n))
	p.wave.Store(w)
	return w
}

// Wait returns when the last proxy has acknowledged the edit, with the time since Expect.
func (w *Wave) Wait(ctx context.Context) (time.Duration, error) {
	select {
	case <-w.done:
		return time.Since(w.begun), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("waiting for an edit, which %d proxies do not have: %w", w.left.Load(), ctx.Err())
	}
}

// proxy is one of them. Its receiving goroutine owns all of it.
type proxy struct {
	all      *Proxies
	requests chan *discoveryv3.DeltaDiscoveryRequest
	node     *corev3.Node

	clusters, listeners bool
	lds                 bool
	endpoints, routes   wanted
	hosts               wanted // by route configuration
	ready               bool
	wave                *Wave
}

// wanted are names asked for.
type wanted struct {
	names   map[string]bool // to whether it came
	missing int
}

func (w *wanted) seen(name []byte) {
	if came, ok := w.names[string(name)]; ok && !came {
		w.names[string(name)] = true
		w.missing--
	}
}

// add returns those of names that are new.
func (w *wanted) add(names []string) (fresh []string) {
	if w.names == nil {
		w.names = map[string]bool{}
	}
	for _, n := range names {
		if _, ok := w.names[n]; !ok {
			w.names[n] = false
			w.missing++
			fresh = append(fresh, n)
		}
	}
	return fresh
}

func (x *proxy) run(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method,
		grpc.ForceCodecV2(codec{}), grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(256<<20))
	if err != nil {
		cancel()
		return err
	}
	// A proxy that stopped reading while it sends could hold up the control plane.
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case r := <-x.requests:
				if stream.SendMsg(r) != nil {
					return // receiving tells why
				}
			}
		}
	})
	defer sending.Wait()
	defer cancel()
	x.ask(envoy.ClusterType, nil)
	for {
		var p payload
		if err := stream.RecvMsg(&p); err != nil {
			return err
		}
		err := x.take(p.ReadOnlyData())
		p.Free()
		if err != nil {
			return err
		}
	}
}

func (x *proxy) ask(url string, names []string) {
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names}
	r.Node, x.node = x.node, nil
	x.requests <- r
}

func (x *proxy) take(b []byte) error {
	r, err := parse(b)
	if err != nil {
		return fmt.Errorf("reading a response: %w", err)
	}
	x.all.bytes.Add(int64(len(b)))
	x.all.latest.Store(int64(time.Since(x.all.begun)))
	x.requests <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.url, ResponseNonce: r.nonce}
	if w := x.all.wave.Load(); w != nil && w != x.wave && w.url == r.url && bytes.Contains(b, w.marker) {
		x.wave = w
		if w.left.Add(-1) == 0 {
			close(w.done)
		}
	}
	switch r.url {
	case envoy.ClusterType:
		x.clusters = true
		err = x.follow(r, envoy.EndpointType, &x.endpoints)
	case envoy.ListenerType:
		x.listeners = true
		err = x.follow(r, envoy.RouteType, &x.routes)
	case envoy.EndpointType:
		x.answer(r, &x.endpoints)
	case envoy.RouteType:
		x.answer(r, &x.routes)
		err = x.follow(r, virtualHostType, &x.hosts)
	case virtualHostType:
		for i := range r.resources {
			r.resources[i].name, _, _ = bytes.Cut(r.resources[i].name, []byte("/"))
		}
		x.answer(r, &x.hosts)
	}
	if err != nil {
		return err
	}
	if x.clusters && x.endpoints.missing == 0 && !x.lds {
		x.lds = true
		x.ask(envoy.ListenerType, nil)
	}
	if !x.ready && x.clusters && x.listeners && x.endpoints.missing == 0 && x.routes.missing == 0 && x.hosts.missing == 0 {
		x.ready = true
		if x.all.configured.Add(1) == int64(x.all.n) {
			close(x.all.all)
		}
	}
	return nil
}

// follow asks for what the resources of r refer to. Names that are not needed any more are kept: nothing measured here removes any.
func (x *proxy) follow(r response, url string, w *wanted) error {
	var names []string
	for _, res := range r.resources {
		ref, err := x.all.refs.of(r.url, res)
		if err != nil {
			return err
		}
		names = append(names, ref.names...)
	}
	if fresh := w.add(names); len(fresh) > 0 {
		slices.Sort(fresh)
		x.ask(url, fresh)
	}
	return nil
}

func (x *proxy) answer(r response, w *wanted) {
	for _, res := range r.resources {
		w.seen(res.name)
	}
	for _, name := range r.removed { // that there is none is an answer, too
		w.seen(name)
	}
}
