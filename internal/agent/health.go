package agent

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meshctl/meshctl/internal/version"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// health answers the kubelet and whoever collects metrics.
type health struct {
	admin    admin
	relay    *relay.Relay
	draining atomic.Bool
	restarts atomic.Uint64
}

func (h *health) serve(ctx context.Context, port int) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz/ready", func(w http.ResponseWriter, r *http.Request) {
		if err := h.awaitReady(r); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.HandleFunc("GET /metrics", h.metrics)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ready says why the proxy is not: it is when Envoy is live and has accepted clusters and listeners, and is not about to stop.
func (h *health) ready(ctx context.Context) error {
	if h.draining.Load() {
		return errors.New("the proxy is draining")
	}
	status, _ := h.relay.Status()
	switch {
	case !status.Envoy:
		return errors.New("no connection from Envoy yet")
	case !status.Configured() && status.LastError != "":
		return fmt.Errorf("no configuration yet; Pilot: %s", status.LastError)
	case !status.Configured():
		return errors.New("no configuration yet")
	}
	return h.admin.live(ctx)
}

// longestWait bounds the wait a caller may ask for, below the server's own timeout.
const longestWait = 5 * time.Second

// awaitReady answers at once, or with ?wait=2s as soon as the proxy is ready and then at the latest. A startup probe that waits spares the pod the
// rest of the second until the next probe.
func (h *health) awaitReady(r *http.Request) error {
	wait, err := time.ParseDuration(cmp.Or(r.URL.Query().Get("wait"), "0s"))
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(wait, longestWait))
	defer cancel()
	for {
		err := h.ready(r.Context())
		if err == nil || h.draining.Load() {
			return err
		}
		_, changed := h.relay.Status()
		select {
		case <-ctx.Done():
			return err
		case <-changed:
		case <-time.After(20 * time.Millisecond): // Envoy does not tell when it is live
		}
	}
}

func (h *health) metrics(w http.ResponseWriter, r *http.Request) {
	status, _ := h.relay.Status()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	b := bufio.NewWriter(w)
	defer b.Flush()
	metric := func(name, kind, help string, value any) {
		fmt.Fprintf(b, "# HELP meshagent_%s %s\n# TYPE meshagent_%s %s\nmeshagent_%s %v\n", name, help, name, kind, name, value)
	}
	one := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	fmt.Fprintf(b, "# HELP meshagent_info What runs here.\n# TYPE meshagent_info gauge\nmeshagent_info{version=%q} 1\n", version.Version)
	metric("ready", "gauge", "Whether the proxy is ready.", one(h.ready(r.Context()) == nil))
	metric("draining", "gauge", "Whether the proxy is draining.", one(h.draining.Load()))
	metric("envoy_connected", "gauge", "Whether Envoy is connected to the agent.", one(status.Envoy))
	metric("envoy_restarts_total", "counter", "How often Envoy ended by itself.", h.restarts.Load())
	metric("pilot_connected", "gauge", "Whether Pilot is connected and has answered.", one(status.Pilot))
	metric("pilot_attempts_total", "counter", "Connections to Pilot that were tried.", status.Attempts)
	metric("pilot_failures_total", "counter", "Connections to Pilot that came to nothing.", status.Failures)
	metric("xds_accepted_total", "counter", "Configurations that Envoy accepted.", status.Acks)
	metric("xds_refused_total", "counter", "Configurations that Envoy refused.", status.Nacks)
	metric("xds_from_record_total", "counter", "Configurations that were served from the record while Pilot was away.", status.FromRecord)
	fmt.Fprint(b, "# HELP meshagent_xds_resources Resources that Envoy holds.\n# TYPE meshagent_xds_resources gauge\n")
	for _, url := range slices.Sorted(maps.Keys(status.Resources)) {
		fmt.Fprintf(b, "meshagent_xds_resources{type=%q} %d\n", url[strings.LastIndexByte(url, '.')+1:], status.Resources[url])
	}
}

// admin is Envoy's administration interface.
type admin struct{ port int }

func (a admin) do(ctx context.Context, method, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", a.port, path), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking Envoy: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("asking Envoy: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking Envoy: it says %s", strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

// live says why Envoy is not.
func (a admin) live(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodGet, "/ready")
	return err
}

// busy counts the requests and the TCP connections that are under way.
func (a admin) busy(ctx context.Context) (int, error) {
	text, err := a.do(ctx, http.MethodGet, `/stats?usedonly&filter=%5E(http%5C..*%5C.downstream_rq_active%7Ctcp%5C..*%5C.downstream_cx_active)$`)
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(name, "http.admin.") {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("reading Envoy's statistics: %w", err)
		}
		total += n
	}
	return total, nil
}

// drain lets requests under way finish and tells callers to go elsewhere. It ends when nothing is under way, not before atLeast and not after
// atMost, and says whether it was so.
func drain(ctx context.Context, a admin, atLeast, atMost time.Duration) bool {
	begin := time.Now()
	if _, err := a.do(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit"); err != nil {
		return false // Envoy is not there
	}
	for time.Since(begin) < atMost {
		n, err := a.busy(ctx)
		if err != nil {
			return false
		}
		if n == 0 && time.Since(begin) >= atLeast {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}
