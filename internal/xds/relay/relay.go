// Package relay carries configuration from Pilot to the Envoy of one pod, and keeps the last one for the time Pilot is away.
//
// In: Envoy's delta ADS stream on a Unix socket, and Pilot's address, root certificate and the workload's token. Out: the same stream towards
// Pilot, over TLS. Messages pass through as they are. What Envoy accepted is recorded, in memory and in a file. When Pilot goes away, Envoy's
// stream stays; when Envoy or the agent starts while Pilot is away, the record is served. When Pilot comes back it is told what Envoy holds, and
// sends what differs: traffic is not disturbed.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// The types whose acceptance makes a proxy useful, and the one that is asked for by the name of something else.
const (
	TypeCluster     = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeListener    = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeVirtualHost = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
)

// maxMessage is room for the configuration of a very large mesh.
const maxMessage = 256 << 20

// Config of a Relay.
type Config struct {
	// Socket is where Envoy connects.
	Socket string
	// Address of Pilot, host:port; ServerName is what its certificate must be for.
	Address    string
	ServerName string
	// RootFile holds the certificates that may sign Pilot's, TokenFile the token that proves the workload. Both are read at every connection.
	RootFile  string
	TokenFile string
	// CacheFile keeps the record over restarts; empty for none.
	CacheFile string
	// Grace is how long a silent Pilot is waited for before the record is served; a second when zero.
	Grace time.Duration
	// FirstRetry and LastRetry bound the pauses between attempts to reach Pilot; 1 s and 10 s when zero.
	FirstRetry, LastRetry time.Duration
	Log                   *slog.Logger
}

// Relay is one pod's.
type Relay struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	cfg    Config
	record *record

	mu      sync.Mutex
	current *session
	status  Status
	changed chan struct{}
}

// Status is what the relay knows of both sides.
type Status struct {
	// Envoy and Pilot say whether each is connected; Pilot counts once it has answered.
	Envoy, Pilot bool
	// Accepted has the types, by URL, of which the running Envoy accepted a configuration, or brought one along.
	Accepted map[string]bool
	// Resources counts the recorded resources by type URL.
	Resources map[string]int
	// FromRecord counts the answers served from the record.
	FromRecord uint64
	Acks       uint64
	Nacks      uint64
	// Attempts counts connections to Pilot that were tried, Failures those that came to nothing.
	Attempts, Failures uint64
	// LastError is why Pilot is not connected.
	LastError string
}

// Configured says whether the running Envoy has clusters and listeners.
func (s Status) Configured() bool {
	return s.Envoy && s.Accepted[TypeCluster] && s.Accepted[TypeListener]
}

// New prepares a relay and reads the record of earlier times. A record that cannot be read is not used.
func New(cfg Config) *Relay {
	if cfg.Grace == 0 {
		cfg.Grace = time.Second
	}
	if cfg.FirstRetry == 0 {
		cfg.FirstRetry = time.Second
	}
	if cfg.LastRetry == 0 {
		cfg.LastRetry = 10 * time.Second
	}
	r := &Relay{cfg: cfg, changed: make(chan struct{})}
	r.record = newRecord(cfg.CacheFile, cfg.Log)
	return r
}

// Run serves Envoy until ctx is done. The socket is there when ready is called.
func (r *Relay) Run(ctx context.Context, ready func()) error {
	if err := os.Remove(r.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := net.Listen("unix", r.cfg.Socket)
	if err != nil {
		return fmt.Errorf("listening for Envoy: %w", err)
	}
	if err := os.Chmod(r.cfg.Socket, 0o600); err != nil {
		return fmt.Errorf("listening for Envoy: %w", errors.Join(err, listener.Close()))
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, r)

	var wg sync.WaitGroup
	wg.Go(func() { r.record.keep(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		server.Stop()
	})
	ready()
	// Serve returns nil when it was stopped, which only the end of ctx does.
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving Envoy: %w", err)
	}
	wg.Wait()
	return nil
}

// Status of this moment, and a channel that is closed when it changes.
func (r *Relay) Status() (Status, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Accepted = make(map[string]bool, len(r.status.Accepted))
	for k, v := range r.status.Accepted {
		s.Accepted[k] = v
	}
	s.Resources = r.record.counts()
	return s, r.changed
}

// update changes the status on behalf of s; a session that was displaced has no say any more.
func (r *Relay) update(s *session, change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != s {
		return
	}
	change(&r.status)
	close(r.changed)
	r.changed = make(chan struct{})
}

// DeltaAggregatedResources is Envoy's stream. A newer one displaces it: there is one Envoy.
func (r *Relay) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := &session{relay: r, envoy: stream, cancel: cancel, types: map[string]*subscription{}, inflight: map[string]*response{}}

	r.mu.Lock()
	if r.current != nil {
		r.current.cancel()
	}
	r.current = s
	r.mu.Unlock()
	r.update(s, func(st *Status) { st.Envoy, st.Pilot, st.Accepted = true, false, map[string]bool{} })
	defer r.update(s, func(st *Status) { st.Envoy, st.Pilot, st.Accepted = false, false, nil })
	return s.run(ctx)
}

// plain is node without the list of everything compiled into Envoy, which is long and of no use to Pilot.
func plain(node *corev3.Node) *corev3.Node {
	if node != nil {
		node.Extensions = nil
	}
	return node
}
