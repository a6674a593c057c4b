// Package identity establishes who is calling, and later serves certificates over issue.
//
// In: a stream's bearer token, and the name the caller gives itself. Out: the Caller the token proves, and the proxy it may be. Nothing a
// caller says of itself is believed further than what its token allows.
package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
)

// Audience is what a token must have been issued for.
const Audience = "istio-pilot"

// Caller is what a token proves.
type Caller struct {
	Namespace      string
	ServiceAccount string
	// Pod and PodUID are those the token is bound to.
	Pod    string
	PodUID string
}

// ErrInvalidToken is returned for a token that is not accepted, as opposed to one that could not be judged.
var ErrInvalidToken = errors.New("token not accepted")

// Verifier judges bearer tokens.
type Verifier interface {
	Verify(ctx context.Context, token string) (Caller, error)
}

const (
	goodFor = time.Minute
	// badFor keeps a caller that repeats a bad token from loading the API server.
	badFor = 10 * time.Second
	// maxVerdicts of each sort are remembered; those not asked for longest go first.
	maxVerdicts = 20_000
	// maxToken is far beyond any service account token.
	maxToken = 16 << 10
	// reviewTimeout bounds the wait for a turn and for the answer.
	reviewTimeout = 10 * time.Second
)

// Reviews verifies tokens by asking the API server, and remembers its verdicts for a short while.
type Reviews struct {
	client kubernetes.Interface
	now    clock
	turns  *turns
	// good and bad are apart, so that no number of bad tokens displaces a good one.
	good, bad *cache.LRUExpireCache
}

type clock func() time.Time

// Now implements cache.Clock.
func (c clock) Now() time.Time { return c() }

// NewReviews prepares the verification. The client should be used for nothing else: anybody who reaches Pilot makes it busy.
func NewReviews(client kubernetes.Interface, now func() time.Time) *Reviews {
	return &Reviews{
		client: client, now: now, turns: newTurns(),
		good: cache.NewLRUExpireCacheWithClock(maxVerdicts, clock(now)), bad: cache.NewLRUExpireCacheWithClock(maxVerdicts, clock(now)),
	}
}

// Verify implements Verifier.
func (r *Reviews) Verify(ctx context.Context, token string) (Caller, error) {
	if token == "" || len(token) > maxToken {
		return Caller{}, fmt.Errorf("%w: empty or oversized", ErrInvalidToken)
	}
	key := sha256.Sum256([]byte(token))
	if known, ok := r.good.Get(key); ok {
		return known.(Caller), nil
	}
	if known, ok := r.bad.Get(key); ok {
		return Caller{}, known.(error)
	}
	if err := plausible(token, r.now()); err != nil {
		return Caller{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	done, err := r.turns.take(ctx)
	if err != nil {
		return Caller{}, fmt.Errorf("waiting to review a token: %w", err)
	}
	defer done()
	caller, err := r.review(ctx, token)
	switch {
	case err == nil:
		r.good.Add(key, caller, goodFor)
	case errors.Is(err, ErrInvalidToken):
		r.bad.Add(key, err, badFor)
	}
	return caller, err
}

// What the API server says about a service account token bound to a pod.
const (
	userPrefix  = "system:serviceaccount:"
	extraPod    = "authentication.kubernetes.io/pod-name"
	extraPodUID = "authentication.kubernetes.io/pod-uid"
)

func (r *Reviews) review(ctx context.Context, token string) (Caller, error) {
	answer, err := r.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return Caller{}, fmt.Errorf("reviewing a token: %w", err)
	}
	s := answer.Status
	if !s.Authenticated {
		return Caller{}, fmt.Errorf("%w: %s", ErrInvalidToken, cmp.Or(s.Error, "not authenticated"))
	}
	// An API server that knows no audiences answers without any; then the token proves nothing to us.
	if len(s.Audiences) != 1 || s.Audiences[0] != Audience {
		return Caller{}, fmt.Errorf("%w: not issued for audience %s", ErrInvalidToken, Audience)
	}
	namespace, account, ok := strings.Cut(strings.TrimPrefix(s.User.Username, userPrefix), ":")
	if !ok || !strings.HasPrefix(s.User.Username, userPrefix) {
		return Caller{}, fmt.Errorf("%w: %q is not a service account", ErrInvalidToken, s.User.Username)
	}
	c := Caller{Namespace: namespace, ServiceAccount: account, Pod: first(s.User.Extra[extraPod]), PodUID: first(s.User.Extra[extraPodUID])}
	if c.Pod == "" || c.PodUID == "" {
		return Caller{}, fmt.Errorf("%w: not bound to a pod", ErrInvalidToken)
	}
	return c, nil
}

func first(values authenticationv1.ExtraValue) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
