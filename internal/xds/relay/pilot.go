package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// upstream is one stream to Pilot.
type upstream struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	// end gives the stream up; another follows.
	end        context.CancelFunc
	introduced bool
}

// event is what happens on the way to Pilot: a stream is up, a response came, or the stream or an attempt is over.
type event struct {
	up       *upstream
	from     *upstream
	response *discoveryv3.DeltaDiscoveryResponse
	err      error
}

// connect keeps a stream to Pilot up until ctx is done.
func (r *Relay) connect(ctx context.Context, s *session, events chan<- event) {
	deliver := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	pause, logged := r.cfg.FirstRetry, ""
	for ctx.Err() == nil {
		r.update(s, func(st *Status) { st.Attempts++ })
		heard, err := r.stream(ctx, deliver)
		if ctx.Err() != nil {
			return
		}
		text := plainError(err)
		if text != logged {
			r.cfg.Log.Warn("Pilot is away; Envoy keeps what it has", "address", r.cfg.Address, "reason", text)
			logged = text
		}
		if heard {
			pause, logged = r.cfg.FirstRetry, ""
		} else {
			r.update(s, func(st *Status) { st.Failures++ })
		}
		if !deliver(event{err: errors.New(text)}) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(pause*2, r.cfg.LastRetry)
	}
}

// stream opens one stream and delivers what it brings until it breaks; heard says whether Pilot ever answered.
func (r *Relay) stream(ctx context.Context, deliver func(event) bool) (heard bool, err error) {
	conn, err := r.dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, err
	}
	up := &upstream{stream: stream, end: cancel}
	if !deliver(event{up: up}) {
		return false, ctx.Err()
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		if !heard {
			heard = true
			r.cfg.Log.Info("Pilot answers", "address", r.cfg.Address)
		}
		if !deliver(event{from: up, response: m}) {
			return heard, ctx.Err()
		}
	}
}

// dial prepares a connection with the root certificates of this moment, so that a new root counts from the next connection on.
func (r *Relay) dial() (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(r.cfg.RootFile)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the root certificate: %s has none", r.cfg.RootFile)
	}
	conn, err := grpc.NewClient("passthrough:///"+r.cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: r.cfg.ServerName, MinVersion: tls.VersionTLS13})),
		grpc.WithPerRPCCredentials(bearer(r.cfg.TokenFile)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to Pilot: %w", err)
	}
	return conn, nil
}

// bearer is the file with the token that proves the workload. The kubelet renews it, so it is read for every stream.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(b))
	if err != nil {
		return nil, fmt.Errorf("reading the token: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 {
		return nil, fmt.Errorf("reading the token: %s is empty", string(b))
	}
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// plainError is err without gRPC's frame around it.
func plainError(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Code().String() + ": " + s.Message()
	}
	return err.Error()
}
