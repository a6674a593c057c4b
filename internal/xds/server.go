// Package xds turns resources into snapshots, versions by content hash, streams, and records of what each proxy acknowledged or rejected.
//
// In: a Source that says what each proxy may have, published whole after each change, and proxies' streams (ADS, incremental or
// state-of-the-world). Out: to each proxy the resources that differ from what it holds, in an order that never breaks traffic; to the
// program, the state of every proxy, its rejections and the objects they came from.
package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/resource"
)

// Source says what each proxy may be sent. It must be safe for concurrent use, answer the same for the same proxy, and share sets between
// proxies and with the source published before wherever they are equal.
type Source interface {
	Snapshot(model.Proxy) *resource.Snapshot
}

// Config of a Server.
type Config struct {
	// Pilot names this instance in proxystatus.
	Pilot string
	// Rejected is called when a proxy refused a resource. It must not block.
	Rejected func(Rejection)
	// Progress is called when what Progress and Rejections answer may have changed. It must not block.
	Progress func()
	// StepTimeout bounds the wait for an acknowledgement before a rollout goes on without it; 5 s when zero.
	StepTimeout time.Duration
	Log         *slog.Logger
}

// Admit decides which proxy a stream serves, from the stream's context (who calls) and the id of the node it claims to be. Its error goes to
// the caller as it is. Whether the proxy takes virtual hosts on their own is not its business: that is the stream's, which the node's metadata tells.
type Admit func(ctx context.Context, nodeID string) (model.Proxy, error)

// Rejection is a proxy's refusal of a resource.
type Rejection struct {
	Proxy model.Proxy
	// Type is the short name of the resource type.
	Type string
	// Resource is empty when the proxy did not say which, and nothing showed it.
	Resource string
	Version  string
	// Refs are the objects the resource was made from.
	Refs []model.Ref
	// Text is the proxy's own.
	Text string
	At   time.Time
}

// Server serves ADS.
type Server struct {
	cfg Config

	current atomic.Pointer[publication]
	nonce   atomic.Uint64
	stats   counters

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// publication is a source with its number.
type publication struct {
	source     Source
	generation uint64
}

type counters struct {
	responses, resources, bytes [kinds]atomic.Uint64
	rejections                  [kinds]atomic.Uint64
}

// New makes a server without a source: proxies that connect wait for the first Publish.
func New(cfg Config) *Server {
	cfg.StepTimeout = cmp.Or(cfg.StepTimeout, 5*time.Second)
	if cfg.Rejected == nil {
		cfg.Rejected = func(Rejection) {}
	}
	if cfg.Progress == nil {
		cfg.Progress = func() {}
	}
	return &Server{cfg: cfg, streams: map[*stream]struct{}{}}
}

// Publish makes source the truth under a number higher than any before, and wakes every stream.
func (s *Server) Publish(source Source, generation uint64) {
	s.current.Store(&publication{source, generation})
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		st.poke()
	}
}

// Options are the gRPC server options that streams need: the codec, limits, keepalive, and a connection age after which a proxy comes back
// with a fresh token. Callers add credentials and interceptors.
func Options() ([]grpc.ServerOption, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(c),
		grpc.MaxConcurrentStreams(1024),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(32 << 10),
		grpc.ConnectionTimeout(15 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: 10 * time.Second,
		}),
	}, nil
}

// maxRequest is room for a node's extensions and the names of a very large mesh.
const maxRequest = 16 << 20

// maxNames bounds what one stream may subscribe to.
const maxNames = 200_000

// Register adds the service to a gRPC server made with Options. Several may serve the same proxies, each with its own way to admit them.
func (s *Server) Register(g *grpc.Server, admit Admit) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, service{s, admit})
}

type service struct {
	s     *Server
	admit Admit
}

func (v service) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return v.s.serve(g, v.admit, true, func() (*request, error) {
		m, err := g.Recv()
		if err != nil {
			return nil, err
		}
		return fromDelta(m), nil
	})
}

func (v service) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return v.s.serve(g, v.admit, false, func() (*request, error) {
		m, err := g.Recv()
		if err != nil {
			return nil, err
		}
		return fromSotw(m), nil
	})
}

