package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/peer"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/meshctl/meshctl/internal/identity"
)

// judge is an API server that reviews tokens when it is told to; it accepts none.
type judge struct {
	*httptest.Server
	asked  chan string // the token of each review that has begun
	answer chan struct{}

	mu        sync.Mutex
	now, most int
}

func newJudge(t *testing.T) (*judge, kubernetes.Interface) {
	t.Helper()
	j := &judge{asked: make(chan string, 1000), answer: make(chan struct{})}
	j.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.mu.Lock()
		j.now++
		j.most = max(j.most, j.now)
		j.mu.Unlock()
		over := sync.OnceFunc(func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.now--
		})
		defer over()
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		j.asked <- review.Spec.Token
		select {
		case <-j.answer:
		case <-r.Context().Done():
		}
		over() // before the answer, which lets the next one begin
		review.Status = authenticationv1.TokenReviewStatus{Error: "forged"}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(j.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: j.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return j, client
}

// forged is a token of the shape that Pilot expects, with a signature of nobody's.
func forged(audience any, expires time.Time, signature string) string {
	payload, err := json.Marshal(map[string]any{"aud": audience, "exp": expires.Unix()})
	if err != nil {
		panic(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + "." + signature
}

func from(ctx context.Context, address string) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 1}})
}

func TestWhatCannotBeATokenForPilotCostsTheAPIServerNothing(t *testing.T) {
	j, client := newJudge(t)
	close(j.answer)
	v := identity.NewReviews(client, time.Now)
	later := time.Now().Add(time.Hour)
	for name, token := range map[string]string{
		"one word":                    "garbage",
		"no base64":                   "a.***.c",
		"no JSON":                     "a." + base64.RawURLEncoding.EncodeToString([]byte("{")) + ".c",
		"an audience of a wrong kind": forged(7, later, "x"),
		"another audience":            forged([]string{"vault"}, later, "x"),
		"another audience alone":      forged("vault", later, "x"),
		"no audience":                 forged(nil, later, "x"),
		"expired":                     forged(identity.Audience, time.Now().Add(-time.Hour), "x"),
	} {
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, identity.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(j.asked); n != 0 {
		t.Errorf("%d reviews", n)
	}
	for _, audience := range []any{identity.Audience, []string{"vault", identity.Audience}} {
		if _, err := v.Verify(t.Context(), forged(audience, later, "x")); !errors.Is(err, identity.ErrInvalidToken) {
			t.Error(err)
		}
	}
	if n := len(j.asked); n != 2 {
		t.Errorf("%d reviews of what may be tokens, want 2", n)
	}
}

func TestACallerThatFloodsPilotWithTokensLeavesTheOthersTheirTurn(t *testing.T) {
	j, client := newJudge(t)
	v := identity.NewReviews(client, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	verify := func(address, signature string) {
		wg.Go(func() {
			_, _ = v.Verify(from(ctx, address), forged(identity.Audience, time.Now().Add(time.Hour), signature))
		})
	}
	next := func() string {
		select {
		case token := <-j.asked:
			return token
		case <-time.After(5 * time.Second):
			t.Fatal("no review began")
			return ""
		}
	}
	for i := range 100 {
		verify("10.0.0.9", fmt.Sprint("flood", i))
	}
	for range 4 {
		next()
	}
	verify("10.0.0.1", "other")
	if token := next(); !strings.HasSuffix(token, ".other") {
		t.Errorf("the flood had the turn: %s", token)
	}
	for i := range 100 {
		verify(fmt.Sprint("10.0.1.", i), fmt.Sprint("many", i))
	}
	for range 11 {
		next()
	}
	cancel()
	wg.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.most > 16 {
		t.Errorf("%d reviews at the same time", j.most)
	}
}
