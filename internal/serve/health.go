package serve

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check says what a program still waits for; empty when it is ready.
type Check func() []string

// Health answers /healthz (the process lives), /ready (all checks are empty; otherwise 503 with what is awaited) and /metrics.
func Health(metrics prometheus.Gatherer, checks ...Check) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		var waiting []string
		for _, c := range checks {
			waiting = append(waiting, c()...)
		}
		if len(waiting) > 0 {
			http.Error(w, "waiting for:\n"+strings.Join(waiting, "\n"), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return mux
}

// LimitMemory tells the runtime of the container's memory limit, less a tenth for what the runtime does not count, unless GOMEMLIMIT already
// does. It returns the limit set, 0 for none.
func LimitMemory() int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit <= 0 || limit > math.MaxInt64/2 {
			continue // "max", or the number that means it
		}
		limit -= limit / 10
		debug.SetMemoryLimit(limit)
		return limit
	}
	return 0
}
