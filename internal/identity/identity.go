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
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	badFor     = 10 * time.Second
	maxVerdict = 20_000
	// maxToken is far beyond any service account token.
	maxToken = 16 << 10
)

// Reviews verifies tokens by asking the API server, and remembers its verdicts for a short while.
type Reviews struct {
	client kubernetes.Interface
	now    func() time.Time

	mu       sync.Mutex
	verdicts map[[sha256.Size]byte]verdict
}

type verdict struct {
	caller Caller
	err    error
	until  time.Time
}

// NewReviews prepares the verification.
func NewReviews(client kubernetes.Interface, now func() time.Time) *Reviews {
	return &Reviews{client: client, now: now, verdicts: map[[sha256.Size]byte]verdict{}}
}

// Verify implements Verifier.
func (r *Reviews) Verify(ctx context.Context, token string) (Caller, error) {
	if token == "" || len(token) > maxToken {
		return Caller{}, fmt.Errorf("%w: empty or oversized", ErrInvalidToken)
	}
	key := sha256.Sum256([]byte(token))
	now := r.now()
	r.mu.Lock()
	v, ok := r.verdicts[key]
	r.mu.Unlock()
	if ok && now.Before(v.until) {
		return v.caller, v.err
	}
	caller, err := r.review(ctx, token)
	if err != nil && !errors.Is(err, ErrInvalidToken) {
		return Caller{}, err // not a verdict
	}
	v = verdict{caller, err, now.Add(goodFor)}
	if err != nil {
		v.until = now.Add(badFor)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verdicts) >= maxVerdict {
		for k, old := range r.verdicts {
			if !now.Before(old.until) {
				delete(r.verdicts, k)
			}
		}
	}
	if len(r.verdicts) < maxVerdict {
		r.verdicts[key] = v
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
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
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
