package tour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// versionOf finds which version of reviews made the page; it marks the page with it.
var versionOf = regexp.MustCompile(`<section[^>]* id="reviews"[^>]* data-version="([^"]*)"`)

// patience is how long a change may take to be seen. It is seconds at most; the rest is for a machine with other things to do.
const patience = 60 * time.Second

// visitor is a browser's part of the tour: it keeps connections open, and follows no redirect by itself.
type visitor struct {
	client *http.Client
	site   string
}

func newVisitor(site string) *visitor {
	return &visitor{site: site, client: &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			Proxy:               nil,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is what came back, read to its end.
type answer struct {
	code   int
	status string
	header http.Header
	body   string
}

// fetch gets a path, as user if there is one.
func (v *visitor) fetch(ctx context.Context, method, path, user, form string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, v.site+path, strings.NewReader(form))
	if err != nil {
		return answer{}, err
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if user != "" {
		req.AddCookie(&http.Cookie{Name: "user", Value: user})
	}
	res, err := v.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }() // read to its end below
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return answer{res.StatusCode, res.Status, res.Header, string(body)}, err
}

// reviews loads the product page and says which version of reviews is in it. A page with a failure box is an error.
func (v *visitor) reviews(ctx context.Context, user string) (string, error) {
	a, err := v.fetch(ctx, http.MethodGet, "/productpage", user, "")
	if err != nil {
		return "", err
	}
	if a.code != http.StatusOK {
		return "", fmt.Errorf("the page answered %s: %.200s", a.status, strings.TrimSpace(a.body))
	}
	if strings.Contains(a.body, `class="sorry"`) {
		return "", errors.New("the page shows a failure box")
	}
	m := versionOf.FindStringSubmatch(a.body)
	if m == nil {
		return "", errors.New("the page shows no reviews")
	}
	return m[1], nil
}

// Count is what a number of requests met.
type Count struct {
	Versions map[string]int
	Failed   int
	// First is the first failure.
	First error
}

// Total is how many pages were good.
func (c Count) Total() int {
	n := 0
	for _, k := range c.Versions {
		n += k
	}
	return n
}

// count loads the page n times, eight at a time.
func (v *visitor) count(ctx context.Context, n int, user string) Count {
	c := Count{Versions: map[string]int{}}
	var mu sync.Mutex
	var wait sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wait.Go(func() {
			for next.Add(1) <= int64(n) {
				version, err := v.reviews(ctx, user)
				mu.Lock()
				c.add(version, err)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return c
}

func (c *Count) add(version string, err error) {
	if err == nil {
		c.Versions[version]++
		return
	}
	c.Failed++
	if c.First == nil {
		c.First = err
	}
}

// during keeps loading the page while do runs, and gives what was met. do's error comes first.
func (v *visitor) during(ctx context.Context, do func() error) (Count, error) {
	loading, stop := context.WithCancel(ctx)
	c := Count{Versions: map[string]int{}}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for loading.Err() == nil {
				// A request that has begun is let finish, or stopping would count as failing.
				version, err := v.reviews(ctx, "")
				mu.Lock()
				c.add(version, err)
				mu.Unlock()
			}
		})
	}
	err := do()
	stop()
	wait.Wait()
	return c, err
}

// until polls what a visitor sees until it is as wanted.
func until(ctx context.Context, what string, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w (last seen: %w)", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}
