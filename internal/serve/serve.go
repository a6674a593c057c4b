// Package serve holds what every server needs: listeners, TLS, health, metrics, ordered start and stop.
//
// In: components and checks. Out: a process that starts them in order, answers for its health, and stops them in reverse order when it is told to
// or when one of them fails.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc"
)

// Component is one running part. Run returns when ctx ends, or earlier with the reason.
type Component struct {
	Name string
	Run  func(ctx context.Context) error
}

// Run starts the components in order and waits. When ctx ends or a component does, they are stopped in reverse order, each given patience.
// It returns the error of the first component that failed.
func Run(ctx context.Context, log *slog.Logger, patience time.Duration, components ...Component) error {
	type running struct {
		Component
		cancel context.CancelFunc
		done   chan struct{}
		err    error
	}
	ended := make(chan *running, len(components))
	var started []*running
	for _, c := range components {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{Component: c, cancel: cancel, done: make(chan struct{})}
		started = append(started, r)
		go func() {
			r.err = c.Run(own)
			close(r.done)
			ended <- r
		}()
	}
	var first error
	select {
	case <-ctx.Done():
		log.Info("stopping", "cause", context.Cause(ctx))
	case r := <-ended:
		first = r.err
		if first == nil {
			first = errors.New("it ended by itself")
		}
		first = fmt.Errorf("running %s: %w", r.Name, first)
		log.Error("stopping", "cause", first)
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		r.cancel()
		select {
		case <-r.done:
			if r.err != nil && first == nil {
				first = fmt.Errorf("stopping %s: %w", r.Name, r.err)
			}
		case <-time.After(patience):
			log.Warn("a component did not stop in time", "component", r.Name)
		}
	}
	return first
}

// drain is how long open requests and streams get to end by themselves.
const drain = 2 * time.Second

// HTTP serves handler on l, over TLS when config is not nil.
func HTTP(name string, l net.Listener, handler http.Handler, config *tls.Config, log *slog.Logger) Component {
	return Component{Name: name, Run: func(ctx context.Context) error {
		s := &http.Server{
			Handler: handler, TLSConfig: config, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 64 << 10,
		}
		failed := make(chan error, 1)
		go func() {
			if config != nil {
				failed <- s.ServeTLS(l, "", "")
			} else {
				failed <- s.Serve(l)
			}
		}()
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		if s.Shutdown(end) != nil {
			return s.Close()
		}
		return nil
	}}
}

// GRPC serves s on l. At the end streams are told to go elsewhere, and are cut soon after.
func GRPC(name string, l net.Listener, s *grpc.Server) Component {
	return Component{Name: name, Run: func(ctx context.Context) error {
		failed := make(chan error, 1)
		go func() { failed <- s.Serve(l) }()
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		}
		graceful := make(chan struct{})
		go func() {
			s.GracefulStop()
			close(graceful)
		}()
		select {
		case <-graceful:
		case <-time.After(drain / 2):
			s.Stop()
			<-graceful
		}
		return nil
	}}
}

// Listen opens a TCP listener.
func Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return l, nil
}

// RequireLoopback refuses an address that others than this machine could reach.
func RequireLoopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("reading address %q: %w", address, err)
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() {
		return fmt.Errorf("address %q is not a loopback address such as 127.0.0.1:15010", address)
	}
	return nil
}
