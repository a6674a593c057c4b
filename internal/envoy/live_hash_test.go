package envoy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

const byUser = "consistentHash: {httpHeaderName: x-user}"

// keeps says that each of n users meets the same instance each time, and that together they meet as many as given.
func (p *proxy) keeps(t *testing.T, listener string, users, instances int, headers ...string) map[string]string {
	t.Helper()
	home, all := map[string]string{}, map[string]bool{}
	for range 4 {
		for u := range users {
			user := fmt.Sprint("user-", u)
			name, _ := p.who(t, listener, get, "reviews", "/", append([]string{"X-User", user}, headers...)...)
			if before, ok := home[user]; ok && before != name {
				t.Fatalf("%s met %s after %s", user, name, before)
			}
			home[user], all[name] = name, true
		}
	}
	if len(all) != instances {
		t.Errorf("%d users met %v, want %d instances", users, all, instances)
	}
	return home
}

func threeOfReviews(t *testing.T) string {
	return reviews + version("a", "v1", serve(t, "a", nil)) + version("b", "v2", serve(t, "b", nil)) + version("c", "v2", serve(t, "c", nil))
}

func TestLiveConsistentHash(t *testing.T) {
	const users = 60
	balanced := func(how string) string { return policy("destination: {name: reviews}, loadBalancing: {" + how + "}") }
	t.Run("a header", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced(byUser))
		home := p.keeps(t, http9080, users, 3)
		other := startSidecar(t, threeOfReviews(t)+balanced(byUser))
		if met := map[string]bool{}; true {
			for range users {
				name, _ := other.who(t, http9080, get, "reviews", "/")
				met[name] = true
			}
			if len(met) != 3 {
				t.Errorf("requests without the header met %v", met)
			}
		}
		count := map[string]int{}
		for _, name := range home {
			count[name]++
		}
		// A ring is uneven, and users are few.
		for name, n := range count {
			if n < users/10 {
				t.Errorf("%s has %d of %d users", name, n, users)
			}
		}
	})
	t.Run("two proxies agree, and a larger ring parts users more evenly", func(t *testing.T) {
		t.Parallel()
		text := threeOfReviews(t) + balanced("consistentHash: {httpHeaderName: x-user, minimumRingSize: 65536}")
		one, two := startSidecar(t, text), startSidecar(t, text)
		if a, b := one.keeps(t, http9080, users, 3), two.keeps(t, http9080, users, 3); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("one proxy says %v, the other %v", a, b)
		}
		_, stats, err := one.Admin(t.Context(), "/stats?filter=ring_hash_lb.size")
		if err != nil || !strings.Contains(stats, "outbound|9080||reviews.default.svc.cluster.local.ring_hash_lb.size: 6553") {
			t.Errorf("the ring: %s %v", stats, err)
		}
	})
	t.Run("the path", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced(`consistentHash: {httpHeaderName: ":path"}`))
		met := map[string]bool{}
		for i := range users {
			path := fmt.Sprint("/", i)
			name, _ := p.who(t, http9080, get, "reviews", path)
			if again, _ := p.who(t, http9080, get, "reviews", path); again != name {
				t.Fatalf("%s met %s, then %s", path, name, again)
			}
			met[name] = true
		}
		if len(met) != 3 {
			t.Errorf("met %v", met)
		}
	})
	t.Run("a cookie that the caller is given", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced("consistentHash: {httpCookie: {name: JSESSION, path: /shop, ttl: 90500ms}}"))
		met := map[string]bool{}
		for range users / 2 {
			// What is given is the connection's, so that requests that race on it agree.
			_, body, header := p.ask(t, http9080, get, "reviews", "/", "Connection", "close")
			cookie, err := http.ParseSetCookie(header.Get("Set-Cookie"))
			if err != nil || cookie.Name != "JSESSION" || cookie.Path != "/shop" || cookie.MaxAge != 91 {
				t.Fatalf("was given %q", header.Get("Set-Cookie"))
			}
			var first echo
			if err := json.Unmarshal([]byte(body), &first); err != nil {
				t.Fatal(err)
			}
			met[first.Instance] = true
			for range 3 {
				if again, _ := p.who(t, http9080, get, "reviews", "/", "Cookie", "a=b; JSESSION="+cookie.Value); again != first.Instance {
					t.Fatalf("met %s with the cookie that %s gave", again, first.Instance)
				}
			}
		}
		if len(met) != 3 {
			t.Errorf("met %v", met)
		}
	})
	t.Run("a cookie for the session, and one that is the application's own affair", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced("consistentHash: {httpCookie: {name: s, ttl: 0s}}"))
		_, _, header := p.ask(t, http9080, get, "reviews", "/")
		if cookie, err := http.ParseSetCookie(header.Get("Set-Cookie")); err != nil || cookie.MaxAge != 0 || !cookie.Expires.IsZero() {
			t.Errorf("was given %q", header.Get("Set-Cookie"))
		}
		p = startSidecar(t, threeOfReviews(t)+balanced("consistentHash: {httpCookie: {name: s}}"))
		if _, _, header := p.ask(t, http9080, get, "reviews", "/"); header.Get("Set-Cookie") != "" {
			t.Errorf("was given %q", header.Get("Set-Cookie"))
		}
		for u := range users {
			cookie := fmt.Sprint("s=", u)
			name, _ := p.who(t, http9080, get, "reviews", "/", "Cookie", cookie)
			if again, _ := p.who(t, http9080, get, "reviews", "/", "Cookie", cookie); again != name {
				t.Fatalf("%s met %s, then %s", cookie, name, again)
			}
		}
	})
	t.Run("the caller's address, also of connections", func(t *testing.T) {
		t.Parallel()
		text := `
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.96.0.2, ports: [{name: http, port: 9080}, {name: tcp, port: 7000}], selector: {app: reviews}}
`
		for _, name := range []string{"a", "b", "c"} {
			text += version(name, "v1", serve(t, name, nil)) + pods("reviews", "tcp", "v1", "tcp-"+name, serveName(t, name), ready)
		}
		p := startSidecar(t, text+balanced("consistentHash: {useSourceIp: true}"))
		metHTTP, metTCP := map[string]bool{}, map[string]bool{}
		for i := range 20 {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
			requests, connections := map[string]bool{}, map[string]bool{}
			for range 4 {
				requests[whoFrom(t, from, p.ports[http9080])] = true
				connections[nameFrom(t, from, p.ports["10.96.0.2_7000"])] = true
			}
			if len(requests) != 1 || len(connections) != 1 {
				t.Fatalf("%v met %v, by connection %v", from.LocalAddr, requests, connections)
			}
			for name := range requests {
				metHTTP[name] = true
			}
			for name := range connections {
				metTCP[name] = true
			}
		}
		if len(metHTTP) != 3 || len(metTCP) != 3 {
			t.Errorf("all together met %v, by connection %v", metHTTP, metTCP)
		}
	})
	t.Run("hardly anybody moves but those whose instance is left out, and all come back", func(t *testing.T) {
		t.Parallel()
		var broken atomic.Bool
		c := serve(t, "c", func(w http.ResponseWriter, _ *http.Request) bool {
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
			return broken.Load()
		})
		p := startSidecar(t, reviews+version("a", "v1", serve(t, "a", nil))+version("b", "v1", serve(t, "b", nil))+version("c", "v1", c)+
			policy("destination: {name: reviews}, loadBalancing: {"+byUser+"}, circuitBreaker: {simpleCb: {httpConsecutiveErrors: 1, sleepWindow: 3s, httpDetectionInterval: 10ms}}"))
		before := p.keeps(t, http9080, users, 3)
		broken.Store(true)
		for user, name := range before {
			if name == "c" {
				eventually(t, "the instance to be left out", func() bool {
					name, _ := p.who(t, http9080, get, "reviews", "/", "X-User", user)
					return name == "a" || name == "b"
				})
				break
			}
		}
		broken.Store(false)
		moved, others := "", 0
		for user, was := range before {
			is, _ := p.who(t, http9080, get, "reviews", "/", "X-User", user)
			switch {
			case is == was:
			case was == "c":
				moved = user
			default:
				others++
			}
		}
		// A ring for two has more places for each than one for three, so a few change who need not.
		if moved == "" || others > users/4 {
			t.Fatalf("%q moved, and %d whose instance is well", moved, others)
		}
		eventually(t, "the instance to come back", func() bool {
			name, _ := p.who(t, http9080, get, "reviews", "/", "X-User", moved)
			return name == "c"
		})
		if after := p.keeps(t, http9080, users, 3); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("users were with %v and are with %v", before, after)
		}
	})
	t.Run("an instance that cannot be connected to costs nobody a request", func(t *testing.T) {
		t.Parallel()
		gone := &instance{port: freeport.For(t)}
		p := startSidecar(t, reviews+version("a", "v1", serve(t, "a", nil))+version("b", "v1", serve(t, "b", nil))+version("gone", "v1", gone)+balanced(byUser))
		for u := range 3 * users {
			if name, _ := p.who(t, http9080, http.MethodPost, "reviews", "/", "X-User", fmt.Sprint("user-", u)); name != "a" && name != "b" {
				t.Fatalf("user-%d met %s", u, name)
			}
		}
	})
	t.Run("with weights each version keeps its users", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced(byUser)+`
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: canary}
spec:
  destination: {name: reviews}
  route: [{labels: {version: v1}, weight: 20}, {labels: {version: v2}, weight: 80}]
`)
		v1, v2 := 0, map[string]map[string]bool{}
		for range 20 {
			for u := range 20 {
				user := fmt.Sprint("user-", u)
				name, _ := p.who(t, http9080, get, "reviews", "/", "X-User", user)
				if name == "a" {
					v1++
					continue
				}
				if v2[user] == nil {
					v2[user] = map[string]bool{}
				}
				v2[user][name] = true
			}
		}
		both := map[string]bool{}
		for user, met := range v2 {
			if len(met) != 1 {
				t.Errorf("%s met %v of v2", user, met)
			}
			for name := range met {
				both[name] = true
			}
		}
		// Five standard deviations of a binomial with 400 draws of 20 % are 40.
		if len(both) != 2 || v1 < 80-40 || v1 > 80+40 {
			t.Errorf("v1 got %d of 400 requests, v2's were met: %v", v1, both)
		}
	})
	t.Run("a policy for one version does not part users from their instance", func(t *testing.T) {
		t.Parallel()
		p := startSidecar(t, threeOfReviews(t)+balanced(byUser)+strings.ReplaceAll(
			policy("destination: {name: reviews, labels: {version: v1}}, circuitBreaker: {simpleCb: {maxConnections: 1}}"), "name: policy", "name: for-v1"))
		p.keeps(t, http9080, users, 3)
	})
	t.Run("at the gateway", func(t *testing.T) {
		t.Parallel()
		mesh := meshOf(t, threeOfReviews(t)+balanced(byUser)+caller+`
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: gate, annotations: {kubernetes.io/ingress.class: istio}}
spec: {defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
`)
		p := start(t, mesh, model.Proxy{Type: model.Ingress, Workload: model.WorkloadKey{Namespace: "default", Name: "caller"}})
		p.keeps(t, "0.0.0.0_8080", users, 3)
	})
}

// serveName answers every connection with its name.
func serveName(t *testing.T, name string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, name)
			conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func nameFrom(t *testing.T, from net.Dialer, port int) string {
	t.Helper()
	conn, err := from.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func whoFrom(t *testing.T, from net.Dialer, port int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, get, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "reviews"
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e echo
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	return e.Instance
}
