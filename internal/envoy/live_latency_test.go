package envoy_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// press keeps callers at it for d, and counts their requests and the failed ones.
func (p *proxy) press(t *testing.T, callers int, d time.Duration) (total, failed int64) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	var all, bad atomic.Int64
	var wg sync.WaitGroup
	until := time.Now().Add(d)
	for range callers {
		wg.Go(func() {
			for time.Now().Before(until) {
				all.Add(1)
				req, err := http.NewRequestWithContext(t.Context(), get, fmt.Sprintf("http://127.0.0.1:%d/", p.ports[http9080]), nil)
				if err != nil {
					bad.Add(1)
					return
				}
				req.Host = "reviews"
				resp, err := client.Do(req)
				if err != nil {
					bad.Add(1)
					continue
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return all.Load(), bad.Load()
}

// Of three instances one answers 20 times slower than the others: with several requests at a time it gets less than a twentieth of them, at
// once, and its share when it is well again. With one request at a time nobody has any under way, and the scheme cannot know.
func TestLiveLatencyAwareBalancing(t *testing.T) {
	const callers, fast = 8, 10 * time.Millisecond
	var slow atomic.Bool
	takes := func(special bool) func(http.ResponseWriter, *http.Request) bool {
		return func(http.ResponseWriter, *http.Request) bool {
			d := fast
			if special && slow.Load() {
				d *= 20
			}
			time.Sleep(d) //nolint:forbidigo // the application takes its time
			return false
		}
	}
	a, b, c := serve(t, "a", takes(true)), serve(t, "b", takes(false)), serve(t, "c", takes(false))
	p := startSidecar(t, reviews+version("a", "v1", a)+version("b", "v1", b)+version("c", "v1", c)+policy("destination: {name: reviews}, loadBalancing: {name: LATENCY_AWARE}"))
	for _, phase := range []struct {
		name        string
		slow        bool
		least, most float64
	}{
		{"all are equal", false, 0.25, 0.42},
		{"one is slow", true, 0.0001, 0.05},
		{"it is well again", false, 0.25, 0.42},
	} {
		slow.Store(phase.slow)
		before := a.hits.Load()
		total, failed := p.press(t, callers, 2*time.Second)
		share := float64(a.hits.Load()-before) / float64(total)
		t.Logf("%s: %.1f %% of %d requests", phase.name, 100*share, total)
		if failed > 0 || share < phase.least || share > phase.most {
			t.Errorf("%s: it got %.1f %% of %d requests, want %.0f to %.0f; %d failed", phase.name, 100*share, total, 100*phase.least, 100*phase.most, failed)
		}
	}
}

func TestLiveLatencyAwareBalancingAvoidsWhatHangs(t *testing.T) {
	handler, release := held(t)
	hanging := serve(t, "hanging", handler)
	p := startSidecar(t, reviews+version("hanging", "v1", hanging)+version("a", "v1", serve(t, "a", nil))+version("b", "v1", serve(t, "b", nil))+
		policy("destination: {name: reviews}, loadBalancing: {name: LATENCY_AWARE}"))
	var first <-chan int
	for hanging.hits.Load() == 0 {
		first = p.flood(t, 1)
		select {
		case <-first:
		case <-time.After(100 * time.Millisecond):
		}
	}
	for range 300 {
		if name, _ := p.who(t, http9080, get, "reviews", "/"); name != "a" && name != "b" {
			t.Fatalf("met %s", name)
		}
	}
	if n := hanging.hits.Load(); n != 1 {
		t.Errorf("what hangs got %d requests", n)
	}
	release()
	if met := take(t, first, 1); met[200] != 1 {
		t.Errorf("of the one that was held: %v", met)
	}
}