// serve runs a stream: one goroutine reads requests, one owns all state and writes, and this one ends it.
func (s *Server) serve(g grpc.ServerStream, admit Admit, delta bool, recv func() (*request, error)) (err error) {
	defer s.survive(&err)
	ctx := g.Context()
	requests := make(chan *request, 8)
	ended := make(chan error, 1)
	go func() {
		for {
			r, err := recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()

	var first *request
	select {
	case first = <-requests:
	case err := <-ended:
		return receiveError(err)
	case <-ctx.Done():
		return ctx.Err()
	}
	if first.node == nil {
		return status.Error(codes.InvalidArgument, "the first request of a stream must carry a node")
	}
	proxy, err := admit(ctx, first.node.GetId())
	if err != nil {
		return err
	}
	proxy.VirtualHosts = delta && first.node.GetMetadata().GetFields()[resource.VirtualHosts].GetBoolValue()
	st := newStream(s, g, proxy, first.node, delta)
	s.mu.Lock()
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	s.cfg.Log.Info("proxy connected", "proxy", st.name(), "role", string(proxy.Type), "envoy", st.version, "delta", delta)
	defer func() {
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
		s.cfg.Progress()
		s.cfg.Log.Info("proxy disconnected", "proxy", st.name(), "role", string(proxy.Type))
	}()

	over := make(chan error, 1)
	go func() { over <- st.run(first, requests, ended) }()
	select {
	case err := <-over:
		return err
	case err := <-st.cut:
		// What the other goroutine is writing now fails when this one returns.
		s.cfg.Log.Warn("ending a proxy's stream", "proxy", st.name(), "reason", err.Error())
		return err
	}
}

// Keep ends the streams that keep says no to, given the stream's context and its proxy: of workloads that are gone.
func (s *Server) Keep(keep func(context.Context, model.Proxy) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		if !keep(st.grpc.Context(), st.proxy) {
			st.end(status.Error(codes.PermissionDenied, "the workload is gone"))
		}
	}
}

// survive makes a panic the end of one stream: whatever is wrong with one proxy's configuration must not take the others' away.
func (s *Server) survive(err *error) {
	if r := recover(); r != nil {
		s.cfg.Log.Error("serving a stream panicked", "panic", r, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

func receiveError(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Proxies is the state of every connected proxy, by namespace and name.
func (s *Server) Proxies() []proxystatus.Proxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]proxystatus.Proxy, 0, len(s.streams))
	newest := s.current.Load()
	for st := range s.streams {
		p := st.report()
		p.Behind = newest != nil && st.done.Load() < newest.generation
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b proxystatus.Proxy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), a.Connected.Compare(b.Connected))
	})
	return out
}

// Progress counts the connected proxies and those that have not yet answered everything of the generation.
func (s *Server) Progress(generation uint64) (connected, behind int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		connected++
		if st.done.Load() < generation {
			behind++
		}
	}
	return connected, behind
}

// Rejections are those in force: not superseded by an acknowledgement of the same resource, of proxies still connected.
func (s *Server) Rejections() []Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Rejection
	for st := range s.streams {
		out = append(out, st.rejections()...)
	}
	slices.SortFunc(out, func(a, b Rejection) int {
		return cmp.Or(
			cmp.Compare(a.Proxy.Workload.Namespace, b.Proxy.Workload.Namespace), cmp.Compare(a.Proxy.Workload.Name, b.Proxy.Workload.Name),
			cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource))
	})
	return out
}

// Stats are totals by short type name since the start.
type Stats struct {
	Connected                               int
	Responses, Resources, Bytes, Rejections map[string]uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	out := Stats{Responses: map[string]uint64{}, Resources: map[string]uint64{}, Bytes: map[string]uint64{}, Rejections: map[string]uint64{}}
	for k := range kind(kinds) {
		out.Responses[k.String()] = s.stats.responses[k].Load()
		out.Resources[k.String()] = s.stats.resources[k].Load()
		out.Bytes[k.String()] = s.stats.bytes[k].Load()
		out.Rejections[k.String()] = s.stats.rejections[k].Load()
	}
	s.mu.Lock()
	out.Connected = len(s.streams)
	s.mu.Unlock()
	return out
}

func (s *Server) newNonce() string { return fmt.Sprintf("%x", s.nonce.Add(1)) }
