package identity

import (
	"context"
	"net"
	"sync"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/peer"
)

const (
	// maxReviews at the same time, and of one address: a caller that floods Pilot with tokens must not take the others' turns.
	maxReviews      = 16
	maxReviewsOfOne = 4
	unknownCaller   = "unknown"
)

// turns bounds how much is done at the same time, for everybody and for each address.
type turns struct {
	all *semaphore.Weighted

	mu   sync.Mutex
	each map[string]*turnsOfOne
}

type turnsOfOne struct {
	*semaphore.Weighted
	users int // waiting or at it
}

func newTurns() *turns {
	return &turns{all: semaphore.NewWeighted(maxReviews), each: map[string]*turnsOfOne{}}
}

// take waits for a turn of the caller of ctx, until ctx ends. The caller's own limit comes first, so that who waits for it is in nobody's way.
func (t *turns) take(ctx context.Context) (done func(), err error) {
	address := addressOf(ctx)
	t.mu.Lock()
	own := t.each[address]
	if own == nil {
		own = &turnsOfOne{Weighted: semaphore.NewWeighted(maxReviewsOfOne)}
		t.each[address] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.each, address)
		}
	}
	if err := own.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	if err := t.all.Acquire(ctx, 1); err != nil {
		own.Release(1)
		leave()
		return nil, err
	}
	return func() {
		t.all.Release(1)
		own.Release(1)
		leave()
	}, nil
}

// addressOf is the address the caller of ctx calls from, without its port.
func addressOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return unknownCaller
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
